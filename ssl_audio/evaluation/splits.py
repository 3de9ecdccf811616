"""Which items a probe learns from, which decide on it and which test it: given splits and folds, or made ones."""

from collections.abc import Sequence

import numpy as np

from ssl_audio.errors import InputError

SPLITS = ("train", "validation", "test")
_SAME_PART = {"training": "train", "valid": "validation", "val": "validation", "testing": "test"}


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


def splits_of(assigned: np.ndarray) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(train, validation, test) positions; an empty validation part is cut from training later."""
    words = [str(name).strip().lower() for name in assigned]
    part_of = {name: name for name in SPLITS} | _SAME_PART
    if any(word in part_of for word in words):  # as folds of a cross-validation they would train on the test items
        unknown = sorted({word for word in words if word not in part_of})
        if unknown or not any(part_of[word] == "test" for word in words):
            wrong = f"also holds {', '.join(map(repr, unknown))}" if unknown else "has no items marked test"
            raise InputError(
                f"the given split {wrong}; mark every item train, validation or test, or leave those of no part out"
            )
        named = np.array([part_of[word] for word in words])
        train, validation, test = (np.flatnonzero(named == name) for name in SPLITS)
        if not len(train):
            raise InputError("the given split has no items marked train")
        return [(train, validation, test)]
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


def check_known(splits: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], y: np.ndarray) -> None:
    """Raise InputError where no split has a class both in test and in what is learned from, as with other speakers."""
    for train, validation, test in splits:
        known = np.concatenate([train, validation])
        if y.ndim == 2 and (y[known].any(axis=0) & y[test].any(axis=0)).any():
            return
        if y.ndim == 1 and np.isin(y[test], y[known]).any():
            return
    raise InputError(
        "none of the test items' classes has an item to learn from, so none can be recognised; take another split "
        "(LibriSpeech: --option split=chapters)"
    )


def limit_labels(
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
