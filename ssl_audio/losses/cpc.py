"""CPC: InfoNCE over future frames.

Van den Oord et al., "Representation learning with contrastive predictive coding", 2018,
https://arxiv.org/abs/1807.03748.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def sample_negatives(
    batch: int,
    frames: int,
    positions: int,
    count: int,
    within: bool = False,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw negative frames for every position: from any clip of the batch, and at any other time than the position.

    Args:
        batch: number of clips.
        frames: number of frames per clip, at least 2.
        positions: number of positions per clip: predictions start from the frames 0 .. positions - 1.
        count: negatives per position. All prediction steps of a position have the same negatives.
        within: draw from the position's own clip only (the paper's "same speaker" negatives).
        generator: source of the draws. None: torch's global generator.
        device: device of the result.

    Returns:
        `(batch, positions, count)` int64 indices into the `batch * frames` frames, clip after clip.

    Raises:
        ValueError: fewer than 2 frames, or a count below 1.

    Example:
        >>> import torch
        >>> negatives = sample_negatives(batch=4, frames=10, positions=8, count=5)
        >>> negatives.shape
        torch.Size([4, 8, 5])
        >>> bool((negatives % 10 == torch.arange(8).view(1, 8, 1)).any())  # a time is never the position's own
        False
    """
    if frames < 2 or count < 1:
        raise ValueError(f"negatives need at least 2 frames and a count of at least 1, got {frames} and {count}")
    shape = (batch, positions, count)
    own = torch.arange(batch, device=device).view(batch, 1, 1)
    clip = own if within else torch.randint(batch, shape, generator=generator, device=device)
    offset = torch.randint(1, frames, shape, generator=generator, device=device)
    time = (torch.arange(positions, device=device).view(1, positions, 1) + offset) % frames
    return clip * frames + time


def cpc_loss(
    predictions: Tensor,
    latents: Tensor,
    negatives: Tensor,
    scale_by_dim: bool = True,
    exclude_collisions: bool = False,
    first: int = 0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of finding the frame k steps ahead among the negatives, for k = 1 .. steps.

    The score of a frame is its scalar product with the prediction. For each step, one matrix product scores all frames
    of the batch, and the candidates are taken from the scores; the vectors of the negatives are never copied.

    Args:
        predictions: `(steps, batch, positions, dim)`; `predictions[k, b, t]` predicts frame `t + k + 1` of clip b.
        latents: `(clips, frames, dim)` with `frames >= positions + steps`. The clips `first .. first + batch - 1` are
            predicted; the others, which come from other processes, serve as negatives only.
        negatives: `(batch, positions, count)` indices; see `sample_negatives`.
        scale_by_dim: divide the scores by `dim`, which keeps them near 0 at the start of training.
        exclude_collisions: remove a negative that is the positive itself, about one in `batch * frames`.
        first: see `latents`.

    Returns:
        `(steps,)` mean losses, about `log(1 + count)` by chance.
        `(steps,)` accuracies: the fraction of positions whose true frame scored above every negative that is another
        frame; no gradient. So 1 can be reached, whatever the batch.

    Raises:
        ValueError: the shapes do not fit together.

    Example:
        >>> import torch
        >>> latents = torch.eye(6).view(1, 6, 6)  # a clip of 6 frames, all different
        >>> predictions = 20 * latents[None, :, 1:5]  # from 4 positions, the frame one step ahead
        >>> losses, accuracies = cpc_loss(predictions, latents, torch.tensor([[[4], [0], [0], [0]]]))
        >>> losses  # the scores are 20 / 6 and 0
        tensor([0.0351])
        >>> accuracies
        tensor([1.])
    """
    steps, batch, positions, dim = predictions.shape
    clips, frames = latents.shape[:2]
    fits = latents.shape[2:] == (dim,) and clips >= first + batch and frames >= positions + steps
    if not fits or negatives.shape[:2] != (batch, positions):
        raise ValueError(
            f"{steps} steps from {positions} positions need latents of shape "
            f"(>= {first + batch}, >= {positions + steps}, {dim}), got {tuple(latents.shape)}, "
            f"with negatives for {tuple(negatives.shape[:2])}"
        )
    negatives = negatives.flatten(0, 1)
    clip, time = (
        torch.arange(first, first + batch, device=latents.device),
        torch.arange(positions, device=latents.device),
    )
    now = (clip.unsqueeze(1) * frames + time).flatten()
    everything = latents.flatten(0, 1).T / (dim if scale_by_dim else 1)
    target = torch.zeros_like(now)
    losses, accuracies = [], []
    for k, prediction in enumerate(predictions, start=1):
        positive = (now + k).unsqueeze(1)
        scores = (prediction.flatten(0, 1) @ everything).gather(1, torch.cat([positive, negatives], dim=1))
        others = scores[:, 1:].masked_fill(negatives == positive, -torch.inf)
        losses.append(
            cross_entropy(torch.cat([scores[:, :1], others], dim=1) if exclude_collisions else scores, target)
        )
        with torch.no_grad():
            # Strictly above, so that collapsed representations, whose scores are all equal, count as wrong.
            accuracies.append((scores[:, 0] > others.amax(1)).float().mean())
    return torch.stack(losses), torch.stack(accuracies)
