"""Networks that follow another by a moving average of its weights."""

import copy

import torch
from torch import nn


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy that gets no gradient. It stays in training mode: batch-norm keeps the statistics of its own passes."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def follow(follower: nn.Module, leader: nn.Module, momentum: float) -> None:
    """follower = momentum follower + (1 - momentum) leader, for parameters; buffers are left alone.

    The follower of DINO and MoCo sees other clips than the leader, or in other batches, so the statistics of its
    batch-norm are its own.
    """
    torch._foreach_lerp_(list(follower.parameters()), list(leader.parameters()), 1 - momentum)
