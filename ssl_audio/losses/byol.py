"""Prediction of a target view (Grill et al., NeurIPS 2020, https://arxiv.org/abs/2006.07733)."""

from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from ssl_audio.losses._checks import check_views


def byol_loss(p: Tensor, z: Tensor) -> Tensor:
    """Mean squared difference over all elements of a prediction and its target, both L2-normalised here.

    This is the paper's `2 - 2 cos(p, z)` divided by the number of dimensions, and one direction only: the method
    averages both. The target gets no gradient from here; detach it or compute it without.

    Args:
        p: (batch, dim) predictions from one view.
        z: (batch, dim) target projections of the other view.

    Returns:
        Scalar in [0, 4 / dim].

    Raises:
        ValueError: shapes differ.
    """
    check_views(p, z)
    return mse_loss(normalize(p, dim=1), normalize(z, dim=1))
