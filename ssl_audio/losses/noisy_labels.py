"""Training on labels of which some are wrong: leave out clips of large loss, or give them the network's own label.

Fixed gate: Tao et al., 2022, https://arxiv.org/abs/2110.03869. Gate by a mixture, and label correction: Han et al.,
2022, https://arxiv.org/abs/2208.01928.

    losses = cross_entropy(logits, labels, reduction="none")
    loss, kept = gated_loss(losses, gate)                                     # gate 3.0, or of `fit_loss_gate`

    classes, sure = predicted_classes(clean_embeddings, weight)               # of a view without augmentation
    loss = corrected_loss(losses, cross_entropy(logits, classes, reduction="none"), losses <= gate, sure)
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def gated_loss(losses: Tensor, gate: float) -> tuple[Tensor, Tensor]:
    """Mean loss of the clips whose loss is at most the gate.

    Args:
        losses: (batch,) cross-entropies.
        gate: in the unit of the losses.

    Returns:
        Scalar, 0 and without gradient where no clip is kept; and (batch,), true for what was kept.
    """
    kept = losses.detach() <= gate
    return torch.where(kept, losses, 0.0).sum() / kept.sum().clamp_min(1), kept


def corrected_loss(losses: Tensor, corrected: Tensor, kept: Tensor, sure: Tensor) -> Tensor:
    """Mean over the **whole** batch: kept clips by their label, the others by the network's where it is sure, else 0.

    Args:
        losses: (batch,) cross-entropies of the given labels.
        corrected: (batch,) cross-entropies of the predicted classes, from the same logits.
        kept: (batch,), true below the gate.
        sure: (batch,), true where the prediction counts.

    Returns:
        Scalar, at least 0.
    """
    return torch.where(kept, losses, torch.where(sure, corrected, 0.0)).mean()


@torch.no_grad()
def predicted_classes(
    embeddings: Tensor, weight: Tensor, temperature: float = 0.1, threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    """The most probable class by `softmax(embedding . weight / temperature)`, plain products without a margin.

    Args:
        embeddings: (batch, dim) of views without augmentation.
        weight: (classes, dim) of the classifier.
        temperature: above 0; below 1 it sharpens.
        threshold: least probability of a prediction that counts.

    Returns:
        (batch,) classes and (batch,), true where the probability is above the threshold.
    """
    probability, classes = (embeddings @ weight.T / temperature).softmax(dim=1).max(dim=1)
    return classes, probability > threshold


def fit_loss_gate(losses: Tensor) -> float | None:
    """A gate between the small losses of right labels and the large ones of wrong labels.

    Two Gaussians are fitted to the logarithm of the losses of an epoch; the gate is where their densities cross.

    Args:
        losses: (clips,) cross-entropies of the epoch before.

    Returns:
        The gate in the unit of the losses; None where the Gaussians do not cross exactly once between their means, and
        the gate before it should stay.

    Raises:
        ValueError: fewer than 2 clips, or losses that are not finite.
    """
    crossing = mixture_crossing(fit_mixture(losses.detach().double().clamp_min(1e-12).log()))
    return None if crossing is None else math.exp(crossing)


class Mixture(NamedTuple):
    """Two weighted Gaussians.

    Attributes:
        means: in rising order.
        deviations: above 0.
        weights: above 0, 1 in all.
    """

    means: tuple[float, float]
    deviations: tuple[float, float]
    weights: tuple[float, float]


def fit_mixture(values: Tensor, iterations: int = 200, tolerance: float = 1e-6) -> Mixture:
    """Two Gaussians by expectation and maximisation, from a split into two clusters; nothing is drawn at random.

    Args:
        values: (items,) finite numbers, at least 2.
        iterations: at most.
        tolerance: gain of the mean log likelihood below which it stops.

    Raises:
        ValueError: fewer than 2 items, or numbers that are not finite.
    """
    values = values.flatten().double()
    if len(values) < 2 or not values.isfinite().all():
        raise ValueError(f"a mixture of two needs at least 2 finite values, got {len(values)}")
    belongs = _two_clusters(values)
    before = -math.inf
    for _ in range(iterations):
        mass = belongs.sum(dim=1)
        means = (belongs * values).sum(dim=1) / mass
        variances = (belongs * (values - means[:, None]).square()).sum(dim=1) / mass + 1e-6
        weights = mass / len(values)
        distance = (values - means[:, None]).square() / variances[:, None]
        log_densities = (weights / (2 * math.pi * variances).sqrt()).log()[:, None] - distance / 2
        total = log_densities.logsumexp(dim=0)
        belongs = (log_densities - total).exp()
        likelihood = float(total.mean())
        if likelihood - before < tolerance:
            break
        before = likelihood
    i, j = means.argsort().tolist()
    return Mixture(*((float(part[i]), float(part[j])) for part in (means, variances.sqrt(), weights)))


def mixture_crossing(mixture: Mixture) -> float | None:
    """Where the two weighted densities are equal between their means; None unless there is exactly one place."""
    (m1, m2), (s1, s2), (w1, w2) = mixture
    # Difference of the log densities: a x^2 + b x + c.
    a = 1 / (2 * s2**2) - 1 / (2 * s1**2)
    b = m1 / s1**2 - m2 / s2**2
    c = m2**2 / (2 * s2**2) - m1**2 / (2 * s1**2) + math.log(w1 * s2 / (w2 * s1))
    if abs(a) < 1e-12:
        roots = [] if b == 0 else [-c / b]
    else:
        square = b * b - 4 * a * c
        roots = [] if square < 0 else [(-b + sign * math.sqrt(square)) / (2 * a) for sign in (-1, 1)]
    between = [root for root in roots if m1 < root < m2]
    return between[0] if len(between) == 1 else None


def _two_clusters(values: Tensor) -> Tensor:
    """(2, items): 1 where an item is in the cluster; k-means, from the least and the greatest value."""
    centres = torch.stack([values.min(), values.max()])
    if centres[0] == centres[1]:
        return torch.full((2, len(values)), 0.5).to(values)
    for _ in range(50):
        upper = (values - centres[1]).abs() < (values - centres[0]).abs()
        belongs = torch.stack([~upper, upper]).double()
        new = (belongs * values).sum(dim=1) / belongs.sum(dim=1)
        if torch.equal(new, centres):
            break
        centres = new
    return belongs
