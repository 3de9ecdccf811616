"""Intervals and paired tests by bootstrap over singers.

Trials of one singer are not independent: whoever is hard to recognise is hard in every trial. So singers are drawn with
replacement, not trials. In one draw a singer has a multiplicity; a trial of two different singers counts as often as
the product of theirs, a trial of one singer as often as that singer was drawn (its copies are compared with themselves,
not with each other, because copies of one singer are no second singer).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.metrics import check_trials, equal_error_rate

DRAWS = 1000


@dataclass(frozen=True)
class PairedTest:
    """Model a against model b on the same trials: `difference` is the metric of a minus that of b.

    Attributes:
        difference: on all trials.
        interval: 95 % interval of the difference.
        p_value: two-sided; how often a difference this far on one side would come from the choice of singers alone.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float


def singer_multiplicities(n_singers: int, draws: int, seed: int) -> np.ndarray:
    """(draws, singers) float: how often each singer was drawn; rows sum to the number of singers."""
    if n_singers < 2:
        raise InputError(f"an interval over singers needs at least two of them, here is {n_singers}")
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_singers, np.full(n_singers, 1 / n_singers), size=draws).astype(np.float64)


def bootstrap_verification(
    labels: ArrayLike,
    scores: ArrayLike,
    singers: np.ndarray,
    multiplicities: np.ndarray,
    p_target: float = 0.01,
    false_accepts: ArrayLike = (),
) -> dict[str, np.ndarray]:
    """EER and minDCF of every draw, from one sort of the scores.

    Args:
        labels, scores: (trials,) as in `equal_error_rate`.
        singers: (trials, 2) number of the singer on each side, from 0.
        multiplicities: (draws, singers) of `singer_multiplicities`; the same array pairs several models.
        p_target: of the detection cost.
        false_accepts: rates at which the misses of each draw are wanted, for the band of a DET curve.

    Returns:
        {"eer": (draws,), "min_dcf": (draws,), "miss": (draws, rates)}; NaN for a draw without trials of both classes.
    """
    labels, scores = check_trials(labels, scores)
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    first, second = singers[order].T
    last_of_tie = np.flatnonzero(np.r_[np.diff(scores) != 0, True])
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    rates = np.asarray(false_accepts, dtype=np.float64)
    draws = len(multiplicities)
    eer, cost, misses = np.empty(draws), np.empty(draws), np.empty((draws, len(rates)))
    hits, accepts = np.zeros(len(labels) + 1), np.zeros(len(labels) + 1)
    points = np.r_[0, last_of_tie + 1]
    for draw, times in enumerate(multiplicities):
        hits[1:], accepts[1:] = 0, 0
        hits[positive + 1] = times[first[positive]]
        accepts[negative + 1] = times[first[negative]] * times[second[negative]]
        miss, false_accept = np.cumsum(hits)[points], np.cumsum(accepts)[points]
        if not miss[-1] or not false_accept[-1]:
            eer[draw] = cost[draw] = np.nan
            misses[draw] = np.nan
            continue
        miss, false_accept = 1 - miss / miss[-1], false_accept / false_accept[-1]
        eer[draw] = _crossing(false_accept, miss)
        costs = p_target * miss + (1 - p_target) * false_accept
        cost[draw] = costs.min() / min(p_target, 1 - p_target)
        if len(rates):
            misses[draw] = np.interp(rates, false_accept, miss)
    return {"eer": eer, "min_dcf": cost, "miss": misses}


def _crossing(false_accept: np.ndarray, miss: np.ndarray) -> float:
    gap = false_accept - miss
    low = int(np.searchsorted(gap, 0.0))
    share = -gap[low - 1] / (gap[low] - gap[low - 1])
    return false_accept[low - 1] + share * (false_accept[low] - false_accept[low - 1])


def bootstrap_mean(values: ArrayLike, singers: np.ndarray, multiplicities: np.ndarray) -> np.ndarray:
    """(draws,) the mean of values that belong to one singer each, such as ranks.

    Args:
        values: (values,).
        singers: (values,) number of the singer of each.
        multiplicities: (draws, singers).
    """
    n_singers = multiplicities.shape[1]
    sums = np.bincount(singers, weights=np.asarray(values, dtype=np.float64), minlength=n_singers)
    counts = np.bincount(singers, minlength=n_singers)
    with np.errstate(invalid="ignore"):
        return (multiplicities @ sums) / (multiplicities @ counts)


def bootstrap_different(values: ArrayLike, singers: np.ndarray, multiplicities: np.ndarray) -> np.ndarray:
    """(draws,) the mean of values of different-singer trials.

    Args:
        values: (trials,).
        singers: (trials, 2) number of the singer on each side.
        multiplicities: (draws, singers).
    """
    from scipy.sparse import csr_array

    values, places = np.asarray(values, dtype=np.float64), tuple(singers.T)
    shape = (multiplicities.shape[1],) * 2
    sums, counts = (csr_array((v, places), shape) for v in (values, np.ones(len(values))))
    total, number = ((multiplicities @ table * multiplicities).sum(axis=1) for table in (sums, counts))
    with np.errstate(invalid="ignore"):
        return total / number


def bootstrap_class_means(
    labels: np.ndarray, values: ArrayLike, singers: np.ndarray, multiplicities: np.ndarray
) -> np.ndarray:
    """(draws,) the average of the means over same- and over different-singer trials, such as Cllr of costs of trials.

    Args:
        labels: (trials,) bool; values: (trials,).
        singers: (trials, 2) number of the singer on each side.
        multiplicities: (draws, singers).
    """
    values = np.asarray(values, dtype=np.float64)
    same = bootstrap_mean(values[labels], singers[labels, 0], multiplicities)
    return (same + bootstrap_different(values[~labels], singers[~labels], multiplicities)) / 2


def interval(draws: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) percentiles of bootstrap draws, NaN draws left out."""
    values = np.asarray(draws, dtype=np.float64)
    values = values[np.isfinite(values)]
    if not len(values):
        raise InputError("no bootstrap draw had trials of both classes; the set has too few singers for an interval")
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def paired_test(value_a: float, value_b: float, draws_a: np.ndarray, draws_b: np.ndarray) -> PairedTest:
    """Compare two models by draws that used the same multiplicities (so a lucky choice of singers helps both)."""
    if len(draws_a) != len(draws_b):
        raise InputError(f"a paired test needs draws of the same singers, got {len(draws_a)} and {len(draws_b)}")
    differences = np.asarray(draws_a) - np.asarray(draws_b)
    differences = differences[np.isfinite(differences)]
    tail = min(np.sum(differences <= 0), np.sum(differences >= 0))
    p_value = min(1.0, 2 * (int(tail) + 1) / (len(differences) + 1))
    return PairedTest(value_a - value_b, interval(differences), p_value)


def compare(
    labels: ArrayLike, scores_a: ArrayLike, scores_b: ArrayLike, singers: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> PairedTest:
    """Paired test of the EER of two models on the same trials; arguments as in `bootstrap_verification`."""
    times = singer_multiplicities(int(np.max(singers)) + 1, draws, seed)
    eer_a, eer_b = (equal_error_rate(labels, scores)[0] for scores in (scores_a, scores_b))
    a, b = (bootstrap_verification(labels, scores, singers, times)["eer"] for scores in (scores_a, scores_b))
    return paired_test(eer_a, eer_b, a, b)
