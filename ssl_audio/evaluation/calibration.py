"""Calibration of scores to log-likelihood ratios by logistic regression, and Cllr, the cost of the ratios.

Brummer and du Preez, "Application-independent evaluation of speaker detection", Computer Speech and Language 2006.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.metrics import check_trials


@dataclass(frozen=True)
class Calibration:
    """A line from scores to log-likelihood ratios.

    The ratio is `scale * score + offset`, the natural logarithm of P(score | same singer) / P(score | different
    singers).
    """

    scale: float
    offset: float

    def __call__(self, scores: ArrayLike) -> np.ndarray:
        """(trials,) scores -> (trials,) log-likelihood ratios."""
        return self.scale * np.asarray(scores, dtype=np.float64) + self.offset


def fit_calibration(labels: ArrayLike, scores: ArrayLike, p_target: float = 0.5) -> Calibration:
    """Fit a calibration by logistic regression of the labels on the scores; each class is weighted by its prior.

    Fit it on other trials than the ones that it will be evaluated on.

    Args:
        labels: (trials,), see `equal_error_rate`.
        scores: (trials,), see `equal_error_rate`.
        p_target: prior of a same-singer trial, between 0 and 1.

    Raises:
        InputError: see `equal_error_rate`; also if the scores of the two classes do not overlap.
    """
    labels, scores = check_trials(labels, scores)
    if not 0 < p_target < 1:
        raise InputError(f"p_target must lie between 0 and 1, got {p_target}")
    # If the score ranges do not overlap, logistic regression has no finite optimum: the slope diverges.
    if scores[labels].min() >= scores[~labels].max() or scores[labels].max() <= scores[~labels].min():
        raise InputError(
            "the scores of the two classes do not overlap, so calibration has no finite optimum; it needs more trials"
        )
    x = scores.astype(np.float64)
    centre, spread = x.mean(), x.std()
    design = np.stack([(x - centre) / spread, np.ones_like(x)])
    weights = np.where(labels, p_target / labels.sum(), (1 - p_target) / (~labels).sum())
    prior = np.log(p_target / (1 - p_target))
    beta = np.zeros(2)
    for _ in range(100):  # Newton's method; the cost is convex and has two parameters
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
    """Calibrate trials without a second data set, by cross-validation over singers.

    The singers are split into folds. A trial between a singer of fold f and a singer of fold g is calibrated by a line
    that was fitted on the trials among singers of all other folds.

    Args:
        labels: (trials,), see `equal_error_rate`.
        scores: (trials,), see `equal_error_rate`.
        singers: (trials, 2) number of the singer on each side, from 0.
        seed: of the folds.
        folds: number of folds; reduced to the number of singers if there are fewer singers.

    Returns:
        (trials,) log-likelihood ratios.

    Raises:
        InputError: see `fit_calibration`; also if the other folds have no trials of both classes.
    """
    labels, scores = check_trials(labels, scores)
    count = int(np.max(singers)) + 1
    folds = min(folds, count)
    fold = np.random.default_rng(seed).permutation(np.arange(count) % folds)[singers]
    ratios = np.full(len(labels), np.nan)
    for f in range(folds):
        for g in range(f, folds):
            tested = (fold.min(axis=1) == f) & (fold.max(axis=1) == g)
            others = ~((fold == f) | (fold == g)).any(axis=1)
            if not tested.any():
                continue
            if not labels[others].any() or labels[others].all():
                raise InputError(
                    f"{count} singers are too few to calibrate on some and evaluate on the others; "
                    "give a folder of other singers: --calibrate FOLDER"
                )
            ratios[tested] = fit_calibration(labels[others], scores[others])(scores[tested])
    return ratios


def cllr(labels: ArrayLike, log_likelihood_ratios: ArrayLike) -> float:
    """Cllr: the mean cost of log-likelihood ratios in bits, each class weighted by one half.

    0 for ratios that are certain and right, 1 for ratios of 1 (which carry no information), more for misleading ratios.
    """
    labels, ratios = check_trials(labels, log_likelihood_ratios)
    costs = costs_in_bits(labels, ratios)
    return float((costs[labels].mean() + costs[~labels].mean()) / 2)


def costs_in_bits(labels: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """(trials,) cost of each log-likelihood ratio in bits; `labels` is bool."""
    return np.logaddexp(0, np.where(labels, -ratios, ratios).astype(np.float64)) / np.log(2)


def min_cllr(labels: ArrayLike, scores: ArrayLike) -> float:
    """Cllr after the best monotonic calibration, which isotonic regression finds on the same trials.

    It measures discrimination alone. `cllr - min_cllr` is the cost of a bad calibration.
    """
    from sklearn.isotonic import IsotonicRegression

    labels, scores = check_trials(labels, scores)
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    same = IsotonicRegression(y_min=0, y_max=1).fit(scores, labels, sample_weight=weights).predict(scores)
    with np.errstate(divide="ignore"):  # `where` discards the infinite cost of the other class
        cost = np.where(labels, -np.log2(same), -np.log2(1 - same))
    return float(weights @ cost)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
