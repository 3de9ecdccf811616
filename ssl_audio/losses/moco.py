"""MoCo: tell the key of a clip from a queue of earlier keys (He et al., 2020, https://arxiv.org/abs/1911.05722)."""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ssl_audio.losses._checks import check_temperature, check_views


def moco_loss(q: Tensor, k: Tensor, queue: Tensor, temperature: float = 0.07, ignored: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of finding the own key among it and the queue.

    `-log(exp(q.k / T) / (exp(q.k / T) + sum over the queue of exp(q.row / T)))`; chance is `ln(1 + rows)`. Only one
    direction: a symmetric method averages two, each with a queue of its own. Take the loss **before** the keys enter
    the queue, or each positive is a negative too and the loss cannot fall below ln 2.

        loss = moco_loss(head(encoder(clip1)), keys, queue, ignored=index[:, None] == queue_index)

    Args:
        q: (batch, dim) queries; the cosine is taken here.
        k: (batch, dim) keys of the other view, without gradient.
        queue: (rows, dim) earlier keys of unit length, as a queue keeps them.
        temperature: above 0.
        ignored: (batch, rows), true where a row of the queue must not count: an earlier key of the same recording or
            group. A queue longer than the data set always has some.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: shapes that do not fit together, or the temperature is not above 0.
    """
    check_views(q, k)
    check_temperature(temperature)
    expected = (len(q), len(queue))
    if queue.ndim != 2 or queue.shape[1] != q.shape[1] or (ignored is not None and ignored.shape != expected):
        mask = "" if ignored is None else f" and a mask {tuple(ignored.shape)}"
        raise ValueError(f"queries {tuple(q.shape)} do not fit a queue {tuple(queue.shape)}{mask}")
    q = normalize(q, dim=1) / temperature
    positive = (q * normalize(k.detach(), dim=1)).sum(dim=1, keepdim=True)
    negatives = q @ queue.detach().T
    if ignored is not None:
        negatives = negatives.masked_fill(ignored, -torch.inf)
    target = torch.zeros(len(q), dtype=torch.long, device=q.device)
    return cross_entropy(torch.cat([positive, negatives], dim=1), target)
