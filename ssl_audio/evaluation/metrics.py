"""Verification metrics of labelled scores: equal error rate, minimum detection cost, area under the ROC curve, DET.

A trial is accepted when its score is at or above the threshold. All rates come from sorted scores. Equal scores (ties)
are one point of the error curve, so the order of the trials cannot change a result.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError

USUAL_PRIORS = (0.01, 0.05)  # priors of a same-singer trial: the operating points of NIST SRE and VoxSRC
CONVENTIONS = {
    "eer": "where the error curve, linear between its points, has equal rates (WeSpeaker, scikit-learn's ROC)",
    "eer_closest": "the larger rate at the point of the curve where both rates are closest (sslsv)",
    "min_dcf": "min over thresholds of (p miss + (1 - p) false accept) / min(p, 1 - p): p .01, both costs 1",
    "min_dcf_05": "the same with p .05",
}
"""What the metrics of a report mean, as written to its metrics.json."""


@dataclass(frozen=True)
class ErrorCurve:
    """The two error rates at every distinct score, from "accept nobody" to "accept everybody".

    Attributes:
        thresholds: (points,) descending; the first is +inf.
        false_accept: (points,) fraction of different-singer trials with a score >= threshold; ascending from 0 to 1.
        miss: (points,) fraction of same-singer trials with a score < threshold; descending from 1 to 0.
    """

    thresholds: np.ndarray
    false_accept: np.ndarray
    miss: np.ndarray

    def equal_error_rate(self) -> tuple[float, float]:
        """(eer, threshold) where false accepts equal misses; the curve is linear between its points."""
        high = int(np.searchsorted(self.false_accept - self.miss, 0.0)) - 1  # the last point with fewer false accepts
        low = high + 1
        for rate in (self.miss, self.false_accept):
            if rate[high] == rate[low]:  # on a horizontal or vertical piece, interpolate between its two corners
                high, low = np.flatnonzero(rate == rate[high])[[0, -1]]
                break
        columns = (self.false_accept, self.miss, self.thresholds)
        return _eer_and_threshold(*((float(column[high]), float(column[low])) for column in columns))

    def closest_error_rate(self) -> float:
        """The EER of other systems: the larger rate at the point where both rates are closest, not interpolated."""
        gap = np.abs(self.false_accept - self.miss)
        closest = gap <= gap.min() + 1e-12  # of two points that are equally close, rounding must not choose
        return float(np.maximum(self.false_accept, self.miss)[closest].max())

    def min_dcf(self, p_target: float = 0.01, c_miss: float = 1.0, c_false_accept: float = 1.0) -> tuple[float, float]:
        """(cost, threshold) of the cheapest point; for the arguments see the function `min_dcf`."""
        if not 0 < p_target < 1:
            raise InputError(f"p_target must lie between 0 and 1, got {p_target}")
        if not (c_miss > 0 and c_false_accept > 0):
            raise InputError(
                f"the cost of an error must be above 0, got c_miss {c_miss}, c_false_accept {c_false_accept}"
            )
        costs = c_miss * p_target * self.miss + c_false_accept * (1 - p_target) * self.false_accept
        best = int(np.argmin(costs))
        return float(costs[best] / min(c_miss * p_target, c_false_accept * (1 - p_target))), float(
            self.thresholds[best]
        )

    def area_under_roc(self) -> float:
        """Probability that a same-singer trial scores above a different-singer trial; ties count half."""
        hits = 1 - self.miss
        return float(np.sum(np.diff(self.false_accept) * (hits[1:] + hits[:-1]) / 2))

    def miss_at(self, false_accept: ArrayLike) -> np.ndarray:
        """(rates,) miss rates at these false-accept rates; on a vertical piece, the lowest miss rate."""
        wanted = np.asarray(false_accept, dtype=np.float64)
        last = np.searchsorted(self.false_accept, wanted, side="right") - 1
        following = np.minimum(last + 1, len(self.miss) - 1)
        step = self.false_accept[following] - self.false_accept[last]
        fraction = np.divide(wanted - self.false_accept[last], step, out=np.zeros_like(wanted), where=step > 0)
        return self.miss[last] + fraction * (self.miss[following] - self.miss[last])


def equal_error_rate(labels: ArrayLike, scores: ArrayLike) -> tuple[float, float]:
    """Equal error rate: the rate at which false accepts equal misses.

    The ROC curve is linear between its points, as in scikit-learn's `roc_curve` with the root of `1 - fpr - tpr`. The
    function sorts each class and bisects; it does not build the curve, which would take three times as long.

    Args:
        labels: (trials,) 1 for the same singer, 0 for different singers.
        scores: (trials,) on any scale; a larger score means more similar.

    Returns:
        (eer, threshold): eer in [0, 1], and the threshold on the scale of the scores.

    Raises:
        InputError: shapes differ; labels are not 0 and 1 or of one class only; scores are NaN, infinite or all equal.
    """
    same, different = sorted_classes(labels, scores)

    def rates(threshold: float) -> tuple[float, float]:
        accepted = len(different) - int(np.searchsorted(different, threshold))
        return accepted / len(different), int(np.searchsorted(same, threshold)) / len(same)

    def more_misses(threshold: float) -> bool:
        false_accept, miss = rates(threshold)
        return false_accept < miss

    # From some score upwards the miss rate exceeds the false-accept rate. Bisect both classes for this score.
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
    return _eer_and_threshold((fa_high, fa_low), (miss_high, miss_low), (float(high), float(low)))


def error_curve(labels: ArrayLike, scores: ArrayLike) -> ErrorCurve:
    """Both error rates at every distinct score; for arguments and errors see `equal_error_rate`."""
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
    """The error curve of binned scores.

    Args:
        same: (bins,) number of same-singer trials in each bin.
        different: (bins,) number of different-singer trials in each bin.
        edges: (bins + 1,) ascending; a score s is in bin i when edges[i] <= s < edges[i + 1].

    Raises:
        InputError: a class has no trials, or all trials are in one bin.
    """
    if not same.sum() or not different.sum():
        raise InputError(_ONE_CLASS.format("different" if different.sum() else "same"))
    used = np.flatnonzero((same > 0) | (different > 0))[::-1]
    if len(used) < 2:
        raise InputError(f"all scores are equal ({edges[used[0]]:.6g}): the embeddings do not differ; check the model")
    hits, accepts = np.cumsum(same[used], dtype=np.int64), np.cumsum(different[used], dtype=np.int64)
    return ErrorCurve(
        thresholds=np.r_[np.inf, edges[used]],
        false_accept=np.r_[0.0, accepts / accepts[-1]],
        miss=np.r_[1.0, 1 - hits / hits[-1]],
    )


def min_dcf(
    labels: ArrayLike, scores: ArrayLike, p_target: float = 0.01, c_miss: float = 1.0, c_false_accept: float = 1.0
) -> float:
    """Normalised minimum detection cost (NIST SRE).

    The detection cost is `c_miss * p_target * miss + c_false_accept * (1 - p_target) * false_accept`. Its minimum over
    all thresholds is divided by the cost of the cheaper constant answer (always accept or always reject).

    Args:
        labels: (trials,), see `equal_error_rate`.
        scores: (trials,), see `equal_error_rate`.
        p_target: prior probability of a same-singer trial, between 0 and 1.
        c_miss: cost of a miss.
        c_false_accept: cost of a false accept.

    Returns:
        Between 0 (perfect separation) and 1 (no threshold is better than a constant answer).
    """
    return error_curve(labels, scores).min_dcf(p_target, c_miss, c_false_accept)[0]


def area_under_roc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Probability that a same-singer trial scores above a different-singer trial; ties count half. .5 is chance."""
    return error_curve(labels, scores).area_under_roc()


