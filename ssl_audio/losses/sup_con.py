"""Supervised contrastive objective (Khosla et al., NeurIPS 2020, https://arxiv.org/abs/2004.11362)."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ssl_audio.losses._checks import check_temperature, check_view


def sup_con_loss(z: Tensor, groups: Tensor, temperature: float = 0.1, ignored: Tensor | None = None) -> Tensor:
    """Pull all views of a group together, push those of other groups away; the paper's form with the sum outside.

    With `s_ij = cos(z_i, z_j) / T`, the loss of anchor i with the positives P(i), the other views of its group, is
    `-mean over p in P(i) of (s_ip - log sum over a != i of exp(s_ia))`, and the loss is the mean over the anchors that
    have positives. With two views of each clip and every clip a group of its own it equals `nt_xent_loss`. The authors'
    code multiplies it by `T / .07`; this does not.

        loss = sup_con_loss(torch.cat([z1, z2]), torch.cat([group, group]))

    Args:
        z: (views, dim) projections; the cosine is taken here.
        groups: (views,) integers, equal for views of one group (a folder, a voice, a cluster).
        temperature: above 0.
        ignored: (views, views), true for pairs that are neither pulled together nor pushed apart.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: shapes that do not fit together, no two views of one group, or the temperature is not above 0.
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
            "no two views of the batch are of one group; give two views of each clip, or several clips of a group"
        )
    log_probability = similarity - similarity.masked_fill(left_out, -torch.inf).logsumexp(dim=1, keepdim=True)
    # Taken out before the sum: an anchor without a pair has no finite logarithm.
    loss = -log_probability.masked_fill(~positives, 0.0).sum(dim=1) / count.clamp_min(1)
    return loss[count > 0].mean()
