"""Similarity of a prediction and a target without gradient (Chen & He, CVPR 2021, https://arxiv.org/abs/2011.10566)."""

from torch import Tensor
from torch.nn.functional import cosine_similarity

from ssl_audio.losses._checks import check_views


def simsiam_loss(p: Tensor, z: Tensor) -> Tensor:
    """Mean negative cosine of predictions and targets; `z` is detached here, without which everything collapses.

    One direction only: the method averages both. wav2rec's and BYOL's `2 - 2 cos` is this times 2 plus 2.

    Args:
        p: (batch, dim) predictions from one view.
        z: (batch, dim) projections of the other view.

    Returns:
        Scalar in [-1, 1].

    Raises:
        ValueError: shapes differ.
    """
    check_views(p, z)
    return -cosine_similarity(p, z.detach(), dim=1).mean()