def accuracy_at(threshold: float, labels: ArrayLike, scores: ArrayLike) -> float:
    """Fraction of trials that are decided correctly when scores >= threshold are accepted."""
    return float(np.mean((np.asarray(scores) >= threshold) == np.asarray(labels).astype(bool)))


def verification_metrics(labels: ArrayLike, scores: ArrayLike) -> dict[str, float]:
    """All verification metrics, from one sort.

    Returns:
        `eer`, `threshold`, `accuracy` (at the EER threshold), `auc`, `min_dcf` (at a prior of .01), `min_dcf_0.01` and
        `min_dcf_0.05`.
    """
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
    """Check the trials and return (same-singer scores, different-singer scores), each ascending."""
    labels, scores = check_trials(labels, scores)
    return np.sort(scores[labels]), np.sort(scores[~labels])


def check_trials(labels: ArrayLike, scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Check labels and scores, and return them as arrays: (trials,) bool and (trials,) float.

    Raises:
        InputError: see `equal_error_rate`.
    """
    labels, scores = np.asarray(labels), np.asarray(scores)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise InputError(f"labels and scores must be 1-D and of equal length, got {labels.shape} and {scores.shape}")
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
        raise InputError(f"all scores are equal ({scores[0]:.6g}): the embeddings do not differ; check the model")
    return same, scores


def _corners(moving: np.ndarray, still: np.ndarray, threshold: float) -> tuple[float, float]:
    """(high, low) thresholds at the ends of the horizontal or vertical piece of the curve around `threshold`.

    Args:
        moving: sorted scores of the class whose error rate changes along the piece.
        still: sorted scores of the class whose error rate is constant along the piece.
    """
    i = int(np.searchsorted(still, threshold))
    high = still[i] if i < len(still) else np.inf
    low = moving[np.searchsorted(moving, still[i - 1], side="right")] if i else moving[0]
    return high, low


_ONE_CLASS = "every trial is of one class ({}-singer); error rates need trials of both classes"


def crossing(false_accept: Sequence[float], miss: Sequence[float]) -> tuple[float, float]:
    """Where the line between two points of an error curve has equal false accepts and misses.

    Args:
        false_accept, miss: the two rates at both points; the stricter threshold comes first.

    Returns:
        (the rate, its place on the line as a fraction of the way from the first point to the second).
    """
    gap_before, gap_after = false_accept[0] - miss[0], false_accept[1] - miss[1]
    fraction = -gap_before / (gap_after - gap_before)
    return false_accept[0] + fraction * (false_accept[1] - false_accept[0]), fraction


def _eer_and_threshold(
    false_accept: tuple[float, float], miss: tuple[float, float], thresholds: tuple[float, float]
) -> tuple[float, float]:
    """(eer, threshold) between two points of an error curve; the stricter threshold comes first."""
    eer, fraction = crossing(false_accept, miss)
    high, low = thresholds
    return eer, low if np.isinf(high) else high + fraction * (low - high)
