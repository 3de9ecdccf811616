"""Confidence intervals and paired tests by a bootstrap over singers.

We resample singers with replacement, not trials, because the trials of one singer are dependent: a singer who is hard
to recognise is hard in every trial. In a resample each singer has a count. A different-singer trial is weighted by the
product of its two singers' counts. A same-singer trial is weighted by that singer's count and not by its square: two
copies of a singer are not two singers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.metrics import check_trials, crossing, equal_error_rate

RESAMPLES = 1000


@dataclass(frozen=True)
class PairedTest:
    """Test of model a against model b on the same trials.

    Attributes:
        difference: the metric of a minus the metric of b, on all trials.
        interval: 95 % interval of the difference.
        p_value: two-sided: how often a difference at least this large would come from the choice of singers alone.
    """

    difference: float
    interval: tuple[float, float]
    p_value: float


def singer_multiplicities(n_singers: int, resamples: int, seed: int) -> np.ndarray:
    """Draw the singers of every resample.

    Returns:
        (resamples, singers) float: how often each singer was drawn; each row sums to the number of singers.

    Raises:
        InputError: fewer than two singers.
    """
    if n_singers < 2:
        raise InputError(f"an interval over singers needs at least two singers, got {n_singers}; add recordings")
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_singers, np.full(n_singers, 1 / n_singers), size=resamples).astype(np.float64)


def bootstrap_verification(
    labels: ArrayLike,
    scores: ArrayLike,
    singers: np.ndarray,
    multiplicities: np.ndarray,
    p_target: float = 0.01,
    false_accepts: ArrayLike = (),
) -> dict[str, np.ndarray]:
    """EER and minDCF of every resample, from one sort of the scores.

    Args:
        labels: (trials,), see `equal_error_rate`.
        scores: (trials,), see `equal_error_rate`.
        singers: (trials, 2) number of the singer on each side, from 0.
        multiplicities: (resamples, singers) from `singer_multiplicities`; give the same array for every model that a
            paired test compares.
        p_target: prior of a same-singer trial in the detection cost.
        false_accepts: (rates,) false-accept rates at which to report the miss rate, for the band of a DET curve.

    Returns:
        {"eer": (resamples,), "min_dcf": (resamples,), "miss": (resamples, rates)}; NaN for a resample without trials of
        both classes.
    """
    labels, scores = check_trials(labels, scores)
    order = np.argsort(-scores, kind="stable")
    labels, scores = labels[order], scores[order]
    first, second = singers[order].T
    last_of_tie = np.flatnonzero(np.r_[np.diff(scores) != 0, True])
    positive, negative = np.flatnonzero(labels), np.flatnonzero(~labels)
    rates = np.asarray(false_accepts, dtype=np.float64)
    resamples = len(multiplicities)
    eer, cost, misses = np.empty(resamples), np.empty(resamples), np.empty((resamples, len(rates)))
    hits, accepts = np.zeros(len(labels) + 1), np.zeros(len(labels) + 1)
    points = np.r_[0, last_of_tie + 1]
    for i, times in enumerate(multiplicities):
        hits[1:], accepts[1:] = 0, 0
        hits[positive + 1] = times[first[positive]]
        accepts[negative + 1] = times[first[negative]] * times[second[negative]]
        miss, false_accept = np.cumsum(hits)[points], np.cumsum(accepts)[points]
        if not miss[-1] or not false_accept[-1]:
            eer[i] = cost[i] = np.nan
            misses[i] = np.nan
            continue
        miss, false_accept = 1 - miss / miss[-1], false_accept / false_accept[-1]
        after = int(np.searchsorted(false_accept - miss, 0.0))
        eer[i] = crossing(false_accept[after - 1 : after + 1], miss[after - 1 : after + 1])[0]
        costs = p_target * miss + (1 - p_target) * false_accept
        cost[i] = costs.min() / min(p_target, 1 - p_target)
        if len(rates):
            misses[i] = np.interp(rates, false_accept, miss)
    return {"eer": eer, "min_dcf": cost, "miss": misses}


def bootstrap_mean(values: ArrayLike, singers: np.ndarray, multiplicities: np.ndarray) -> np.ndarray:
    """Mean of every resample, of values that belong to one singer each, such as ranks.

    Args:
        values: (values,).
        singers: (values,) number of the singer that each value belongs to.
        multiplicities: (resamples, singers).

    Returns:
        (resamples,).
    """
    n_singers = multiplicities.shape[1]
    sums = np.bincount(singers, weights=np.asarray(values, dtype=np.float64), minlength=n_singers)
    counts = np.bincount(singers, minlength=n_singers)
    with np.errstate(invalid="ignore"):
        return (multiplicities @ sums) / (multiplicities @ counts)


def bootstrap_different(values: ArrayLike, singers: np.ndarray, multiplicities: np.ndarray) -> np.ndarray:
    """Mean of the values of different-singer trials in every resample.

    Args:
        values: (trials,).
        singers: (trials, 2) number of the singer on each side.
        multiplicities: (resamples, singers).

    Returns:
        (resamples,).
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
    """Average of the same-singer mean and the different-singer mean in every resample, as Cllr needs it.

    Args:
        labels: (trials,) bool.
        values: (trials,), such as the cost of each trial.
        singers: (trials, 2) number of the singer on each side.
        multiplicities: (resamples, singers).

    Returns:
        (resamples,).
    """
    values = np.asarray(values, dtype=np.float64)
    same = bootstrap_mean(values[labels], singers[labels, 0], multiplicities)
    return (same + bootstrap_different(values[~labels], singers[~labels], multiplicities)) / 2


