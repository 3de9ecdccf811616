"""Verification metrics of labelled scores: equal error rate, minimum detection cost, area under the ROC curve, DET.

A trial is accepted when its score is at or above the threshold. Rates come from sorted scores, so equal scores (ties)
are one point of the curve and no order of the trials can change a result.
"""

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError

USUAL_PRIORS = (0.01, 0.05)  # of a same-singer trial: the operating points of NIST SRE and VoxSRC


@dataclass(frozen=True)
class ErrorCurve:
    """The two error rates at every distinct score, from "accept nobody" to "accept everybody".

    Attributes:
        thresholds: (points,) descending; the first is +inf.
        false_accept: (points,) share of different-singer trials with a score >= threshold, 0 to 1, ascending.
        miss: (points,) share of same-singer trials with a score < threshold, 1 to 0, descending.
    """

    thresholds: np.ndarray
    false_accept: np.ndarray
    miss: np.ndarray

    def equal_error_rate(self) -> tuple[float, float]:
        """(eer, threshold): where the straight lines between the points meet false accepts = misses."""
        high = int(np.searchsorted(self.false_accept - self.miss, 0.0)) - 1  # the last point with fewer false accepts
        low = high + 1
        for rate in (self.miss, self.false_accept):
            if rate[high] == rate[low]:  # a horizontal or vertical piece: from corner to corner
                high, low = np.flatnonzero(rate == rate[high])[[0, -1]]
                break
        columns = (self.false_accept, self.miss, self.thresholds)
        return _crossing(*((float(column[high]), float(column[low])) for column in columns))

    def min_dcf(self, p_target: float = 0.01, c_miss: float = 1.0, c_false_accept: float = 1.0) -> tuple[float, float]:
        """(cost, threshold) of the cheapest point: `min_dcf` for what the numbers mean."""
        if not 0 < p_target < 1:
            raise InputError(f"p_target must lie between 0 and 1, got {p_target}")
        if not (c_miss > 0 and c_false_accept > 0):
            raise InputError(
                f"an error must cost more than nothing, got c_miss {c_miss}, c_false_accept {c_false_accept}"
            )
        costs = c_miss * p_target * self.miss + c_false_accept * (1 - p_target) * self.false_accept
        best = int(np.argmin(costs))
        return float(costs[best] / min(c_miss * p_target, c_false_accept * (1 - p_target))), float(
            self.thresholds[best]
        )

    def area_under_roc(self) -> float:
        """Probability that a same-singer trial scores above a different-singer one, ties counted half."""
        hits = 1 - self.miss
        return float(np.sum(np.diff(self.false_accept) * (hits[1:] + hits[:-1]) / 2))

    def miss_at(self, false_accept: ArrayLike) -> np.ndarray:
        """Misses where the curve has these false-accept rates (the lower end of a vertical piece)."""
        wanted = np.asarray(false_accept, dtype=np.float64)
        last = np.searchsorted(self.false_accept, wanted, side="right") - 1
        following = np.minimum(last + 1, len(self.miss) - 1)
        step = self.false_accept[following] - self.false_accept[last]
        share = np.divide(wanted - self.false_accept[last], step, out=np.zeros_like(wanted), where=step > 0)
        return self.miss[last] + share * (self.miss[following] - self.miss[last])


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """Rate at which false accepts equal misses.

    The ROC curve is taken as straight between its points, as in scikit-learn's curve with the root of `1 - fpr - tpr`.
    Two sorts and a bisection: 4 million scores take about a tenth of a second.

    Args:
        labels: (trials,) 1 for the same singer, 0 for different singers.
        scores: (trials,) larger means more alike, any scale.

    Returns:
        (eer, threshold): eer in [0, 1]; the threshold on the scale of the scores.

    Raises:
        InputError: shapes differ, labels are not 0 and 1, one class only, scores are NaN or infinite or all equal.
    """
    same, different = sorted_classes(labels, scores)

    def rates(threshold: float) -> tuple[float, float]:
        accepted = len(different) - int(np.searchsorted(different, threshold))
        return accepted / len(different), int(np.searchsorted(same, threshold)) / len(same)

    def more_misses(threshold: float) -> bool:
        false_accept, miss = rates(threshold)
        return false_accept < miss

    # Misses outnumber false accepts from some score upwards: bisect both classes for it.
    places = [bisect_left(s, True, key=more_misses) for s in (same, different)]
    low = max(s[i - 1] for s, i in zip((same, different), places, strict=True) if i > 0)
    above = [s[i] for s, i in zip((same, different), places, strict=True) if i < len(s)]
    high = min(above) if above else np.inf
    (fa_high, miss_high), (fa_low, miss_low) = rates(high), rates(low)
    if miss_high == miss_low:
        high, low = _corners(different, same, high)
    elif fa_high == fa_low:
        high, low = _corners(same, different, high)
    (fa_high, miss_high), (fa_low, miss_low) = rates(high), rates(low)
    return _crossing((fa_high, fa_low), (miss_high, miss_low), (float(high), float(low)))


def error_curve(labels: ArrayLike, scores: ArrayLike) -> ErrorCurve:
    """Both error rates at every distinct score; arguments and errors as in `equal_error_rate`."""
    same, different = sorted_classes(labels, scores)
    thresholds = np.unique(np.concatenate([same, different]))
    miss = np.searchsorted(same, thresholds) / len(same)
    false_accept = 1 - np.searchsorted(different, thresholds) / len(different)
    return ErrorCurve(
        thresholds=np.r_[np.inf, thresholds[::-1]],
        false_accept=np.r_[0.0, false_accept[::-1]],
        miss=np.r_[1.0, miss[::-1]],
    )


