"""Supervised contrastive objective: all views of a group are positives.

Khosla et al., "Supervised contrastive learning", NeurIPS 2020, https://arxiv.org/abs/2004.11362.
"""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_audio.losses._checks import check_temperature, check_view


def sup_con_loss(z: Tensor, groups: Tensor, temperature: float = 0.1, ignored: Tensor | None = None) -> Tensor:
    """Pull all views of a group together, and push views of other groups away.

    With `s_ij = cos(z_i, z_j) / T` and P(i), the other views in the group of anchor i, the loss of the anchor is
    `-mean over p in P(i) of (s_ip - log(sum over a != i of exp(s_ia)))`. The result is the mean over all anchors that
    have positives. (It is the paper's form with the sum outside of the logarithm. The authors' code also multiplies by
    `T / 0.07`.) With two views of each clip, and every clip a group, it equals `nt_xent_loss`.

    Args:
        z: `(views, dim)` projections, of any length.
        groups: `(views,)` integers, equal for the views of a group (a folder, a voice, a cluster).
        temperature: above 0.
        ignored: `(views, views)`, true for pairs that are neither positives nor negatives.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: the shapes do not fit together, no two views have the same group, or the temperature is not above 0.

    Example:
        >>> import torch
        >>> z1, z2 = torch.randn(2, 4, 16)
        >>> voice = torch.tensor([0, 0, 1, 2])  # two clips of the first voice
        >>> sup_con_loss(torch.cat([z1, z2]), torch.cat([voice, voice])).shape
        torch.Size([])
    """
    check_view(z, minimum=2)
    check_temperature(temperature)
    views = len(z)
    if groups.shape != (views,) or (ignored is not None and ignored.shape != (views, views)):
        mask = "" if ignored is None else f" and a mask {tuple(ignored.shape)}"
        raise ValueError(f"{views} views do not fit groups {tuple(groups.shape)}{mask}")
    z = normalize(z, dim=1) * temperature**-0.5
    similarity = z @ z.T
    left_out = torch.eye(views, dtype=torch.bool, device=z.device)
    if ignored is not None:
        left_out = left_out | ignored
    positives = (groups[:, None] == groups) & ~left_out
    count = positives.sum(dim=1)
    if not count.any():
        raise ValueError(
            "no two views in the batch have the same group; give two views of each clip, or several clips of a group"
        )
    log_probability = similarity - similarity.masked_fill(left_out, -torch.inf).logsumexp(dim=1, keepdim=True)
    # Masked before the sum, because the logarithm of an anchor without any pair is infinite.
    loss = -log_probability.masked_fill(~positives, 0.0).sum(dim=1) / count.clamp_min(1)
    return loss[count > 0].mean()
