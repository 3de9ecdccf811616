"""SimSiam: cosine similarity of a prediction and a target without gradient.

Chen and He, "Exploring simple Siamese representation learning", CVPR 2021, https://arxiv.org/abs/2011.10566.
"""

from torch import Tensor
from torch.nn.functional import cosine_similarity

from ssl_audio.losses._checks import check_views


def simsiam_loss(p: Tensor, z: Tensor) -> Tensor:
    """Mean negative cosine similarity of predictions and targets.

    `z` is detached here: without this stop-gradient the representation collapses. It is one direction of the symmetric
    loss; the method adds the other. The `2 - 2 cos` of BYOL and wav2rec is `2 + 2 * simsiam_loss`.

    Args:
        p: `(batch, dim)` predictions from one view, of any length.
        z: `(batch, dim)` projections of the other view, of any length.

    Returns:
        Scalar in [-1, 1].

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> p, z = torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0, 0.0]])
        >>> simsiam_loss(p, z)
        tensor(-0.6000)
    """
    check_views(p, z)
    return -cosine_similarity(p, z.detach(), dim=1).mean()
