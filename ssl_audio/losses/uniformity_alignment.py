"""Alignment and uniformity on the hypersphere.

Wang and Isola, "Understanding contrastive representation learning through alignment and uniformity on the hypersphere",
ICML 2020, https://arxiv.org/abs/2005.10242.
"""

import math

import torch
from torch import Tensor

from ssl_audio.losses._checks import check_view, check_views


def alignment_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared distance between the two views of a clip: `mean_i ||z1_i - z2_i||^2`.

    Args:
        z1, z2: `(batch, dim)`. L2-normalise them for the paper's measure.

    Returns:
        Scalar, at least 0; at most 4 for L2-normalised views.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
        >>> alignment_loss(z, z)
        tensor(0.)
        >>> alignment_loss(z, -z)
        tensor(4.)
    """
    check_views(z1, z2)
    return (z1 - z2).square().sum(1).mean()


def uniformity_loss(z: Tensor) -> Tensor:
    """How unevenly one view covers the sphere: `log mean_{i<j} exp(-2 ||z_i - z_j||^2)`. Lower is more even.

    Args:
        z: `(batch, dim)`. L2-normalise it for the paper's measure.

    Returns:
        Scalar, at most 0. It is 0 if all clips lie at one point.

    Raises:
        ValueError: not a `(batch, dim)` tensor, or fewer than 2 clips.

    Example:
        >>> import torch
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
        >>> uniformity_loss(z)  # log(exp(-2 * 4))
        tensor(-8.)
    """
    check_view(z, minimum=2)
    z = z - z.mean(0)  # keeps the distances, and the subtraction below loses fewer digits
    length = z.square().sum(1)
    # Squared distances by one matrix product. The clamp removes small negative values that rounding leaves.
    distance = (length[:, None] + length - 2 * z @ z.T).clamp_min(0)
    off_diagonal = (-2 * distance).fill_diagonal_(-torch.inf)
    return off_diagonal.flatten().logsumexp(0) - math.log(len(z) * (len(z) - 1))
