"""Metrics of single-label and multi-label classification, with intervals from one bootstrap.

The metrics per class are precision, recall, F1, ROC AUC and average precision of this class against the rest. Macro
metrics are unweighted means over classes. A class that has no defined metric (for example no positives in the test set)
is left out of the macro metrics and listed. All definitions are scikit-learn's.
"""

from dataclasses import dataclass, field

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.bootstrap import percentile_interval

PER_CLASS = ("precision", "recall", "f1", "roc_auc", "average_precision")
Interval = tuple[float, float]


@dataclass(frozen=True)
class Classification:
    """Metrics of one task.

    Attributes:
        summary: {metric: value}.

            - `accuracy`: over items; for a multi-label task, over items and classes.
            - `balanced_accuracy`: mean recall; for a multi-label task, mean of recall and true-negative rate.
            - the names of `PER_CLASS`: macro metrics.
        intervals: {metric: (low, high)}, 95 %, by a bootstrap over groups of items.
        per_class: {class: {metric: value}} for the metrics of `PER_CLASS`.
        per_class_intervals: {class: {metric: (low, high)}}.
        confusion: (classes, classes) counts, rows are the true classes; None for a multi-label task.
        left_out: {class: reason} of the classes that the macro metrics do not include.
        resampled: {metric: (resamples,)}, its value in every resample. Models that are evaluated with the same seed and
            the same groups have the same resamples.
    """

    summary: dict[str, float]
    intervals: dict[str, Interval]
    per_class: dict[str, dict[str, float]]
    per_class_intervals: dict[str, dict[str, Interval]]
    confusion: np.ndarray | None
    left_out: dict[str, str]
    resampled: dict[str, np.ndarray] = field(default_factory=dict)

    def difference(self, other: "Classification", metric: str) -> tuple[float, Interval]:
        """(difference, 95 % interval) of a metric between this model and another one, paired by resample.

        Both must have been evaluated on the same items with the same groups and seed.

        Raises:
            InputError: there are no resamples, or their numbers differ.
        """
        ours, theirs = self.resampled.get(metric, np.empty(0)), other.resampled.get(metric, np.empty(0))
        if not len(ours) or len(ours) != len(theirs):
            raise InputError(
                f"a paired difference needs the same resamples for both models, got {len(ours)} and {len(theirs)}"
            )
        return self.summary[metric] - other.summary[metric], percentile_interval(ours - theirs)


