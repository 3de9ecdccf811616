"""Calibration: scores into log-likelihood ratios by a logistic line, and Cllr, the cost of believing them.

Brummer and du Preez, "Application-independent evaluation of speaker detection", Computer Speech and Language 2006.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.metrics import check_trials


@dataclass(frozen=True)
class Calibration:
    """`scale * score + offset`: the natural logarithm of P(score | same singer) / P(score | different singers)."""

    scale: float
    offset: float

    def __call__(self, scores: ArrayLike) -> np.ndarray:
        """(trials,) scores -> (trials,) log-likelihood ratios."""
        return self.scale * np.asarray(scores, dtype=np.float64) + self.offset


def fit_calibration(labels: ArrayLike, scores: ArrayLike, p_target: float = 0.5) -> Calibration:
    """Logistic regression of the labels on the score, each class weighted to the prior. Fit it on other trials than
    those it is judged on.

    Args:
        labels, scores: as in `equal_error_rate`.
        p_target: prior at which the fit matters most.

    Raises:
        InputError: as `equal_error_rate`, or when a threshold separates the classes but for ties (no line is steep
            enough).
    """
    labels, scores = check_trials(labels, scores)
    if not 0 < p_target < 1:
        raise InputError(f"p_target must lie between 0 and 1, got {p_target}")
    # Classes that only touch have no best line either: it gets steeper for ever.
    if scores[labels].min() >= scores[~labels].max() or scores[labels].max() <= scores[~labels].min():
        raise InputError(
            "but for ties, a threshold separates these scores without error; calibration needs trials that overlap"
        )
    x = scores.astype(np.float64)
    centre, spread = x.mean(), x.std()
    design = np.stack([(x - centre) / spread, np.ones_like(x)])
    weights = np.where(labels, p_target / labels.sum(), (1 - p_target) / (~labels).sum())
    prior = np.log(p_target / (1 - p_target))
    beta = np.zeros(2)
    for _ in range(100):  # Newton on a convex cost of two parameters
        probability = _sigmoid(beta @ design + prior)
        gradient = design @ (weights * (probability - labels))
        hessian = (design * (weights * probability * (1 - probability))) @ design.T
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2), gradient)
        step *= min(1.0, 5.0 / np.abs(step).max(initial=1e-30))
        beta -= step
        if np.abs(step).max() < 1e-10:
            break
    return Calibration(float(beta[0] / spread), float(beta[1] - beta[0] * centre / spread))


def cross_calibrate(
    labels: ArrayLike, scores: ArrayLike, singers: np.ndarray, seed: int = 0, folds: int = 5
) -> np.ndarray:
    """Log-likelihood ratios of trials without a second set: no line is fitted on a singer whose trials it is used on.

    Singers are dealt to folds; a trial of a singer of fold f and one of fold g gets the line of the trials between
    singers of the other folds.

    Args:
        labels, scores: as in `equal_error_rate`.
        singers: (trials, 2) number of the singer on each side, from 0.
        seed: of the folds.
        folds: at most the number of singers.

    Returns:
        (trials,) ratios.

    Raises:
        InputError: as `fit_calibration`, or when the other folds have too few trials.
    """
    labels, scores = check_trials(labels, scores)
    count = int(np.max(singers)) + 1
    folds = min(folds, count)
    fold = np.random.default_rng(seed).permutation(np.arange(count) % folds)[singers]
    ratios = np.full(len(labels), np.nan)
    for f in range(folds):
        for g in range(f, folds):
            judged = (fold.min(axis=1) == f) & (fold.max(axis=1) == g)
            others = ~((fold == f) | (fold == g)).any(axis=1)
            if not judged.any():
                continue
            if not labels[others].any() or labels[others].all():
                raise InputError(
                    f"{count} singers are too few to calibrate on some and judge others; "
                    "give a folder of other singers: --calibrate FOLDER"
                )
            ratios[judged] = fit_calibration(labels[others], scores[others])(scores[judged])
    return ratios


def cllr(labels: ArrayLike, log_likelihood_ratios: ArrayLike) -> float:
    """Mean cost in bits of the ratios: 0 when always sure and right, 1 when they say nothing, more when misleading."""
    labels, ratios = check_trials(labels, log_likelihood_ratios)
    costs = costs_in_bits(labels, ratios)
    return float((costs[labels].mean() + costs[~labels].mean()) / 2)


def costs_in_bits(labels: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """(trials,) what believing each ratio costs; `labels` bool."""
    return np.logaddexp(0, np.where(labels, -ratios, ratios).astype(np.float64)) / np.log(2)


def min_cllr(labels: ArrayLike, scores: ArrayLike) -> float:
    """Cllr after the best rising calibration (isotonic regression on these very trials): the cost of ranking alone."""
    from sklearn.isotonic import IsotonicRegression

    labels, scores = check_trials(labels, scores)
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    same = IsotonicRegression(y_min=0, y_max=1).fit(scores, labels, sample_weight=weights).predict(scores)
    with np.errstate(divide="ignore"):  # a certain and right answer costs nothing
        cost = np.where(labels, -np.log2(same), -np.log2(1 - same))
    return float(weights @ cost)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
