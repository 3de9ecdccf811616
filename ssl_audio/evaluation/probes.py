"""Probes: how well a simple classifier recognises labels from frozen embeddings.

- The linear probe is a logistic regression (softmax; in a multi-label task one sigmoid per class) on features that are
  standardised with the statistics of the training items.
- The knn probe is a vote of the nearest training items.
- The mlp probe has one hidden layer.

Validation items choose the strength of the linear probe's L2 penalty and the k of the knn probe. The probe is then
fitted again on training and validation items together. For the mlp probe, validation items choose the epoch. Test items
choose nothing.

An item may have several clips. The probe is trained on every clip with the label of its item, and the score of an item
is the mean over its clips.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ssl_audio.errors import InputError
from ssl_audio.evaluation.classification import Classification, ClassificationMetrics
from ssl_audio.evaluation.classifiers import (
    EPOCHS,
    HIDDEN,
    NEIGHBOURS,
    STRENGTHS,
    fit_mlp,
    linear_path,
    nearest,
    predict,
)
from ssl_audio.evaluation.recordings import Recordings
from ssl_audio.evaluation.splits import check_known, group_folds, limit_labels, splits_of
from ssl_audio.heads import ProbeHead

KINDS = ("linear", "mlp", "knn")
_EPOCHS_WITHOUT_VALIDATION = 20  # of an mlp with too few labels for validation items
_PATIENCE = 2  # weaker penalties or smaller k that are tried without a better validation score


@dataclass(frozen=True)
class ProbeSettings:
    """How to probe.

    Attributes:
        kind: "linear", "mlp" or "knn".
        hidden: size of the hidden layer of the mlp.
        label_fraction: fraction of the training labels to use, above 0 and at most 1. The labels are drawn class by
            class; at least one item (or group) per class is kept.
        seed: of the folds, the label fraction, the mlp and the bootstrap.
        n_folds: number of folds, if none are given.
        resamples: bootstrap resamples for the intervals; 0 for no intervals.
        keep_head: with folds, also fit a head on all items, with the median of what validation chose in the folds.
        progress: show a progress bar.

    Raises:
        InputError: the kind is unknown, or the label fraction is out of range.
    """

    kind: str = "linear"
    hidden: int = HIDDEN
    label_fraction: float = 1.0
    seed: int = 0
    n_folds: int = 5
    resamples: int = 200
    keep_head: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"unknown probe {self.kind!r}; choose one of {', '.join(KINDS)}")
        if not 0 < self.label_fraction <= 1:
            raise InputError(f"label_fraction must be above 0 and at most 1, got {self.label_fraction}")


@dataclass(frozen=True)
class ProbeResult:
    """Metrics of a probe, and how they were obtained.

    Attributes:
        kind: "linear", "mlp", "knn", or "transfer" for a fine-tuned network.
        metrics: see `Classification`.
        classes: names of the classes, in the order of the columns of `scores` and of the confusion matrix.
        chosen: the strength, epoch or k that validation chose in each fold.
        n_train: number of training and validation items, mean over the folds.
        n_test: number of tested items, sum over the folds.
        label_fraction: as in the settings.
        seed: as in the settings.
        scores: (tested, classes) probabilities.
        tested: (tested,) positions of the tested items.
        notes: what was left out beforehand.
        head: with one fixed split, the tested head; with folds and `keep_head`, a head fitted on all items; else None.
    """

    kind: str
    metrics: Classification
    classes: list[str]
    chosen: list[float]
    n_train: int
    n_test: int
    label_fraction: float
    seed: int
    scores: np.ndarray
    tested: np.ndarray
    notes: tuple[str, ...] = ()
    head: ProbeHead | None = None

    def summary(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return {
            "kind": self.kind,
            **self.metrics.summary,
            "intervals": self.metrics.intervals,
            "per_class": self.metrics.per_class,
            "per_class_intervals": self.metrics.per_class_intervals,
            "left_out": self.metrics.left_out,
            "chosen": self.chosen,
            "n_classes": len(self.classes),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "label_fraction": self.label_fraction,
            "seed": self.seed,
            "notes": list(self.notes),
        }


class Fold(NamedTuple):
    """Result of one split of a cross-validation.

    Attributes:
        scores: (test items, classes) probabilities.
        chosen: the strength, epoch or k that validation chose.
        learned_from: positions of the items that the tested classifier was fitted on.
    """

    scores: np.ndarray
    chosen: float
    learned_from: np.ndarray


def cross_validate(
    fit: Callable[[np.ndarray, np.ndarray, np.ndarray], Fold],
    targets: np.ndarray,
    classes: Sequence[str],
    splits: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
    groups: np.ndarray,
    settings: ProbeSettings,
    kind: str | None = None,
) -> ProbeResult:
    """Fit and test a classifier on every split.

    Args:
        fit: called with the positions (train, validation, test) of every split.
        targets: (items,) int class numbers, or (items, classes) bool.
        classes: names of the classes.
        splits: (train, validation, test) positions, see `splits_of`.
        groups: (items,) int; the bootstrap resamples groups.
        settings: `label_fraction`, `seed`, `resamples` and `progress` are used.
        kind: name of the classifier in the result; default: the kind of the settings.

    Raises:
        InputError: no split has a test class with training items, or no class can be evaluated.
    """
    check_known(splits, targets)
    kind, rng = kind or settings.kind, np.random.default_rng(settings.seed)
    scores = np.full((len(targets), len(classes)), np.nan)
    chosen, sizes, trained = [], [], np.zeros(len(classes), dtype=bool)
    hidden = not settings.progress or len(splits) < 2
    for train, validation, test in tqdm(splits, f"{kind} probe", disable=hidden, leave=False, delay=2):
        train, validation = limit_labels(train, validation, targets, groups, settings.label_fraction, rng)
        scores[test], best, learned_from = fit(train, validation, test)
        chosen.append(best)
        sizes.append(len(train) + len(validation))
        # A class that only the other folds train is tested by classifiers that never saw it.
        trained |= _occurring(targets[learned_from], len(classes)) & _occurring(targets[test], len(classes))
    tested = np.flatnonzero(np.isfinite(scores[:, 0]))
    computed = ClassificationMetrics(targets[tested], scores[tested], list(classes), trained)
    return ProbeResult(
        kind=kind,
        metrics=computed.bootstrap(groups[tested], settings.resamples, settings.seed),
        classes=list(classes),
        chosen=chosen,
        n_train=round(float(np.mean(sizes))),
        n_test=len(tested),
        label_fraction=settings.label_fraction,
        seed=settings.seed,
        scores=scores[tested],
        tested=tested,
    )


def _occurring(targets: np.ndarray, classes: int) -> np.ndarray:
    """(classes,) bool, the classes that some of these items have."""
    return np.asarray(targets.any(axis=0) if targets.ndim == 2 else np.bincount(targets, minlength=classes) > 0)


def probe(
    features: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str] | None = None,
    settings: ProbeSettings | None = None,
    *,
    clips: Sequence[int] | np.ndarray | None = None,
    folds: Sequence[str] | Sequence[int] | np.ndarray | None = None,
    groups: Sequence[str] | Sequence[int] | np.ndarray | None = None,
) -> ProbeResult:
    """Train a probe, and test it on items that it was not trained on.

    Args:
        features: (items, dim) embeddings; with `clips`, (clips, dim).
        targets: (items,) int class numbers, or (items, classes) bool for a multi-label task.
        classes: names of the classes; default: their numbers.
        settings: default: a linear probe with all labels.
        clips: (clips,) position of the item that each row of `features` belongs to; every item needs at least one.
        folds: (items,) either names of folds, each of which is tested once by a probe trained on the others; or the
            words train, validation (or valid) and test for one fixed split. None: random folds, stratified by class.
        groups: (items,) names. Random folds never divide a group, and the bootstrap resamples groups. Given folds are
            not changed.

    Raises:
        InputError: shapes do not match, features are not finite, there is one class only, or a split has no training or
            test items.
    """
    settings = settings or ProbeSettings()
    x, y, names = _check(features, targets, classes, clips is None)
    owner = np.arange(len(y)) if clips is None else np.asarray(clips)
    if len(owner) != len(x) or not np.array_equal(np.unique(owner), np.arange(len(y))):
        raise InputError(f"{len(x)} rows of features do not cover {len(y)} items; every item needs a clip")
    group = np.unique(groups, return_inverse=True)[1] if groups is not None else np.arange(len(y))
    assigned = np.asarray(folds) if folds is not None else group_folds(y, group, settings.n_folds, settings.seed)
    if len(assigned) != len(y) or len(group) != len(y):
        raise InputError(f"{len(y)} items need as many folds and groups, got {len(assigned)} and {len(group)}")
    classifier = _Classifier(x, y, names, owner, settings)
    splits = splits_of(assigned)
    result = cross_validate(classifier.fit_and_score, y, names, splits, group, settings)
    if len(splits) == 1:
        return replace(result, head=classifier.head)
    if settings.keep_head:
        return replace(result, head=classifier.fit_on_all(float(np.median(result.chosen))))
    return result


def singer_probe(embeddings: np.ndarray, recordings: Recordings, settings: ProbeSettings | None = None) -> ProbeResult:
    """Closed-set singer identification, with folds by recording: no recording is in both training and test.

    Singers with a single recording are left out; a note in the result says how many.

    Raises:
        InputError: fewer than two singers have two recordings.
    """
    own: dict[str, set[str]] = {}
    for singer, recording in zip(recordings.singers, recordings.recording, strict=True):
        own.setdefault(singer, set()).add(recording)
    names = sorted(singer for singer, takes in own.items() if len(takes) > 1)
    if len(names) < 2:
        raise InputError(f"{recordings.root}: singer identification needs two singers with two recordings each")
    number = {name: i for i, name in enumerate(names)}
    kept = np.array([i for i, singer in enumerate(recordings.singers) if singer in number])
    targets = np.array([number[recordings.singers[i]] for i in kept])
    groups = [recordings.recording[i] for i in kept]
    result = probe(embeddings[kept], targets, names, settings, groups=groups)
    single = len(own) - len(names)
    notes = (f"{single} singers with one recording left out",) if single else ()
    return replace(result, tested=kept[result.tested], notes=notes)


class _Classifier:
    """Fits one kind of classifier on some items and scores others.

    Args:
        x: (rows, dim) features.
        y: targets of the items.
        names: of the classes.
        owner: (rows,) item of each row.
        settings: `kind`, `hidden` and `seed` are used.

    Attributes:
        head: the head of the last `fit_and_score`; None for "knn".
    """

    def __init__(
        self, x: np.ndarray, y: np.ndarray, names: list[str], owner: np.ndarray, settings: ProbeSettings
    ) -> None:
        self.x, self.y, self.names, self.owner = x, y, names, owner
        self.kind, self.hidden, self.seed = settings.kind, settings.hidden, settings.seed
        self.head: ProbeHead | None = None

    def fit_and_score(self, train: np.ndarray, validation: np.ndarray, test: np.ndarray) -> Fold:
        """Fit with the parameter that validation chooses, and score the test items."""
        learned_from = np.concatenate([train, validation])
        if self.kind == "mlp":
            self.head, epoch = self._mlp(train, validation)
            return Fold(self._scores(partial(predict, self.head), test), float(epoch), learned_from)
        options: Sequence[float] = STRENGTHS if self.kind == "linear" else NEIGHBOURS
        best = options[len(options) // 2]  # without validation items
        if len(validation):
            values: list[float] = []
            for scores, _ in self._path(train, validation, options):
                values.append(_validation_score(self.y[validation], scores))
                if len(values) > int(np.argmax(values)) + _PATIENCE:
                    break
            best = options[int(np.argmax(values))]
        scores, self.head = next(self._path(learned_from, test, [best]))
        return Fold(scores, float(best), learned_from)

    def fit_on_all(self, chosen: float) -> ProbeHead | None:
        """A head fitted on every item; None for "knn"."""
        everything = np.arange(len(self.y))
        if self.kind == "mlp":
            return self._mlp(everything, everything[:0], max(1, round(chosen)))[0]
        return next(self._path(everything, everything[:0], [chosen]))[1]

    def _path(
        self, train: np.ndarray, test: np.ndarray, options: Sequence[float]
    ) -> Iterator[tuple[np.ndarray, ProbeHead | None]]:
        """(scores of the test items, head) for each strength or k."""
        x, y = self._rows(train)
        if self.kind == "linear":
            for head in linear_path(x, y, self.names, options):
                yield self._scores(partial(predict, head), test), head
        else:
            rows = np.flatnonzero(np.isin(self.owner, test))
            for scores in nearest(x, y, self.x[rows], len(self.names), options):
                yield self._mean(scores, rows, test), None

    def _mlp(self, train: np.ndarray, validation: np.ndarray, epochs: int | None = None) -> tuple[ProbeHead, int]:
        held = self._rows(validation) if len(validation) else None
        if epochs is None:
            epochs = EPOCHS if held is not None else _EPOCHS_WITHOUT_VALIDATION
        return fit_mlp(*self._rows(train), self.names, held, self.seed, epochs, self.hidden)

    def _rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(features, labels) of all clips of these items."""
        rows = np.flatnonzero(np.isin(self.owner, items))
        return self.x[rows], self.y[self.owner[rows]]

    def _scores(self, score: Callable[[np.ndarray], np.ndarray], items: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(np.isin(self.owner, items))
        return self._mean(score(self.x[rows]), rows, items)

    def _mean(self, scores: np.ndarray, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(items, classes) mean score over the clips of each item."""
        place = np.full(len(self.y), -1)
        place[items] = np.arange(len(items))
        total = np.zeros((len(items), scores.shape[1]))
        np.add.at(total, place[self.owner[rows]], scores)
        return total / np.bincount(self.owner, minlength=len(self.y))[items][:, None]


def _validation_score(targets: np.ndarray, scores: np.ndarray) -> float:
    """The score that validation maximises: balanced accuracy; in a multi-label task, macro average precision."""
    if targets.ndim == 1:
        right = scores.argmax(axis=1) == targets
        return float(np.mean([right[targets == c].mean() for c in np.unique(targets)]))
    if not (targets.any(axis=0) & ~targets.all(axis=0)).any():
        raise InputError(
            "no class occurs in some validation files and not in others, so they cannot validate anything; take more "
            "or other validation files (MusicNet: --option valid=0.3, --option seed=1)"
        )
    metrics = ClassificationMetrics(targets, scores, [str(c) for c in range(scores.shape[1])])
    return metrics.compute(np.ones(len(targets)))[0]["average_precision"]


def _check(
    features: np.ndarray, targets: np.ndarray, classes: Sequence[str] | None, one_each: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Check features and targets, and return them as arrays with the names of the classes."""
    x, y = np.asarray(features, dtype=np.float32), np.asarray(targets)
    if x.ndim != 2 or y.ndim not in (1, 2) or (one_each and len(x) != len(y)):
        raise InputError(f"features (items, dim) and targets do not match: {x.shape} and {y.shape}")
    if not np.isfinite(x).all():
        raise InputError(
            f"{int((~np.isfinite(x)).any(axis=1).sum())} of {len(x)} feature vectors hold NaN or infinity; "
            "check the model and the audio"
        )
    if not len(y):
        raise InputError("there are no items: features and targets are empty")
    if y.ndim == 1 and (y.dtype.kind not in "biu" or y.min() < 0):
        raise InputError(f"targets must be class numbers from 0, got {y.dtype} such as {np.sort(y)[0]!r}")
    y = y.astype(bool) if y.ndim == 2 else y.astype(np.int64)
    count = y.shape[1] if y.ndim == 2 else int(y.max()) + 1
    names = [str(c) for c in range(count)] if classes is None else list(classes)
    if len(names) < max(count, 2) or (y.ndim == 2 and len(names) != count):
        raise InputError(f"targets have {count} classes and there are {len(names)} names; a probe needs at least two")
    return x, y, names
