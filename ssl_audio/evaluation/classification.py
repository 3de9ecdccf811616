"""Metrics of single- and multi-label classification, weighted, so that one bootstrap serves them all.

Per class: precision, recall, f1, roc_auc, average_precision (each class against the rest). Macro figures are plain
means over the classes that can be judged; the others are named. Definitions are scikit-learn's.
"""

from dataclasses import dataclass, field

import numpy as np

from ssl_audio.errors import InputError

PER_CLASS = ("precision", "recall", "f1", "roc_auc", "average_precision")
Interval = tuple[float, float]


@dataclass(frozen=True)
class Classification:
    """Figures of one task.

    Attributes:
        summary: {metric: value}; accuracy over items (for several labels an item: over items and classes),
            balanced_accuracy the mean recall (for several labels: of recall and true-negative rate), the rest macro.
        intervals: {metric: (low, high)}, 95 %, by bootstrap over groups of items.
        per_class: {class: {metric: value}} of `PER_CLASS`.
        per_class_intervals: likewise.
        confusion: (classes, classes) counts, rows are the truth; None for several labels an item.
        left_out: {class: why} of classes that no macro figure includes.
        draws: {metric: (draws,)} of the bootstrap. One seed and one list of groups give every model the same draws.
    """

    summary: dict[str, float]
    intervals: dict[str, Interval]
    per_class: dict[str, dict[str, float]]
    per_class_intervals: dict[str, dict[str, Interval]]
    confusion: np.ndarray | None
    left_out: dict[str, str]
    draws: dict[str, np.ndarray] = field(default_factory=dict)

    def difference(self, other: "Classification", metric: str) -> tuple[float, Interval]:
        """This figure minus the other's, with a paired 95 % interval; both judged on the same items, groups and seed.

        Raises:
            InputError: the draws are not of the same number, or there are none.
        """
        ours, theirs = self.draws.get(metric, np.empty(0)), other.draws.get(metric, np.empty(0))
        if not len(ours) or len(ours) != len(theirs):
            raise InputError(f"a paired difference needs the same draws of both, got {len(ours)} and {len(theirs)}")
        return self.summary[metric] - other.summary[metric], _interval(ours - theirs)


class ClassificationMetrics:
    """Scores of one task, sorted once, judged under any weights of the items.

    Args:
        targets: (items,) int class numbers, or (items, classes) bool.
        scores: (items, classes) probabilities; the decision is the largest, or > .5 for several labels an item.
        classes: names.
        trained: (classes,) bool, which classes had examples in training; None for all.

    Raises:
        InputError: no items, NaN scores, or no class that can be judged.
    """

    def __init__(
        self, targets: np.ndarray, scores: np.ndarray, classes: list[str], trained: np.ndarray | None = None
    ) -> None:
        if not len(targets) or scores.shape != (len(targets), len(classes)):
            raise InputError(f"expected scores of {len(targets)} items x {len(classes)} classes, got {scores.shape}")
        if not np.isfinite(scores).all():
            raise InputError("scores of the classes hold NaN or infinite values")
        self.classes = classes
        self.multi_label = targets.ndim == 2
        self.truth = targets.astype(bool) if self.multi_label else targets[:, None] == np.arange(len(classes))
        best = scores.argmax(axis=1)
        self.decided = scores > 0.5 if self.multi_label else best[:, None] == np.arange(len(classes))
        self.left_out = self._left_out(trained)
        self.kept = np.array([name not in self.left_out for name in classes])
        if not self.kept.any():
            raise InputError(f"no class can be judged: {'; '.join(f'{k}: {v}' for k, v in self.left_out.items())}")
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

    def figures(self, weights: np.ndarray) -> tuple[dict[str, float], dict[str, np.ndarray]]:
        """(summary, {metric: (classes,)}) with each item counted `weights` times; NaN where nothing is defined."""
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
        """(classes,) area under the ROC curve and average precision, ties as one point."""
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

    def bootstrap(self, groups: np.ndarray | None = None, draws: int = 200, seed: int = 0) -> Classification:
        """All figures with intervals from a bootstrap over groups of items.

        Args:
            groups: (items,) int; items of one group are drawn together. None: each item alone.
            draws: of the bootstrap; 0 for no intervals.
            seed: of the draws.
        """
        n = len(self.truth)
        summary, values = self.figures(np.ones(n))
        group = np.unique(groups, return_inverse=True)[1] if groups is not None else np.arange(n)
        count = int(group.max()) + 1
        rng = np.random.default_rng(seed)
        drawn = [
            self.figures(rng.multinomial(count, np.full(count, 1 / count))[group].astype(float)) for _ in range(draws)
        ]
        by_metric = {m: np.array([s[m] for s, _ in drawn]) for m in summary} if draws else {}
        kept = np.flatnonzero(self.kept)
        by_class = {m: np.array([v[m] for _, v in drawn]) for m in PER_CLASS} if draws else {}
        return Classification(
            summary=summary,
            intervals={m: _interval(values) for m, values in by_metric.items()},
            per_class={self.classes[c]: {m: float(values[m][c]) for m in PER_CLASS} for c in kept},
            per_class_intervals={self.classes[c]: {m: _interval(by_class[m][:, c]) for m in by_class} for c in kept},
            confusion=None if self.multi_label else self.truth.T.astype(int) @ self.decided.astype(int),
            left_out=self.left_out,
            draws=by_metric,
        )


def _interval(values: np.ndarray) -> Interval:
    values = values[np.isfinite(values)]
    if not len(values):
        return float("nan"), float("nan")
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
