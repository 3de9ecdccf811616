"""Probes: what a simple classifier can read from frozen embeddings.

A linear probe is logistic regression (softmax for one label an item, a sigmoid a class for several) on features that
are standardised by the training items. Its L2 strength, like the k of the nearest-neighbour probe, is chosen on
validation items, which are never test items; then it is fitted again on training and validation items together. The
mlp probe has one hidden layer, and validation items tell it when to stop.

An item may have several clips: each is trained on with the item's label, and its score is the mean over its clips.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

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
_BLIND_EPOCHS = 20  # of an mlp for which there are too few labels to validate anything
_PATIENCE = 2  # strengths in a row without a better validation figure, after which weaker ones are not tried


@dataclass(frozen=True)
class ProbeResult:
    """A probe's figures and how they came about.

    Attributes:
        kind: "linear", "mlp" or "knn".
        figures: see `Classification`.
        classes: names of the classes, in the order of the columns of `scores` and of the confusion matrix.
        chosen: the strength, epoch or k that validation chose, one a fold.
        n_train, n_test: items; with folds, the mean size of the training part and all tested items.
        label_fraction, seed: as given.
        scores: (tested, classes) probabilities; `tested`: (tested,) positions of the items.
        notes: what was left out before, in words.
        head: with one fixed split the head that was tested; with folds, where asked for, one fitted on all items.
    """

    kind: str
    figures: Classification
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
        """The numbers alone, ready for JSON."""
        return {
            "kind": self.kind,
            **self.figures.summary,
            "intervals": self.figures.intervals,
            "per_class": self.figures.per_class,
            "per_class_intervals": self.figures.per_class_intervals,
            "left_out": self.figures.left_out,
            "chosen": self.chosen,
            "n_classes": len(self.classes),
            "n_train": self.n_train,
            "n_test": self.n_test,
            "label_fraction": self.label_fraction,
            "seed": self.seed,
            "notes": list(self.notes),
        }


def probe(
    features: np.ndarray,
    targets: np.ndarray,
    classes: Sequence[str] | None = None,
    *,
    clips: Sequence[int] | np.ndarray | None = None,
    folds: Sequence | None = None,
    groups: Sequence | None = None,
    kind: str = "linear",
    keep_head: bool = False,
    hidden: int = HIDDEN,
    label_fraction: float = 1.0,
    seed: int = 0,
    n_folds: int = 5,
    draws: int = 200,
    progress: bool = False,
) -> ProbeResult:
    """Train a probe and test it on items it has not seen.

    Args:
        features: (items, dim) embeddings; with `clips` (clips, dim).
        targets: (items,) int class numbers, or (items, classes) bool.
        classes: names; default: the numbers.
        clips: (clips,) the item that each row of `features` belongs to; every item has one at least.
        folds: (items,) given folds, each tested once by a probe trained on the others; or the words train, validation
            (or valid) and test for one fixed split. None: `n_folds` folds, stratified by class.
        groups: (items,) items of one group are drawn together in the bootstrap, and are never on two sides of a split
            that is made here; given folds stand as they are.
        kind: "linear", "mlp" or "knn".
        keep_head: with folds, also fit a head on all items, with what validation chose (the median over folds).
        hidden: size of the layer of the mlp.
        label_fraction: share of the training items whose labels may be used, drawn class by class from the seed, at
            least one (group) a class.
        seed: of folds, fraction and bootstrap.
        n_folds: when none are given.
        draws: of the bootstrap; 0 for no intervals.
        progress: show a bar.

    Raises:
        InputError: shapes that do not fit, NaN features, one class only, a split without training or test items.
    """
    x, y, names = _check(features, targets, classes, kind, label_fraction, clips is None)
    owner = np.arange(len(y)) if clips is None else np.asarray(clips)
    if len(owner) != len(x) or not np.array_equal(np.unique(owner), np.arange(len(y))):
        raise InputError(f"{len(x)} rows of features do not cover {len(y)} items; every item needs a clip")
    group = np.unique(groups, return_inverse=True)[1] if groups is not None else np.arange(len(y))
    assigned = np.asarray(folds) if folds is not None else group_folds(y, group, n_folds, seed)
    if len(assigned) != len(y) or len(group) != len(y):
        raise InputError(f"{len(y)} items need as many folds and groups, got {len(assigned)} and {len(group)}")
    rng = np.random.default_rng(seed)
    fit = _Fit(kind, x, y, names, owner, seed, hidden)
    scores = np.full((len(y), len(names)), np.nan)
    chosen, sizes, trained = [], [], np.zeros(len(names), dtype=bool)
    splits = splits_of(assigned)
    check_known(splits, y)
    for train, validation, test in tqdm(splits, f"{kind} probe", disable=not progress, leave=False, delay=2):
        train, validation = limit_labels(train, validation, y, group, label_fraction, rng)
        scores[test], best, head = fit.and_predict(train, validation, test)
        chosen.append(best)
        known = np.concatenate([train, validation])
        sizes.append(len(known))
        trained |= y[known].any(axis=0) if y.ndim == 2 else np.bincount(y[known], minlength=len(names)) > 0
    tested = np.flatnonzero(np.isfinite(scores[:, 0]))
    if len(splits) > 1:
        head = fit.on_all(float(np.median(chosen))) if keep_head else None
    return ProbeResult(
        kind=kind,
        figures=ClassificationMetrics(y[tested], scores[tested], names, trained).bootstrap(group[tested], draws, seed),
        classes=names,
        chosen=chosen,
        n_train=round(float(np.mean(sizes))),
        n_test=len(tested),
        label_fraction=label_fraction,
        seed=seed,
        scores=scores[tested],
        tested=tested,
        head=head,
    )


def singer_probe(
    embeddings: np.ndarray, recordings: Recordings, kind: str = "linear", seed: int = 0, draws: int = 200
) -> ProbeResult:
    """Closed-set singer identification: folds by recording, so that no recording is in both training and test.

    Singers with a single recording cannot be tested so and are left out; a note says how many.

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
    result = probe(embeddings[kept], targets, names, groups=groups, kind=kind, seed=seed, draws=draws)
    lonely = len(own) - len(names)
    notes = (f"{lonely} singers with one recording left out",) if lonely else ()
    return replace(result, tested=kept[result.tested], notes=notes)


