"""Alignment and uniformity on the hypersphere (Wang and Isola, ICML 2020, https://arxiv.org/abs/2005.10242)."""

import math

import torch
from torch import Tensor

from ssl_audio.losses._checks import check_view, check_views


def alignment_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared distance between the two views of a clip: `mean_i ||z1_i - z2_i||^2`.

    Args:
        z1, z2: (batch, dim), L2-normalised by whoever wants the paper's measure.

    Returns:
        Scalar, at least 0; at most 4 on the sphere.

    Raises:
        ValueError: shapes differ.
    """
    check_views(z1, z2)
    return (z1 - z2).square().sum(1).mean()


def uniformity_loss(z: Tensor) -> Tensor:
    """How evenly one view covers the sphere: `log mean_{i<j} exp(-2 ||z_i - z_j||^2)`.

    Args:
        z: (batch, dim), L2-normalised by whoever wants the paper's measure.

    Returns:
        Scalar, at most 0 (all clips at one point).

    Raises:
        ValueError: not a (batch, dim) tensor, or fewer than 2 clips.
    """
    check_view(z, minimum=2)
    z = z - z.mean(0)  # distances stay the same, the subtraction below loses fewer digits
    length = z.square().sum(1)
    # Squared distances as one matrix product; the clamp removes the tiny negative values of rounding.
    distance = (length[:, None] + length - 2 * z @ z.T).clamp_min(0)
    off_diagonal = (-2 * distance).fill_diagonal_(-torch.inf)
    return off_diagonal.flatten().logsumexp(0) - math.log(len(z) * (len(z) - 1))
