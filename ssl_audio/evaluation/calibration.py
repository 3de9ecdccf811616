"""Calibration of scores to log-likelihood ratios by logistic regression, and Cllr, the cost of the ratios.

Brummer and du Preez, "Application-independent evaluation of speaker detection", Computer Speech and Language 2006.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.metrics import check_trials

_DIVERGED = 1e4  # a coefficient of standardised inputs
_SEPARATED = "the scores of the two classes do not overlap, so calibration has no finite optimum; it needs more trials"


@dataclass(frozen=True)
class Calibration:
    """A line from scores, and further inputs, to log-likelihood ratios.

    The ratio is `scale * score + weights . inputs + offset`, the natural logarithm of P(score | same singer) /
    P(score | different singers).

    Attributes:
        scale, offset: of the score.
        weights: of further inputs of a trial, such as the lengths of its clips; empty where there are none.
    """

    scale: float
    offset: float
    weights: tuple[float, ...] = ()

    def __call__(self, scores: ArrayLike, inputs: ArrayLike | None = None) -> np.ndarray:
        """(trials,) scores and (trials, inputs) -> (trials,) log-likelihood ratios."""
        ratios = self.scale * np.asarray(scores, dtype=np.float64) + self.offset
        return ratios if inputs is None else ratios + np.asarray(inputs, dtype=np.float64) @ np.array(self.weights)


def fit_calibration(
    labels: ArrayLike,
    scores: ArrayLike,
    p_target: float = 0.5,
    inputs: ArrayLike | None = None,
    counts: ArrayLike | None = None,
) -> Calibration:
    """Fit a calibration by logistic regression of the labels on the scores; each class is weighted by its prior.

    Fit it on other trials than the ones that it will be evaluated on.

    Args:
        labels: (trials,), see `equal_error_rate`.
        scores: (trials,), see `equal_error_rate`.
        p_target: prior of a same-singer trial, between 0 and 1.
        inputs: (trials, inputs) further inputs; None for the score alone.
        counts: (trials,) how often each trial counts, 0 for not at all; None for once.

    Raises:
        InputError: see `equal_error_rate`; also if the scores, or all inputs together, of the two classes do not
            overlap.
    """
    labels, scores = check_trials(labels, scores)
    if not 0 < p_target < 1:
        raise InputError(f"p_target must lie between 0 and 1, got {p_target}")
    columns = scores.astype(np.float64)[:, None]
    if inputs is not None:
        columns = np.column_stack([columns, np.asarray(inputs, dtype=np.float64)])
    if counts is None:
        counts = np.ones(len(labels))
    else:
        used = np.asarray(counts) > 0
        labels, scores = check_trials(labels[used], scores[used])
        columns, counts = columns[used], np.asarray(counts, dtype=np.float64)[used]
    # If the score ranges do not overlap, logistic regression has no finite optimum: the slope diverges.
    if scores[labels].min() >= scores[~labels].max() or scores[labels].max() <= scores[~labels].min():
        raise InputError(_SEPARATED)
    centre, spread = columns.mean(axis=0), columns.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)  # the weight of a constant input is 0
    design = np.vstack([((columns - centre) / spread).T, np.ones(len(labels))])
    totals = counts[labels].sum(), counts[~labels].sum()
    weights = counts * np.where(labels, p_target / totals[0], (1 - p_target) / totals[1])
    beta = _newton(design, labels, weights, np.log(p_target / (1 - p_target)))
    slopes = beta[:-1] / spread
    return Calibration(float(slopes[0]), float(beta[-1] - slopes @ centre), tuple(slopes[1:].tolist()))


def _newton(design: np.ndarray, labels: np.ndarray, weights: np.ndarray, prior: float) -> np.ndarray:
    """(inputs,) minimum of the weighted logistic cost, which is convex; `design` is (inputs, trials)."""
    beta = np.zeros(len(design))
    for _ in range(100):
        probability = _sigmoid(beta @ design + prior)
        gradient = design @ (weights * (probability - labels))
        hessian = (design * (weights * probability * (1 - probability))) @ design.T
        step = np.linalg.solve(hessian + 1e-12 * np.eye(len(beta)), gradient)
        step *= min(1.0, 5.0 / np.abs(step).max(initial=1e-30))
        beta -= step
        if np.abs(step).max() < 1e-10:
            break
    if np.abs(beta).max() > _DIVERGED:  # several inputs together can separate what the score alone does not
        raise InputError(_SEPARATED)
    return beta


def people_folds(people: np.ndarray, seed: int = 0, folds: int = 5) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Split trials for cross-validation over people, so that no fit sees a person whom it is tested on.

    The people are split into folds. Trials between a person of fold f and a person of fold g are tested by a fit on the
    trials among the people of all other folds. Every trial is tested once.

    Args:
        people: (trials, 2) number of the person on each side, from 0.
        seed: of the folds.
        folds: number of folds; reduced to the number of people if there are fewer people.

    Returns:
        Pairs of (trials,) bool: the trials to test, and the trials to fit on.
    """
    count = int(np.max(people)) + 1
    folds = min(folds, count)
    fold = np.random.default_rng(seed).permutation(np.arange(count) % folds)[people]
    for f in range(folds):
        for g in range(f, folds):
            judged = (fold.min(axis=1) == f) & (fold.max(axis=1) == g)
            if judged.any():
                yield judged, ~((fold == f) | (fold == g)).any(axis=1)


def cross_calibrate(
    labels: ArrayLike,
    scores: ArrayLike,
    singers: np.ndarray,
    seed: int = 0,
    folds: int = 5,
    inputs: np.ndarray | None = None,
) -> np.ndarray:
    """Calibrate trials without a second data set, by cross-validation over singers (see `people_folds`).

    Args:
        labels: (trials,), see `equal_error_rate`.
        scores: (trials,), see `equal_error_rate`.
        singers: (trials, 2) number of the singer on each side, from 0.
        seed: of the folds.
        folds: number of folds; reduced to the number of singers if there are fewer singers.
        inputs: see `fit_calibration`.

    Returns:
        (trials,) log-likelihood ratios.

    Raises:
        InputError: see `fit_calibration`; also if the other folds have no trials of both classes.
    """
    labels, scores = check_trials(labels, scores)
    ratios = np.full(len(labels), np.nan)
    for judged, others in people_folds(singers, seed, folds):
        if not labels[others].any() or labels[others].all():
            raise InputError(
                f"{int(np.max(singers)) + 1} singers are too few to calibrate on some and evaluate on the others; "
                "give a folder of other singers: --calibrate FOLDER"
            )
        known = (None, None) if inputs is None else (inputs[others], inputs[judged])
        ratios[judged] = fit_calibration(labels[others], scores[others], inputs=known[0])(scores[judged], known[1])
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
    scores = scores.astype(np.float64)
    weights = np.where(labels, 0.5 / labels.sum(), 0.5 / (~labels).sum())
    same = IsotonicRegression(y_min=0, y_max=1).fit(scores, labels, sample_weight=weights).predict(scores)
    same = np.clip(same, 0, 1)  # rounding puts some beyond
    with np.errstate(divide="ignore"):  # `where` discards the infinite cost of the other class
        cost = np.where(labels, -np.log2(same), -np.log2(1 - same))
    return float(weights @ cost)


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -x))
