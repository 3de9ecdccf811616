"""BYOL: predict the target network's projection of the other view.

Grill et al., "Bootstrap your own latent", NeurIPS 2020, https://arxiv.org/abs/2006.07733.
"""

from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from ssl_audio.losses._checks import check_views


def byol_loss(p: Tensor, z: Tensor) -> Tensor:
    """Mean squared difference of predictions and targets, both L2-normalised, over all elements.

    This is the paper's `2 - 2 cos(p, z)` divided by `dim`. It is one direction of the symmetric loss; the method adds
    the other. The gradient flows into `z` too: detach it, or compute it without gradient.

    Args:
        p: `(batch, dim)` predictions from one view, of any length.
        z: `(batch, dim)` target projections of the other view, of any length.

    Returns:
        Scalar in [0, 4 / dim].

    Raises:
        ValueError: the shapes differ.

    Example:
        >>> import torch
        >>> p, z = torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]])
        >>> byol_loss(p, z)  # at right angles: 2 / dim
        tensor(1.)
        >>> byol_loss(z, z)
        tensor(0.)
    """
    check_views(p, z)
    return mse_loss(normalize(p, dim=1), normalize(z, dim=1))
