"""Variance, invariance and covariance terms (Bardes et al., ICLR 2022, https://arxiv.org/abs/2105.04906)."""

from torch import Tensor
from torch.nn.functional import mse_loss, relu

from ssl_audio.losses._checks import check_view, check_views


def invariance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared difference over all elements of two (batch, dim) views.

    Raises:
        ValueError: shapes differ.
    """
    check_views(z1, z2)
    return mse_loss(z1, z2)


def variance_loss(z: Tensor, gamma: float = 1.0, eps: float = 1e-8) -> Tensor:
    """Hinge on each dimension's standard deviation over the batch: `mean_d relu(gamma - sqrt(var_d + eps))`.

    Args:
        z: (batch, dim), one view.
        gamma: the standard deviation to reach; 1, or 1/sqrt(dim) for L2-normalised projections.
        eps: keeps the root's gradient finite where a dimension is constant.

    Returns:
        Scalar in [0, gamma].

    Raises:
        ValueError: not a (batch, dim) tensor, or fewer than 2 clips.
    """
    check_view(z, minimum=2)
    return relu(gamma - (z.var(0) + eps).sqrt()).mean()


def covariance_loss(z: Tensor) -> Tensor:
    """Sum of the squared off-diagonal covariances over the batch, divided by the number of dimensions.

    Args:
        z: (batch, dim), one view.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: not a (batch, dim) tensor, or fewer than 2 clips.
    """
    check_view(z, minimum=2)
    z = z - z.mean(0)
    covariance = z.T @ z / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