@dataclass(frozen=True)
class _Fit:
    """Features, what they are of, and how to learn from some items and score others."""

    kind: str
    x: np.ndarray  # (rows, dim)
    y: np.ndarray  # of the items
    names: list[str]
    owner: np.ndarray  # (rows,) item of each row
    seed: int
    hidden: int  # size of the layer of an mlp

    def and_predict(
        self, train: np.ndarray, validation: np.ndarray, test: np.ndarray
    ) -> tuple[np.ndarray, float, ProbeHead | None]:
        """((test, classes) probabilities, the strength, epoch or k that validation chose, the head if it is one)."""
        if self.kind == "mlp":
            head, epoch = self._mlp(train, validation)
            return self._scores(partial(predict, head), test), float(epoch), head
        options: Sequence[float] = STRENGTHS if self.kind == "linear" else NEIGHBOURS
        best = options[len(options) // 2]  # when there are too few labels to validate anything
        if len(validation):
            values: list[float] = []
            for scores, _ in self._path(train, validation, options):
                values.append(_value(self.y[validation], scores))
                if len(values) > int(np.argmax(values)) + _PATIENCE:
                    break
            best = options[int(np.argmax(values))]
        scores, found = next(self._path(np.concatenate([train, validation]), test, [best]))
        return scores, float(best), found

    def on_all(self, chosen: float) -> ProbeHead | None:
        """A head fitted on every item."""
        everything = np.arange(len(self.y))
        if self.kind == "mlp":
            return self._mlp(everything, everything[:0], max(1, round(chosen)))[0]
        return next(self._path(everything, everything[:0], [chosen]))[1]

    def _path(
        self, train: np.ndarray, test: np.ndarray, options: Sequence[float]
    ) -> Iterator[tuple[np.ndarray, ProbeHead | None]]:
        """Scores of the test items at each strength or k."""
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
            epochs = EPOCHS if held is not None else _BLIND_EPOCHS
        return fit_mlp(*self._rows(train), self.names, held, self.seed, epochs, self.hidden)

    def _rows(self, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Features of all clips of some items, each with its item's label."""
        rows = np.flatnonzero(np.isin(self.owner, items))
        return self.x[rows], self.y[self.owner[rows]]

    def _scores(self, score: Callable[[np.ndarray], np.ndarray], items: np.ndarray) -> np.ndarray:
        rows = np.flatnonzero(np.isin(self.owner, items))
        return self._mean(score(self.x[rows]), rows, items)

    def _mean(self, scores: np.ndarray, rows: np.ndarray, items: np.ndarray) -> np.ndarray:
        """(items, classes): the mean over each item's clips."""
        place = np.full(len(self.y), -1)
        place[items] = np.arange(len(items))
        total = np.zeros((len(items), scores.shape[1]))
        np.add.at(total, place[self.owner[rows]], scores)
        return total / np.bincount(self.owner, minlength=len(self.y))[items][:, None]


def _value(targets: np.ndarray, scores: np.ndarray) -> float:
    """What validation maximises: balanced accuracy, or macro average precision for several labels an item."""
    if targets.ndim == 1:
        right = scores.argmax(axis=1) == targets
        return float(np.mean([right[targets == c].mean() for c in np.unique(targets)]))
    if not (targets.any(axis=0) & ~targets.all(axis=0)).any():
        raise InputError(
            "no class is there in some validation files and not in others, so that they can choose nothing; take more "
            "of them, or others (MusicNet: --option valid=0.3, --option seed=1)"
        )
    judged = ClassificationMetrics(targets, scores, [str(c) for c in range(scores.shape[1])])
    return judged.figures(np.ones(len(targets)))[0]["average_precision"]


def _check(
    features: np.ndarray, targets: np.ndarray, classes: Sequence[str] | None, kind: str, fraction: float, one_each: bool
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    if kind not in KINDS:
        raise InputError(f"no probe {kind!r}; there are {', '.join(KINDS)}")
    if not 0 < fraction <= 1:
        raise InputError(f"label_fraction must lie above 0 and at most be 1, got {fraction}")
    x, y = np.asarray(features, dtype=np.float32), np.asarray(targets)
    if x.ndim != 2 or y.ndim not in (1, 2) or (one_each and len(x) != len(y)):
        raise InputError(f"features (items, dim) and targets must fit, got {x.shape} and {y.shape}")
    if not np.isfinite(x).all():
        raise InputError(f"{int((~np.isfinite(x)).any(axis=1).sum())} of {len(x)} feature vectors hold NaN or infinity")
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