def curve_from_counts(same: np.ndarray, different: np.ndarray, edges: np.ndarray) -> ErrorCurve:
    """The curve of binned scores.

    Args:
        same, different: (bins,) how many trials of each class fell into the bin.
        edges: (bins + 1,) ascending; a score s is in bin i when edges[i] <= s < edges[i + 1].

    Raises:
        InputError: one class has no trials, or all trials are in one bin.
    """
    if not same.sum() or not different.sum():
        raise InputError(_ONE_CLASS.format("different" if different.sum() else "same"))
    used = np.flatnonzero((same > 0) | (different > 0))[::-1]
    if len(used) < 2:
        raise InputError(f"all scores are equal ({edges[used[0]]:.6g}): the embeddings do not differ")
    hits, accepts = np.cumsum(same[used], dtype=np.int64), np.cumsum(different[used], dtype=np.int64)
    return ErrorCurve(
        thresholds=np.r_[np.inf, edges[used]],
        false_accept=np.r_[0.0, accepts / accepts[-1]],
        miss=np.r_[1.0, 1 - hits / hits[-1]],
    )


def min_dcf(
    labels: ArrayLike, scores: ArrayLike, p_target: float = 0.01, c_miss: float = 1.0, c_false_accept: float = 1.0
) -> float:
    """Least detection cost over all thresholds, divided by the cost of the better blind answer (NIST SRE).

    Args:
        labels, scores: as in `equal_error_rate`.
        p_target: how often the same singer is expected, between 0 and 1.
        c_miss, c_false_accept: price of each error.

    Returns:
        0 for perfect separation, 1 when no threshold beats always answering yes or always no.
    """
    return error_curve(labels, scores).min_dcf(p_target, c_miss, c_false_accept)[0]


def area_under_roc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a same-singer trial scores above a different-singer one (ties half); .5 is chance."""
    return error_curve(labels, scores).area_under_roc()


def accuracy_at(threshold: float, labels: ArrayLike, scores: ArrayLike) -> float:
    """Share of trials decided rightly when scores >= threshold are accepted."""
    return float(np.mean((np.asarray(scores) >= threshold) == np.asarray(labels).astype(bool)))


def verification_metrics(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """eer, threshold, accuracy (at the EER threshold), auc and min_dcf at the usual priors, from one sort."""
    curve = error_curve(labels, scores)
    eer, threshold = curve.equal_error_rate()
    costs = {f"min_dcf_{prior:g}": curve.min_dcf(prior)[0] for prior in USUAL_PRIORS}
    return {
        "eer": eer,
        "threshold": threshold,
        "accuracy": accuracy_at(threshold, labels, scores),
        "auc": curve.area_under_roc(),
        "min_dcf": costs[f"min_dcf_{USUAL_PRIORS[0]:g}"],
        **costs,
    }


def sorted_classes(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(scores of same-singer trials, scores of different-singer trials), each ascending, after checking both arrays."""
    labels, scores = check_trials(labels, scores)
    return np.sort(scores[labels]), np.sort(scores[~labels])


def check_trials(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays, (trials,) bool and (trials,) float; InputError when no metric could mean anything on them."""
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise InputError(f"labels and scores must be two lists of one length, got {labels.shape} and {scores.shape}")
    if not len(labels):
        raise InputError("there are no trials: the list of labels and scores is empty")
    if not np.issubdtype(scores.dtype, np.floating):
        if scores.dtype.kind not in "biu":
            raise InputError(f"scores must be real numbers, got {scores.dtype} such as {scores[0]!r}")
        scores = scores.astype(np.float64)
    same = labels if labels.dtype == bool else labels == 1
    if labels.dtype != bool and not np.all(same | (labels == 0)):
        wrong = labels[~(same | (labels == 0))][0]
        raise InputError(f"a label must be 1 (same singer) or 0 (different singers), got {wrong!r}")
    finite = np.isfinite(scores)
    if not finite.all():
        first = int(np.argmin(finite))
        raise InputError(
            f"{int((~finite).sum())} of {len(scores)} scores are NaN or infinite (first at trial {first + 1}); "
            "check the model for NaN weights and the audio for NaN samples"
        )
    if same.all() or not same.any():
        raise InputError(_ONE_CLASS.format("same" if same.all() else "different"))
    if scores.min() == scores.max():
        raise InputError(f"all scores are equal ({scores[0]:.6g}): the embeddings do not differ")
    return same, scores


def _corners(moving: np.ndarray, still: np.ndarray, threshold: float) -> tuple[float, float]:
    """(high, low) thresholds of the piece of the curve around `threshold` on which only one class moves."""
    i = int(np.searchsorted(still, threshold))
    high = still[i] if i < len(still) else np.inf
    low = moving[np.searchsorted(moving, still[i - 1], side="right")] if i else moving[0]
    return high, low


_ONE_CLASS = "every trial is of one class ({}-singer); error rates need trials of both classes"


def _crossing(
    false_accept: tuple[float, float], miss: tuple[float, float], thresholds: tuple[float, float]
) -> tuple[float, float]:
    """(eer, threshold) where the line between two points has false accepts = misses; the stricter point comes first."""
    gap_high, gap_low = false_accept[0] - miss[0], false_accept[1] - miss[1]
    share = -gap_high / (gap_low - gap_high)
    eer = false_accept[0] + share * (false_accept[1] - false_accept[0])
    high, low = thresholds
    return eer, low if np.isinf(high) else high + share * (low - high)
