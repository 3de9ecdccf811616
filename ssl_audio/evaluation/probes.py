"""Probes: what a simple classifier can read from frozen embeddings.

A linear probe is logistic regression (softmax for one label an item, a sigmoid a class for several) on features that
are standardised by the training items. Its L2 strength, like the k of the nearest-neighbour probe, is chosen on
validation items, which are never test items; then it is fitted again on training and validation items together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ssl_audio.errors import InputError
from ssl_audio.evaluation.classification import Classification, Judge
from ssl_audio.evaluation.recordings import Recordings

KINDS = ("linear", "knn")
STRENGTHS = (10.0, 1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)  # of the penalty on half the squared weights, strongest first
NEIGHBOURS = (50, 20, 10, 5, 3, 1)
SPLITS = ("train", "validation", "test")
_PATIENCE = 2  # strengths in a row without a better validation figure, after which weaker ones are not tried
_TEMPERATURE = 0.07  # of the neighbours' votes (Wu et al., CVPR 2018)


@dataclass(frozen=True)
class ProbeResult:
    """A probe's figures and how they came about.

    Attributes:
        kind: "linear" or "knn".
        figures: see `Classification`.
        classes: names of the classes, in the order of the columns of `scores` and of the confusion matrix.
        chosen: the strength or k that validation chose, one a fold.
        n_train, n_test: items; with folds, the mean size of the training part and all tested items.
        label_fraction, seed: as given.
        scores: (tested, classes) probabilities; `tested`: (tested,) positions of the items.
        notes: what was left out before, in words.
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
    folds: Sequence | None = None,
    groups: Sequence | None = None,
    kind: str = "linear",
    label_fraction: float = 1.0,
    seed: int = 0,
    n_folds: int = 5,
    draws: int = 200,
    progress: bool = False,
) -> ProbeResult:
    """Train a probe and test it on items it has not seen.

    Args:
        features: (items, dim) embeddings.
        targets: (items,) int class numbers, or (items, classes) bool.
        classes: names; default: the numbers.
        folds: (items,) given folds, each tested once by a probe trained on the others; or the words train, validation
            (or valid) and test for one fixed split. None: `n_folds` folds, stratified by class.
        groups: (items,) items of one group are never on two sides of a split, and are drawn together in the bootstrap.
        kind: "linear" or "knn".
        label_fraction: share of the training items whose labels may be used, drawn class by class from the seed, at
            least one (group) a class.
        seed: of folds, fraction and bootstrap.
        n_folds: when none are given.
        draws: of the bootstrap; 0 for no intervals.
        progress: show a bar.

    Raises:
        InputError: shapes that do not fit, NaN features, one class only, a split without training or test items.
    """
    x, y, names = _check(features, targets, classes, kind, label_fraction)
    group = np.unique(groups, return_inverse=True)[1] if groups is not None else np.arange(len(x))
    assigned = np.asarray(folds) if folds is not None else group_folds(y, group, n_folds, seed)
    if len(assigned) != len(x) or len(group) != len(x):
        raise InputError(f"{len(x)} items need as many folds and groups, got {len(assigned)} and {len(group)}")
    rng = np.random.default_rng(seed)
    scores = np.full((len(x), len(names)), np.nan)
    chosen, sizes, trained = [], [], np.zeros(len(names), dtype=bool)
    for train, validation, test in tqdm(_splits(assigned), f"{kind} probe", disable=not progress, leave=False, delay=2):
        train, validation = _limit(train, validation, y, group, label_fraction, rng)
        scores[test], best = _fit_and_predict(kind, x, y, train, validation, test, len(names))
        chosen.append(best)
        known = np.concatenate([train, validation])
        sizes.append(len(known))
        trained |= y[known].any(axis=0) if y.ndim == 2 else np.bincount(y[known], minlength=len(names)) > 0
    tested = np.flatnonzero(np.isfinite(scores[:, 0]))
    judge = Judge(y[tested], scores[tested], names, trained)
    figures = judge.judge(group[tested], draws, seed)
    return ProbeResult(
        kind=kind,
        figures=figures,
        classes=names,
        chosen=chosen,
        n_train=round(float(np.mean(sizes))),
        n_test=len(tested),
        label_fraction=label_fraction,
        seed=seed,
        scores=scores[tested],
        tested=tested,
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
    return ProbeResult(**{**result.__dict__, "tested": kept[result.tested], "notes": notes})


def group_folds(targets: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """(items,) fold numbers: the groups of each class, shuffled, are dealt to the folds in turn."""
    if n_folds < 2:
        raise InputError(f"cross-validation needs at least 2 folds, got {n_folds}")
    rng = np.random.default_rng(seed)
    of_item = targets if targets.ndim == 1 else targets.argmax(axis=1)
    first = np.unique(groups, return_index=True)[1]
    class_of_group = of_item[first]
    fold_of_group = np.empty(len(first), dtype=np.int64)
    dealt = int(rng.integers(n_folds))
    for c in np.unique(class_of_group):
        members = rng.permutation(np.flatnonzero(class_of_group == c))
        fold_of_group[members] = (dealt + np.arange(len(members))) % n_folds
        dealt += len(members)
    return fold_of_group[groups]


def _splits(assigned: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(train, validation, test) positions; an empty validation part is cut from training later."""
    words = {str(name).lower() for name in np.unique(assigned)}
    if words <= {*SPLITS, "valid", "val"} and "test" in words:
        named = np.array(
            [{"valid": "validation", "val": "validation"}.get(str(w).lower(), str(w).lower()) for w in assigned]
        )
        parts = tuple(np.flatnonzero(named == name) for name in SPLITS)
        if not len(parts[0]):
            raise InputError("the given split has no items marked train")
        return [parts]  # type: ignore[list-item]
    names = sorted(np.unique(assigned).tolist(), key=str)
    if len(names) < 2:
        raise InputError(f"all items are in one fold ({names[0]!r}); a probe needs at least two")
    places = [np.flatnonzero(assigned == name) for name in names]
    found = []
    for i, test in enumerate(places):
        others = [place for j, place in enumerate(places) if j != i]
        following = others.pop(i % len(others)) if len(others) > 1 else np.empty(0, dtype=np.int64)
        found.append((np.concatenate(others), following, test))
    return found


def _limit(
    train: np.ndarray,
    validation: np.ndarray,
    y: np.ndarray,
    groups: np.ndarray,
    fraction: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Keep a fraction of the labels, then make sure that there is a validation part where that is possible."""
    if fraction < 1:
        known = np.concatenate([train, validation])
        kept = _some_groups(known, y, groups, fraction, rng)
        train, validation = train[np.isin(train, kept)], validation[np.isin(validation, kept)]
        if not len(train) or not _covers(y, train, kept):
            train, validation = kept, np.empty(0, dtype=np.int64)
    if not len(validation):
        part = _some_groups(train, y, groups, 0.8, rng)
        if len(part) < len(train):
            train, validation = part, np.setdiff1d(train, part)
    return train, validation


def _covers(y: np.ndarray, part: np.ndarray, whole: np.ndarray) -> bool:
    """Whether every class of the whole occurs in the part."""
    if y.ndim == 2:
        return bool((y[part].any(axis=0) == y[whole].any(axis=0)).all())
    return len(np.unique(y[part])) == len(np.unique(y[whole]))


def _some_groups(
    items: np.ndarray, y: np.ndarray, groups: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Items of about `fraction` of the groups of each class, at least one group a class, sorted."""
    of_item = y[items] if y.ndim == 1 else y[items].argmax(axis=1)
    kept: set[int] = set()
    for c in np.unique(of_item):
        own = rng.permutation(np.unique(groups[items[of_item == c]]))
        kept.update(own[: max(1, round(fraction * len(own)))].tolist())
    return np.sort(items[np.isin(groups[items], list(kept))])


def _fit_and_predict(
    kind: str, x: np.ndarray, y: np.ndarray, train: np.ndarray, validation: np.ndarray, test: np.ndarray, n_classes: int
) -> tuple[np.ndarray, float]:
    """((test, classes) probabilities, the strength or k that validation chose)."""
    options: Sequence[float] = STRENGTHS if kind == "linear" else NEIGHBOURS
    predict = _linear if kind == "linear" else _nearest
    best = options[len(options) // 2]  # when there are too few labels to validate anything
    if len(validation):
        values: list[float] = []
        for option_scores in predict(x, y, train, validation, n_classes, options):
            values.append(_value(y[validation], option_scores))
            if len(values) > int(np.argmax(values)) + _PATIENCE:
                break
        best = options[int(np.argmax(values))]
    known = np.concatenate([train, validation])
    scores = next(predict(x, y, known, test, n_classes, [best]))
    return scores, float(best)


def _value(targets: np.ndarray, scores: np.ndarray) -> float:
    """What validation maximises: balanced accuracy, or macro average precision for several labels an item."""
    if targets.ndim == 1:
        right = scores.argmax(axis=1) == targets
        return float(np.mean([right[targets == c].mean() for c in np.unique(targets)]))
    judged = Judge(targets, scores, [str(c) for c in range(scores.shape[1])])
    return judged.figures(np.ones(len(targets)))[0]["average_precision"]


def _linear(
    x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, n_classes: int, strengths: Sequence[float]
) -> Iterator[np.ndarray]:
    """Probabilities of the test items at each strength; each fit starts from the one before."""
    mean, deviation = x[train].mean(axis=0), x[train].std(axis=0)
    scale = np.where(deviation > 1e-8 * np.abs(mean) + 1e-12, deviation, np.inf)  # a constant dimension says nothing
    a, b = (torch.from_numpy((x[part] - mean) / scale).float() for part in (train, test))
    t = torch.from_numpy(y[train])
    targets = t.float() if y.ndim == 2 else t.long()
    weight = torch.zeros(a.shape[1], n_classes, requires_grad=True)
    bias = torch.zeros(n_classes, requires_grad=True)
    for strength in strengths:
        _minimise(a, targets, weight, bias, strength)
        logits = (b @ weight + bias).detach()
        yield (logits.sigmoid() if y.ndim == 2 else logits.softmax(dim=1)).numpy().astype(np.float64)


def _minimise(
    a: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, strength: float
) -> None:
    """Mean log loss + strength / 2 * squared weights, by L-BFGS; the bias is free, as in scikit-learn."""
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=100, history_size=10, tolerance_grad=1e-4, tolerance_change=1e-7,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = torch.addmm(bias, a, weight)
        if targets.ndim == 2:
            loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(a)
        else:
            loss = F.cross_entropy(logits, targets)
        loss = loss + strength / 2 * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)


def _nearest(
    x: np.ndarray, y: np.ndarray, train: np.ndarray, test: np.ndarray, n_classes: int, counts: Sequence[float]
) -> Iterator[np.ndarray]:
    """Probabilities of the test items by votes of the k nearest training items by cosine, closer ones weighing more."""
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    truth = y[train].astype(np.float32) if y.ndim == 2 else np.eye(n_classes, dtype=np.float32)[y[train]]
    most = min(int(max(counts)), len(train))
    results = [np.empty((len(test), n_classes)) for _ in counts]
    for first in range(0, len(test), 1024):
        rows = test[first : first + 1024]
        similar = unit[rows] @ unit[train].T
        nearest = np.argpartition(-similar, most - 1, axis=1)[:, :most]
        nearest = np.take_along_axis(nearest, np.argsort(-np.take_along_axis(similar, nearest, 1), axis=1), 1)
        votes = np.exp((np.take_along_axis(similar, nearest, 1) - 1) / _TEMPERATURE)
        for result, k in zip(results, counts, strict=True):
            k = min(int(k), most)
            weights = votes[:, :k] / votes[:, :k].sum(axis=1, keepdims=True)
            result[first : first + 1024] = np.einsum("nk,nkc->nc", weights, truth[nearest[:, :k]])
    yield from results


def _check(
    features: np.ndarray, targets: np.ndarray, classes: Sequence[str] | None, kind: str, fraction: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    if kind not in KINDS:
        raise InputError(f"no probe {kind!r}; there are {' and '.join(KINDS)}")
    if not 0 < fraction <= 1:
        raise InputError(f"label_fraction must lie above 0 and at most be 1, got {fraction}")
    x, y = np.asarray(features, dtype=np.float32), np.asarray(targets)
    if x.ndim != 2 or y.ndim not in (1, 2) or len(x) != len(y):
        raise InputError(f"features (items, dim) and targets must fit, got {x.shape} and {y.shape}")
    if not np.isfinite(x).all():
        raise InputError(f"{int((~np.isfinite(x)).any(axis=1).sum())} of {len(x)} feature vectors hold NaN or infinity")
    y = y.astype(bool) if y.ndim == 2 else y.astype(np.int64)
    count = y.shape[1] if y.ndim == 2 else int(y.max()) + 1
    names = [str(c) for c in range(count)] if classes is None else list(classes)
    if len(names) < max(count, 2) or (y.ndim == 2 and len(names) != count):
        raise InputError(f"targets have {count} classes and there are {len(names)} names; a probe needs at least two")
    return x, y, names
