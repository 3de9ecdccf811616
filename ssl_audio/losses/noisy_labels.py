"""Training with labels of which some are wrong: ignore clips with a large loss, or correct their labels.

- Fixed gate: Tao et al., 2022, https://arxiv.org/abs/2110.03869
- Gate from a mixture of Gaussians, and label correction: Han et al., 2022, https://arxiv.org/abs/2208.01928

Example:
    >>> from torch.nn.functional import cross_entropy
    >>> embeddings, weight, labels = torch.randn(8, 192), torch.randn(10, 192), torch.arange(8)
    >>> logits = embeddings @ weight.T
    >>> losses = cross_entropy(logits, labels, reduction="none")
    >>> gate = fit_loss_gate(losses) or 3.0
    >>> loss, kept = gated_loss(losses, gate)  # ignore clips above the gate ...
    >>> classes, sure = predicted_classes(embeddings, weight)  # ... or correct their labels
    >>> loss = corrected_loss(losses, cross_entropy(logits, classes, reduction="none"), kept, sure)
    >>> loss.shape
    torch.Size([])
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor


def gated_loss(losses: Tensor, gate: float) -> tuple[Tensor, Tensor]:
    """Mean loss of the clips whose loss is at most `gate`.

    Args:
        losses: `(batch,)` cross-entropies.
        gate: largest loss that counts.

    Returns:
        Scalar; 0, without gradient, if no clip is kept.
        `(batch,)`, true for the clips that are kept.

    Example:
        >>> import torch
        >>> gated_loss(torch.tensor([1.0, 2.0, 9.0]), gate=3.0)
        (tensor(1.5000), tensor([ True,  True, False]))
    """
    kept = losses.detach() <= gate
    return torch.where(kept, losses, 0.0).sum() / kept.sum().clamp_min(1), kept


def corrected_loss(losses: Tensor, corrected: Tensor, kept: Tensor, sure: Tensor) -> Tensor:
    """Mean over the whole batch, where clips with a doubtful label get the loss of the predicted class.

    A clip that is kept has the loss of its label. Any other clip has the loss of the predicted class if the prediction
    is sure, and 0 otherwise.

    Args:
        losses: `(batch,)` cross-entropies with the given labels.
        corrected: `(batch,)` cross-entropies with the predicted classes, from the same logits.
        kept: `(batch,)`, true for clips below the gate.
        sure: `(batch,)`, true where the prediction counts.

    Returns:
        Scalar, at least 0.

    Example:
        >>> import torch
        >>> losses, corrected = torch.tensor([1.0, 9.0, 9.0]), torch.tensor([1.0, 2.0, 5.0])
        >>> corrected_loss(losses, corrected, losses <= 3.0, torch.tensor([True, True, False]))  # (1 + 2 + 0) / 3
        tensor(1.)
    """
    return torch.where(kept, losses, torch.where(sure, corrected, 0.0)).mean()


@torch.no_grad()
def predicted_classes(
    embeddings: Tensor, weight: Tensor, temperature: float = 0.1, threshold: float = 0.5
) -> tuple[Tensor, Tensor]:
    """The most probable class by `softmax(embeddings @ weight.T / temperature)`, without a margin.

    Args:
        embeddings: `(batch, dim)`, of views without augmentation.
        weight: `(classes, dim)` weights of the classifier.
        temperature: above 0. A value below 1 sharpens the probabilities.
        threshold: probability above which a prediction counts.

    Returns:
        `(batch,)` classes.
        `(batch,)`, true where the probability is above the threshold.

    Example:
        >>> import torch
        >>> predicted_classes(torch.tensor([[1.0, 0.0], [0.01, 0.0]]), torch.eye(2), threshold=0.6)
        (tensor([0, 0]), tensor([ True, False]))
    """
    probability, classes = (embeddings @ weight.T / temperature).softmax(dim=1).max(dim=1)
    return classes, probability > threshold


def fit_loss_gate(losses: Tensor) -> float | None:
    """A gate between the small losses of right labels and the large losses of wrong labels.

    Two Gaussians are fitted to the logarithms of the losses; the gate is where their densities cross.

    Args:
        losses: `(clips,)` cross-entropies of the previous epoch.

    Returns:
        The gate; None if the densities do not cross exactly once between the means. Then keep the previous gate.

    Raises:
        ValueError: there are fewer than 2 clips, or losses are not finite.

    Example:
        >>> import torch
        >>> losses = torch.cat([torch.linspace(0.05, 0.2, 80), torch.linspace(5.0, 9.0, 20)])
        >>> gate = fit_loss_gate(losses)
        >>> 0.2 < gate < 5.0
        True
    """
    crossing = mixture_crossing(fit_mixture(losses.detach().double().clamp_min(1e-12).log()))
    return None if crossing is None else math.exp(crossing)


class Mixture(NamedTuple):
    """Two weighted Gaussians.

    Attributes:
        means: in ascending order.
        deviations: above 0.
        weights: above 0; their sum is 1.
    """

    means: tuple[float, float]
    deviations: tuple[float, float]
    weights: tuple[float, float]


def fit_mixture(values: Tensor, iterations: int = 200, tolerance: float = 1e-6) -> Mixture:
    """Fit two Gaussians by expectation-maximisation. It starts from two clusters, without random numbers.

    Args:
        values: `(items,)` finite numbers, at least 2.
        iterations: largest number of iterations.
        tolerance: stop when the mean log likelihood gains less than this.

    Raises:
        ValueError: there are fewer than 2 items, or numbers are not finite.

    Example:
        >>> import torch
        >>> [round(mean, 3) for mean in fit_mixture(torch.tensor([0.9, 1.0, 1.1, 4.9, 5.0, 5.1])).means]
        [1.0, 5.0]
    """
    values = values.flatten().double()
    if len(values) < 2 or not values.isfinite().all():
        raise ValueError(f"a mixture of two Gaussians needs at least 2 finite values, got {len(values)}")
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
    """The point between the means at which the weighted densities are equal; None unless there is exactly one.

    Example:
        >>> mixture_crossing(Mixture((0.0, 2.0), (1.0, 1.0), (0.5, 0.5)))
        1.0
    """
    (m1, m2), (s1, s2), (w1, w2) = mixture
    # The difference of the log densities is a x^2 + b x + c.
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
    """`(2, items)`, 1 where an item belongs to the cluster, by k-means from the smallest and the largest value."""
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
