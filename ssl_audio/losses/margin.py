"""Softmax with a margin on cosines: what turns a classifier of (pseudo-)speakers into an embedding.

AM: Wang et al., 2018, https://arxiv.org/abs/1801.09414. AAM: Deng et al., 2019, https://arxiv.org/abs/1801.07698.
Sub-centres: Deng et al., ECCV 2020. Inter-top-k: Zhao et al., 2021, https://arxiv.org/abs/2110.05042.

Each function takes cosines `(batch, classes)` and gives them with a margin; scaled, they are the logits of a
cross-entropy:

    cosines = normalize(x) @ normalize(weight).T                              # (batch, classes)
    loss = cross_entropy(30 * aam_cosines(cosines, labels, margin=.2), labels)

With sub-centres a class has several weights and its cosine is the largest: `cosines.unflatten(1, (classes, centres))
.amax(2)`, which leaves room for wrongly labelled clips.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import one_hot

SQUARED_SINE_FLOOR = 1e-12  # under the root of 1 - cos^2: its derivative is infinite where a vector meets its class


def am_cosines(cosines: Tensor, labels: Tensor, margin: float = 0.2) -> Tensor:
    """Additive margin (CosFace): the own class's cosine less the margin.

    Args:
        cosines: (batch, classes)
        labels: (batch,) own classes.
        margin: at least 0.

    Returns:
        (batch, classes)

    Raises:
        ValueError: shapes that do not fit together.
    """
    own = _own(cosines, labels)
    return torch.where(own, cosines - margin, cosines)


def aam_cosines(cosines: Tensor, labels: Tensor, margin: float = 0.2, continuous: bool = True) -> Tensor:
    """Additive angular margin (ArcFace): the own class's `cos(angle + margin)`.

    Beyond the angle `pi - margin`, where this would rise again, the cosine is lowered by a constant instead.

    Args:
        cosines: (batch, classes)
        labels: (batch,) own classes.
        margin: in radians, from 0 to pi.
        continuous: lower it by `1 - cos(margin)`, so that both branches meet at -1 (wespeaker, 3D-Speaker), or by
            `margin * sin(margin)` (ArcFace's authors, voxceleb_trainer, sslsv, speechbrain).

    Returns:
        (batch, classes)

    Raises:
        ValueError: shapes that do not fit together.
    """
    own = _own(cosines, labels)
    widened = cosines * math.cos(margin) - _sines(cosines) * math.sin(margin)
    drop = 1 - math.cos(margin) if continuous else margin * math.sin(margin)
    return torch.where(own, torch.where(cosines > -math.cos(margin), widened, cosines - drop), cosines)


def inter_top_k_cosines(cosines: Tensor, labels: Tensor, k: int = 5, penalty: float = 0.06) -> Tensor:
    """Raise the k nearest other classes: their angles get smaller by the penalty.

    Args:
        cosines: (batch, classes) without a margin.
        labels: (batch,) own classes, which stay as they are.
        k: classes to raise, at least 1; more than there are others means all of them.
        penalty: in radians; wespeaker has .06 at a margin of .2 and lets it grow with the margin.

    Returns:
        (batch, classes)

    Raises:
        ValueError: shapes that do not fit together, or k below 1.
    """
    own = _own(cosines, labels)
    if k < 1:
        raise ValueError(f"inter-top-k raises at least one class, got k {k}")
    others = cosines.detach().masked_fill(own, -torch.inf)
    nearest = others.topk(min(k, cosines.shape[1]), dim=1).indices
    raised = torch.zeros_like(own).scatter(1, nearest, True) & ~own
    return torch.where(raised, cosines * math.cos(penalty) + _sines(cosines) * math.sin(penalty), cosines)


def _sines(cosines: Tensor) -> Tensor:
    return (1 - cosines.square()).clamp_min(SQUARED_SINE_FLOOR).sqrt()


def _own(cosines: Tensor, labels: Tensor) -> Tensor:
    """(batch, classes), true at each row's own class."""
    if cosines.ndim != 2 or labels.shape != cosines.shape[:1]:
        shapes = f"{tuple(cosines.shape)} and {tuple(labels.shape)}"
        raise ValueError(f"expected cosines (batch, classes) and labels (batch,), got {shapes}")
    return one_hot(labels, cosines.shape[1]).bool()
