"""Changes of gradients between the backward pass and the optimiser's step."""

from collections.abc import Iterable

import torch
from torch import Tensor

EPSILON = 1e-6  # added to a norm before the division, as in the code of DINO


@torch.no_grad()
def clip_each(parameters: Iterable[Tensor], max_norm: float) -> None:
    """Clip the gradient of each tensor to a norm of at most `max_norm`, as DINO does.

    (Lightning's `gradient_clip_val` and `torch.nn.utils.clip_grad_norm_` use the norm of all gradients together, which
    gives smaller steps.) With a gradient scaler, unscale the gradients first.

    Args:
        parameters: parameters; those without a gradient are skipped.
        max_norm: above 0; 3 in DINO.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if gradients:
        scales = [(max_norm / (norm + EPSILON)).clamp_max(1.0) for norm in torch._foreach_norm(gradients)]
        torch._foreach_mul_(gradients, scales)


def drop_gradients(parameters: Iterable[Tensor]) -> None:
    """Freeze parameters for this step, by removing their gradients.

    The optimiser skips a tensor without a gradient. (With a gradient of zero, weight decay and momentum would still
    change it.) DINO freezes the last layer of its head in the first epoch:

        loss.backward()
        if epoch < 1:
            drop_gradients([head.prototypes])
        optimizer.step()
    """
    for parameter in parameters:
        parameter.grad = None
