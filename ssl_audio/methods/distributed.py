"""Batches over several processes, with exact gradients."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def gather(z: Tensor) -> Tensor:
    """The rows of every rank, in rank order, on every rank; `z` itself when there is one process.

    With W ranks, each rank computes the same loss L of all rows. The backward pass of this gather sums the gradients
    that all W ranks send for the rows of rank r: W dL/dz_r. DistributedDataParallel averages parameter gradients, so
    each rank ends with `1/W sum_r (W dL/dz_r) dz_r/dtheta = dL/dtheta`, as one process computes it on the whole batch.

    Args:
        z: (batch, ...), the same shape on each rank.

    Returns:
        (ranks * batch, ...)
    """
    if ranks() == 1:
        return z
    return _Gather.apply(z.contiguous())


def ranks() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if ranks() > 1 else 0


def of_first(z: Tensor) -> Tensor:
    """Overwrite `z`, of the same shape on every rank, by rank 0's, so that all ranks use the same random numbers."""
    if ranks() > 1:
        dist.broadcast(z, src=0)
    return z


class _Gather(torch.autograd.Function):
    """Forward: the rows of all ranks. Backward: the sum over the ranks of the gradients of this rank's rows.

    `torch.distributed.nn.functional.all_gather` does the same; torch deprecates it in favour of a private module.
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        rows = [torch.empty_like(z) for _ in range(ranks())]
        dist.all_gather(rows, z)
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone(memory_format=torch.contiguous_format)  # autograd may still use its own
        dist.all_reduce(total)
        return total.chunk(ranks())[rank()]
