"""Margins on cosines, for a classifier of speakers or pseudo-labels whose features are good embeddings.

- AM: Wang et al., 2018, https://arxiv.org/abs/1801.09414
- AAM: Deng et al., 2019, https://arxiv.org/abs/1801.07698
- sub-centres: Deng et al., "Sub-center ArcFace", ECCV 2020
- inter-top-k: Zhao et al., 2021, https://arxiv.org/abs/2110.05042

Each function takes cosines `(batch, classes)` and returns them with a margin. After scaling they are the logits of a
cross-entropy. With sub-centres, a class has several weights and its cosine is the largest of theirs, which leaves room
for wrongly labelled clips. `ssl_audio.heads.MarginHead` does all of this.

Example:
    >>> from torch.nn.functional import cross_entropy, normalize
    >>> x, weight, labels = torch.randn(4, 192), torch.randn(10, 192), torch.tensor([0, 3, 3, 9])
    >>> cosines = normalize(x) @ normalize(weight).T  # (batch, classes)
    >>> loss = cross_entropy(30 * aam_cosines(cosines, labels, margin=0.2), labels)
    >>> loss.shape
    torch.Size([])
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

SQUARED_SINE_FLOOR = 1e-12  # least value of 1 - cos^2 under the square root, whose gradient at 0 is infinite


def am_cosines(cosines: Tensor, labels: Tensor, margin: float = 0.2) -> Tensor:
    """Additive margin (CosFace): subtract the margin from the cosine with the true class.

    Args:
        cosines: `(batch, classes)`.
        labels: `(batch,)` true classes.
        margin: at least 0.

    Returns:
        `(batch, classes)`.

    Raises:
        ValueError: the shapes do not fit together.

    Example:
        >>> import torch
        >>> am_cosines(torch.tensor([[0.9, 0.5]]), torch.tensor([0]), margin=0.2)
        tensor([[0.7000, 0.5000]])
    """
    own = _own(cosines, labels)
    return torch.where(own, cosines - margin, cosines)


def aam_cosines(cosines: Tensor, labels: Tensor, margin: float = 0.2, continuous: bool = True) -> Tensor:
    """Additive angular margin (ArcFace): replace the cosine with the true class by `cos(angle + margin)`.

    For angles above `pi - margin`, where this would rise again, a constant is subtracted from the cosine instead.

    Args:
        cosines: `(batch, classes)`.
        labels: `(batch,)` true classes.
        margin: in radians, from 0 to pi.
        continuous: the constant is `1 - cos(margin)`, so that both parts meet at -1 (wespeaker, 3D-Speaker). Otherwise
            it is `margin * sin(margin)` (ArcFace, voxceleb_trainer, sslsv, speechbrain).

    Returns:
        `(batch, classes)`.

    Raises:
        ValueError: the shapes do not fit together.

    Example:
        >>> import torch
        >>> aam_cosines(torch.tensor([[1.0, 0.5]]), torch.tensor([0]), margin=0.2)  # cos(0.2)
        tensor([[0.9801, 0.5000]])
    """
    own = _own(cosines, labels)
    widened = cosines * math.cos(margin) - _sines(cosines) * math.sin(margin)
    drop = 1 - math.cos(margin) if continuous else margin * math.sin(margin)
    return torch.where(own, torch.where(cosines > -math.cos(margin), widened, cosines - drop), cosines)


def inter_top_k_cosines(cosines: Tensor, labels: Tensor, k: int = 5, penalty: float = 0.06) -> Tensor:
    """Make the k nearest wrong classes harder: subtract the penalty from their angles.

    Args:
        cosines: `(batch, classes)` without a margin.
        labels: `(batch,)` true classes. Their cosines are not changed.
        k: number of wrong classes, at least 1. A larger number than there are means all.
        penalty: in radians. wespeaker has 0.06 for a margin of 0.2, in proportion to the margin.

    Returns:
        `(batch, classes)`.

    Raises:
        ValueError: the shapes do not fit together, or k is below 1.

    Example:
        >>> import torch
        >>> inter_top_k_cosines(torch.tensor([[0.9, 0.0, -0.5]]), torch.tensor([0]), k=1)  # sin(0.06)
        tensor([[ 0.9000,  0.0600, -0.5000]])
    """
    own = _own(cosines, labels)
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    others = cosines.detach().masked_fill(own, -torch.inf)
    nearest = others.topk(min(k, cosines.shape[1]), dim=1).indices
    raised = torch.zeros_like(own).scatter(1, nearest, True) & ~own
    return torch.where(raised, cosines * math.cos(penalty) + _sines(cosines) * math.sin(penalty), cosines)


def _sines(cosines: Tensor) -> Tensor:
    return (1 - cosines.square()).clamp_min(SQUARED_SINE_FLOOR).sqrt()


def _own(cosines: Tensor, labels: Tensor) -> Tensor:
    """`(batch, classes)`, true at the true class of each row."""
    if cosines.ndim != 2 or labels.shape != cosines.shape[:1]:
        shapes = f"{tuple(cosines.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"expected cosines (batch, classes) and labels (batch,), got {shapes}")
    return one_hot(labels, cosines.shape[1]).bool()
