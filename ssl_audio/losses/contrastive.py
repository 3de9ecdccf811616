"""Contrastive objectives.

- NT-Xent: Chen et al., "A simple framework for contrastive learning of visual representations", ICML 2020,
  https://arxiv.org/abs/2002.05709.
- Decoupled: Yeh et al., "Decoupled contrastive learning", ECCV 2022, https://arxiv.org/abs/2110.06848.
- From the first view to the second only, with a limited number of negatives: Torres et al., "Singer identity
  representation learning using self-supervised techniques", ISMIR 2023, https://arxiv.org/abs/2401.05064.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ssl_audio.losses._checks import check_temperature, check_views


def contrastive_loss(
    z1: Tensor,
    z2: Tensor,
    temperature: float = 0.2,
    num_negatives: int = 250,
    decoupled: bool = True,
    groups: Tensor | None = None,
) -> Tensor:
    """Pull the two views of a clip together, and push the first view away from the second views of other clips.

    With `s_ij = cos(z1_i, z2_j) / temperature`, the negatives of clip i are `s_{i, i-k}` (indices modulo the batch) for
    `k = 1 .. min(batch - 1, num_negatives)`. The loss is `mean_i(-s_ii + logsumexp(negatives_i))`; if it is not
    decoupled, the logsumexp includes the positive `s_ii`.

    Args:
        z1, z2: `(batch, dim)` projections of the two views, of any length. Row i of both comes from the same clip.
        temperature: above 0.
        num_negatives: at least 1. A number above `batch - 1` means all other clips.
        decoupled: leave the positive out of the denominator.
        groups: `(batch,)` integers. Clips of the same group (a folder, a voice) are not negatives of each other; a clip
            without any negative does not count. None: every clip is a group.

    Returns:
        Scalar. At least 0 if not decoupled; a decoupled loss may be negative.

    Raises:
        ValueError: the shapes differ, there are fewer than 2 clips, or an argument is out of its range.

    Example:
        >>> import torch
        >>> z = torch.eye(3)  # three clips at right angles, and equal views: s_ii = 1 / temperature, all others 0
        >>> contrastive_loss(z, z, temperature=0.5)  # -2 + log(2)
        tensor(-1.3069)
        >>> contrastive_loss(z, z, temperature=0.5, decoupled=False)  # -2 + log(2 + exp(2))
        tensor(0.2395)
    """
    check_views(z1, z2, minimum=2)
    check_temperature(temperature)
    if num_negatives < 1:
        raise ValueError(f"num_negatives must be at least 1, got {num_negatives}")
    similarity = normalize(z1, dim=1) @ normalize(z2, dim=1).T / temperature
    row = torch.arange(len(z1), device=z1.device)
    distance = (row[:, None] - row) % len(z1)  # how far the second view was rolled to meet this first view
    in_denominator = (distance <= num_negatives) & (distance >= (1 if decoupled else 0))
    if groups is not None:
        in_denominator &= ~_same_group(groups, len(z1))[: len(z1), : len(z1)]
        lonely = ~in_denominator.any(dim=1)  # its loss becomes 0: the positive alone is in the denominator
        in_denominator |= torch.diag(lonely)
    return (similarity.masked_fill(~in_denominator, -torch.inf).logsumexp(1) - similarity.diagonal()).mean()


def nt_xent_loss(z1: Tensor, z2: Tensor, temperature: float = 0.5, groups: Tensor | None = None) -> Tensor:
    """Symmetric NT-Xent: each of the 2N views must find its partner among the 2N - 1 others.

    Args:
        z1, z2: `(batch, dim)` projections of the two views, of any length. Row i of both comes from the same clip.
        temperature: above 0.
        groups: `(batch,)` integers. Clips of the same group (a folder, a voice) are not negatives of each other. None:
            every clip is a group.

    Returns:
        Scalar, at least 0: the mean cross-entropy over the 2N views.

    Raises:
        ValueError: the shapes differ, there are fewer than 2 clips, or the temperature is not above 0.

    Example:
        >>> import torch
        >>> z = torch.eye(3)
        >>> nt_xent_loss(z, z, temperature=0.5)  # -2 + log(exp(2) + 4)
        tensor(0.4327)
        >>> nt_xent_loss(z, z, temperature=0.5, groups=torch.tensor([0, 0, 1]))
        tensor(0.3039)
    """
    check_views(z1, z2, minimum=2)
    check_temperature(temperature)
    # To scale the vectors instead of their products, and to mask in place, saves two (2N, 2N) copies.
    z = normalize(torch.cat([z1, z2]), dim=1) * temperature**-0.5
    similarity = (z @ z.T).fill_diagonal_(-torch.inf)
    if groups is not None:
        similarity.masked_fill_(_same_group(groups, len(z1)), -torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z1))
    return cross_entropy(similarity, partner)


def replace_positives(z2: Tensor, stored: Tensor, known: Tensor) -> Tensor:
    """Replace some second views by stored projections of other recordings of the same voice.

    A positive sampler such as SSPS (Lepage and Dehak, 2025, https://arxiv.org/abs/2505.14561) finds such recordings.
    The result can be the second view in any loss of two views. Stored projections get no gradient.

    Args:
        z2: `(batch, dim)` projections of the second views.
        stored: `(batch, dim)` replacements; any value where there is none.
        known: `(batch,)`, true where there is a replacement.

    Returns:
        `(batch, dim)`.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> z1, z2, stored = torch.randn(3, 4, 16).unbind()
        >>> known = torch.tensor([True, False, False, True])
        >>> loss = nt_xent_loss(z1, replace_positives(z2, stored, known))
        >>> loss.shape
        torch.Size([])
    """
    check_views(z2, stored)
    if known.shape != z2.shape[:1]:
        raise ValueError(f"known must be a (batch,) mask of {len(z2)} rows, got {tuple(known.shape)}")
    return torch.where(known.unsqueeze(1), stored.detach(), z2)


def _same_group(groups: Tensor, batch: int) -> Tensor:
    """`(2 * batch, 2 * batch)`, true for views of different clips of the same group."""
    if groups.shape != (batch,):
        raise ValueError(f"groups must have one number for each of {batch} clips, got shape {tuple(groups.shape)}")
    same = (groups[:, None] == groups).fill_diagonal_(False)
    return same.repeat(2, 2)