class ClassificationMetrics:
    """Computes the metrics of one task under any weights of the items; the scores are sorted once.

    Args:
        targets: (items,) int class numbers, or (items, classes) bool for a multi-label task.
        scores: (items, classes) probabilities. The decision is the class of the largest probability; in a multi-label
            task, every class above .5.
        classes: names of the classes.
        trained: (classes,) bool, which classes had examples in the training that was then tested on them; None for
            all.

    Raises:
        InputError: no items, NaN scores, or no class with a defined metric.
    """

    def __init__(
        self, targets: np.ndarray, scores: np.ndarray, classes: list[str], trained: np.ndarray | None = None
    ) -> None:
        if not len(targets) or scores.shape != (len(targets), len(classes)):
            raise InputError(f"expected scores of {len(targets)} items x {len(classes)} classes, got {scores.shape}")
        if not np.isfinite(scores).all():
            raise InputError("the class scores hold NaN or infinite values; check the features and the model")
        self.classes = classes
        self.multi_label = targets.ndim == 2
        self.truth = targets.astype(bool) if self.multi_label else targets[:, None] == np.arange(len(classes))
        best = scores.argmax(axis=1)
        self.decided = scores > 0.5 if self.multi_label else best[:, None] == np.arange(len(classes))
        self.left_out = self._left_out(trained)
        self.kept = np.array([name not in self.left_out for name in classes])
        if not self.kept.any():
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self.left_out.items())
            raise InputError(f"no class can be evaluated ({reasons}); add labelled files or take another split")
        self.order = np.argsort(-scores, axis=0, kind="stable")
        ordered = np.take_along_axis(scores, self.order, axis=0)
        self.tie_ends = np.vstack([ordered[1:] != ordered[:-1], np.ones((1, len(classes)), dtype=bool)])
        self.sorted_truth = np.take_along_axis(self.truth, self.order, axis=0)

    def _left_out(self, trained: np.ndarray | None) -> dict[str, str]:
        found = {}
        for i, name in enumerate(self.classes):
            if not self.truth[:, i].any():
                found[name] = "no positives in the test set"
            elif self.truth[:, i].all():
                found[name] = "no negatives in the test set"
            elif trained is not None and not trained[i]:
                found[name] = "no positives in the training set"
        return found

    def compute(self, weights: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """Compute all metrics with weighted items.

        Args:
            weights: (items,).

        Returns:
            (summary, {metric of `PER_CLASS`: (classes,)}); NaN where a metric is undefined.
        """
        hit = (weights[:, None] * (self.truth & self.decided)).sum(axis=0)
        positives, decided = weights @ self.truth, weights @ self.decided
        total = weights.sum()
        with np.errstate(invalid="ignore", divide="ignore"):
            recall = np.where(positives > 0, hit / positives, np.nan)
            precision = np.where(decided > 0, hit / decided, 0.0)
            f1 = np.where(positives + decided > 0, 2 * hit / (positives + decided), np.nan)
            precision = np.where(positives > 0, precision, np.nan)
            specificity = 1 - (decided - hit) / (total - positives)
        area, average_precision = self._ranking(weights, positives, total)
        values = dict(zip(PER_CLASS, (precision, recall, f1, area, average_precision), strict=True))
        balanced = (recall + specificity) / 2 if self.multi_label else recall
        agreed = weights @ (self.truth == self.decided) / total
        accuracy = agreed.mean() if self.multi_label else hit.sum() / total
        summary = {"accuracy": float(accuracy), "balanced_accuracy": self._macro(balanced)}
        return summary | {name: self._macro(value) for name, value in values.items()}, values

    def _macro(self, values: np.ndarray) -> float:
        kept = values[self.kept]
        kept = kept[np.isfinite(kept)]
        return float(kept.mean()) if len(kept) else float("nan")

    def _ranking(self, weights: np.ndarray, positives: np.ndarray, total: float) -> tuple[np.ndarray, np.ndarray]:
        """(ROC AUC (classes,), average precision (classes,)); equal scores are one point of the curve."""
        area, precision = np.full((2, len(self.classes)), np.nan)
        for c in np.flatnonzero(self.kept & (positives > 0) & (positives < total)):
            w, ends = weights[self.order[:, c]], self.tie_ends[:, c]
            hits = np.cumsum(w * self.sorted_truth[:, c])[ends]
            taken = np.cumsum(w)[ends]
            rising = np.diff(hits, prepend=0.0)
            with np.errstate(invalid="ignore"):
                precision[c] = np.nansum(rising * hits / taken) / hits[-1]
            false = taken - hits
            area[c] = np.sum(np.diff(false, prepend=0.0) * (hits - rising / 2)) / hits[-1] / false[-1]
        return area, precision

    def bootstrap(self, groups: np.ndarray | None = None, resamples: int = 200, seed: int = 0) -> Classification:
        """Compute all metrics, with intervals from a bootstrap over groups of items.

        Args:
            groups: (items,) int; items of one group are resampled together. None: each item is its own group.
            resamples: number of bootstrap resamples; 0 for no intervals.
            seed: of the resamples.
        """
        n = len(self.truth)
        summary, values = self.compute(np.ones(n))
        group = np.unique(groups, return_inverse=True)[1] if groups is not None else np.arange(n)
        count = int(group.max()) + 1
        rng = np.random.default_rng(seed)
        found = [
            self.compute(rng.multinomial(count, np.full(count, 1 / count))[group].astype(float))
            for _ in range(resamples)
        ]
        by_metric = {m: np.array([s[m] for s, _ in found]) for m in summary} if resamples else {}
        kept = np.flatnonzero(self.kept)
        by_class = {m: np.array([v[m] for _, v in found]) for m in PER_CLASS} if resamples else {}
        return Classification(
            summary=summary,
            intervals={m: percentile_interval(values) for m, values in by_metric.items()},
            per_class={self.classes[c]: {m: float(values[m][c]) for m in PER_CLASS} for c in kept},
            per_class_intervals={
                self.classes[c]: {m: percentile_interval(by_class[m][:, c]) for m in by_class} for c in kept
            },
            confusion=None if self.multi_label else self.truth.T.astype(int) @ self.decided.astype(int),
            left_out=self.left_out,
            resampled=by_metric,
        )