def percentile_interval(values: ArrayLike, confidence: float = 0.95) -> tuple[float, float]:
    """(low, high) percentiles of the values of all resamples; NaN is left out. (NaN, NaN) if nothing else is there."""
    array = np.asarray(values, dtype=np.float64)
    array = array[np.isfinite(array)]
    if not len(array):
        return float("nan"), float("nan")
    low, high = np.quantile(array, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def interval(values: ArrayLike) -> tuple[float, float]:
    """95 % `percentile_interval` of a verification metric. Raises InputError if no resample defines the metric."""
    found = percentile_interval(values)
    if np.isnan(found[0]):
        raise InputError("no resample of the singers has trials of both classes; an interval needs more singers")
    return found


def paired_test(value_a: float, value_b: float, resampled_a: np.ndarray, resampled_b: np.ndarray) -> PairedTest:
    """Compare two models on the same resamples, so that the choice of the singers has the same effect on both.

    Args:
        value_a, value_b: the metric of each model on all trials.
        resampled_a, resampled_b: (resamples,) the metric of each model, from the same multiplicities.

    Raises:
        InputError: the numbers of resamples differ, or no resample defines both metrics.
    """
    if len(resampled_a) != len(resampled_b):
        raise InputError(
            f"a paired test needs the same resamples for both models, got {len(resampled_a)} and {len(resampled_b)}"
        )
    differences = np.asarray(resampled_a) - np.asarray(resampled_b)
    differences = differences[np.isfinite(differences)]
    tail = min(np.sum(differences <= 0), np.sum(differences >= 0))
    p_value = min(1.0, 2 * (int(tail) + 1) / (len(differences) + 1))
    return PairedTest(value_a - value_b, interval(differences), p_value)


def compare_eer(
    labels: ArrayLike,
    scores_a: ArrayLike,
    scores_b: ArrayLike,
    singers: np.ndarray,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedTest:
    """Paired test of the EER of two models on the same trials; for the arguments see `bootstrap_verification`."""
    times = singer_multiplicities(int(np.max(singers)) + 1, resamples, seed)
    eer_a, eer_b = (equal_error_rate(labels, scores)[0] for scores in (scores_a, scores_b))
    a, b = (bootstrap_verification(labels, scores, singers, times)["eer"] for scores in (scores_a, scores_b))
    return paired_test(eer_a, eer_b, a, b)
