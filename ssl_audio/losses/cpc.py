"""InfoNCE over future frames (Oord et al., 2018, https://arxiv.org/abs/1807.03748)."""

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
    """Frames to tell the true future from: a uniform clip of the batch, and any other time than the position's own.

    Args:
        batch: clips.
        frames: of a clip, at least 2.
        positions: the frames 0 .. positions - 1 from which is predicted.
        count: negatives of a position; the same serve all its prediction steps.
        within: draw from the position's own clip only, as the paper's "same speaker" negatives.
        generator: of the draw; None: torch's own.
        device: of the result.

    Returns:
        (batch, positions, count) int64 indices into the batch * frames frames, clip after clip.

    Raises:
        ValueError: fewer than 2 frames, or a count below 1.
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
    """Cross-entropy of finding the frame that comes k steps later among the negatives, for k = 1 .. steps.

    A score is the scalar product of prediction and frame. All frames of the batch are scored in one matrix product a
    step and the candidates are picked from the scores, so the negatives' vectors are never copied together.

    Args:
        predictions: (steps, batch, positions, dim); [k, b, t] predicts frame t + k + 1 of clip b.
        latents: (clips, frames, dim) with frames >= positions + steps; clips first .. first + batch - 1 are the ones
            predicted, others (of other processes) only give negatives.
        negatives: (batch, positions, count) indices, see `sample_negatives`.
        scale_by_dim: divide the scores by `dim`, which keeps them near 0 at the start of training.
        exclude_collisions: leave a negative out where it is the positive itself; about one in (batch * frames) draws.
        first: see `latents`.

    Returns:
        (steps,) mean losses, at chance ln(1 + count), and (steps,) shares of positions at which the true frame scored
        above every negative, without gradient.

    Raises:
        ValueError: shapes that do not fit together.
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
        if exclude_collisions:
            scores = torch.cat([scores[:, :1], scores[:, 1:].masked_fill(negatives == positive, -torch.inf)], dim=1)
        losses.append(cross_entropy(scores, target))
        with torch.no_grad():
            # Strictly above: representations that are all alike must not count as right.
            accuracies.append((scores[:, 0] > scores[:, 1:].amax(1)).float().mean())
    return torch.stack(losses), torch.stack(accuracies)
