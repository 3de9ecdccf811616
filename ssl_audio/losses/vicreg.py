"""VICReg: variance, invariance and covariance terms.

Bardes, Ponce and LeCun, "VICReg: variance-invariance-covariance regularization for self-supervised learning",
ICLR 2022, https://arxiv.org/abs/2105.04906.

The objective is a weighted sum of the three terms. The weights are those of the singer-identity paper, which differ
from those of the VICReg paper in the last one: invariance 25, variance 25, covariance 100 (VICReg paper: 1).
"""

from torch import Tensor
from torch.nn.functional import mse_loss, relu

from ssl_audio.losses._checks import check_view, check_views


def invariance_loss(z1: Tensor, z2: Tensor) -> Tensor:
    """Mean squared difference of the two views over all elements.

    Args:
        z1, z2: `(batch, dim)`. Row i of both comes from the same clip.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> invariance_loss(torch.zeros(2, 3), torch.full((2, 3), 2.0))
        tensor(4.)
    """
    check_views(z1, z2)
    return mse_loss(z1, z2)


def variance_loss(z: Tensor, gamma: float = 1.0, eps: float = 1e-8) -> Tensor:
    """Hinge loss on the standard deviation of each dimension: `mean_d relu(gamma - sqrt(var_d + eps))`.

    Args:
        z: `(batch, dim)`, one view. The variance is taken over the batch.
        gamma: standard deviation to reach: 1 as in the paper, or `1 / sqrt(dim)` for L2-normalised projections.
        eps: keeps the gradient of the square root finite where a dimension is constant.

    Returns:
        Scalar in [0, gamma].

    Raises:
        ValueError: not a `(batch, dim)` tensor, or fewer than 2 clips.

    Example:
        >>> import torch
        >>> variance_loss(torch.tensor([[0.0, 0.0], [1.0, 4.0]]))  # standard deviations 0.71 and 2.83
        tensor(0.1464)
    """
    check_view(z, minimum=2)
    return relu(gamma - (z.var(0) + eps).sqrt()).mean()


def covariance_loss(z: Tensor) -> Tensor:
    """Sum of the squared covariances of different dimensions, divided by `dim`: `sum_{i != j} C_ij^2 / dim`.

    Args:
        z: `(batch, dim)`, one view. The covariances C are taken over the batch.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: not a `(batch, dim)` tensor, or fewer than 2 clips.

    Example:
        >>> import torch
        >>> covariance_loss(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))  # both covariances are 2
        tensor(4.)
    """
    check_view(z, minimum=2)
    z = z - z.mean(0)
    covariance = z.T @ z / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
