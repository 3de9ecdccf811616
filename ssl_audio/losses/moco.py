"""MoCo: find the key of a clip among a queue of earlier keys.

He et al., "Momentum contrast for unsupervised visual representation learning", CVPR 2020,
https://arxiv.org/abs/1911.05722.
"""

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ssl_audio.losses._checks import check_temperature, check_views


def moco_loss(q: Tensor, k: Tensor, queue: Tensor, temperature: float = 0.07, ignored: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of finding a clip's key among this key and those in the queue.

    For each clip it is `-log(exp(q.k / T) / (exp(q.k / T) + sum over the queue of exp(q.row / T)))`. By chance it is
    `log(1 + rows)`. It is one direction; a symmetric method averages two, each with its own queue. Compute the loss
    before the keys enter the queue: otherwise each positive is a negative too, and the loss cannot fall below `log(2)`.

    Args:
        q: `(batch, dim)` queries, of any length.
        k: `(batch, dim)` keys of the other view, of any length. They get no gradient.
        queue: `(rows, dim)` earlier keys, of unit length.
        temperature: above 0.
        ignored: `(batch, rows)`, true where a row of the queue is not a negative: an earlier key of the same recording
            or group. A queue that is longer than the data set always has such rows.

    Returns:
        Scalar, at least 0.

    Raises:
        ValueError: the shapes do not fit together, or the temperature is not above 0.

    Example:
        >>> import torch
        >>> q = k = torch.tensor([[1.0, 0.0]])
        >>> queue = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
        >>> moco_loss(q, k, queue, temperature=0.5)  # log(1 + 2 exp(-2))
        tensor(0.2395)
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
