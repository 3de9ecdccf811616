"""What is done to gradients between the backward pass and the optimiser's step."""

from collections.abc import Iterable

import torch
from torch import Tensor

EPSILON = 1e-6  # added to a norm before the division, as DINO's authors do


@torch.no_grad()
def clip_each(parameters: Iterable[Tensor], max_norm: float) -> None:
    """Scale each tensor's gradient to a norm of at most `max_norm`, by that tensor's own norm.

    DINO clips so. Lightning's `gradient_clip_val` and `torch.nn.utils.clip_grad_norm_` go by the norm of all gradients
    together and take smaller steps. Under a gradient scaler, unscale first.

    Args:
        parameters: those without a gradient are skipped.
        max_norm: above 0; 3 in DINO.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        scales = [(max_norm / (norm + EPSILON)).clamp_max(1.0) for norm in torch._foreach_norm(gradients)]
        torch._foreach_mul_(gradients, scales)


def drop_gradients(parameters: Iterable[Tensor]) -> None:
    """Freeze parameters for this step: the optimiser leaves a tensor without a gradient as it is.

    A gradient of zero would not: weight decay and momentum go on. DINO freezes its head's last layer like this in the
    first epoch:

        loss.backward()
        if epoch < 1:
            drop_gradients([head.prototypes])
        optimizer.step()
    """
    for parameter in parameters:
        parameter.grad = None
