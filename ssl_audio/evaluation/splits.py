"""Training, validation and test items of a probe, from given splits or folds or from random ones."""

from collections.abc import Sequence

import numpy as np

from ssl_audio.errors import InputError

SPLITS = ("train", "validation", "test")
_SAME_PART = {"training": "train", "valid": "validation", "val": "validation", "testing": "test"}


def group_folds(targets: np.ndarray, groups: np.ndarray, n_folds: int, seed: int) -> np.ndarray:
    """Assign items to random folds, group by group, stratified by class.

    Args:
        targets: (items,) int class numbers, or (items, classes) bool.
        groups: (items,) int; items of one group get the same fold.
        n_folds: number of folds.
        seed: of the order of the groups.

    Returns:
        (items,) fold numbers.

    Raises:
        InputError: fewer than two folds.
    """
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
    """Splits of the given fold names or split names.

    Args:
        assigned: (items,) `train`, `validation` (or `valid`, `val`) and `test` for one fixed split; any other names are
            folds of a cross-validation, each tested once. The fold after the tested one is the validation part; with
            two folds there is none.

    Returns:
        (train, validation, test) positions of every split. A validation part may be empty; `limit_labels` then takes
        one from the training part.

    Raises:
        InputError: a fixed split has other names too, or no training or no test items; or there is only one fold.
    """
    words = [str(name).strip().lower() for name in assigned]
    part_of = {name: name for name in SPLITS} | _SAME_PART
    if any(word in part_of for word in words):  # as folds of a cross-validation, they would train on the test items
        unknown = sorted({word for word in words if word not in part_of})
        if unknown or not any(part_of[word] == "test" for word in words):
            wrong = f"also holds {', '.join(map(repr, unknown))}" if unknown else "has no items marked test"
            raise InputError(
                f"the given split {wrong}; mark every item train, validation or test, or remove the other items"
            )
        named = np.array([part_of[word] for word in words])
        train, validation, test = (np.flatnonzero(named == name) for name in SPLITS)
        if not len(train):
            raise InputError("the given split has no items marked train; mark some")
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
    """Check that some split can recognise at least one test class.

    Args:
        splits: (train, validation, test) positions.
        y: (items,) int class numbers, or (items, classes) bool.

    Raises:
        InputError: in every split, all classes of the test items are missing from the training and validation items.
            This happens for example if the classes are speakers and the split is by speaker.
    """
    for train, validation, test in splits:
        known = np.concatenate([train, validation])
        if y.ndim == 2 and (y[known].any(axis=0) & y[test].any(axis=0)).any():
            return
        if y.ndim == 1 and np.isin(y[test], y[known]).any():
            return
    raise InputError(
        "no class of the test items has training items, so none can be recognised; take another split "
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
    """Keep a fraction of the labels, and take validation items from the training part if there are none.

    Args:
        train: positions of the training items.
        validation: positions of the validation items; may be empty.
        y: (items,) int class numbers, or (items, classes) bool.
        groups: (items,) int; groups are kept or removed as a whole.
        fraction: fraction of the groups of each class to keep; at least one group per class is kept.
        rng: chooses the groups.

    Returns:
        (train, validation). The validation part is empty if there are too few groups to take one.
    """
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
    """Whether every class of the items `whole` occurs in the items `part`."""
    if y.ndim == 2:
        return bool((y[part].any(axis=0) == y[whole].any(axis=0)).all())
    return len(np.unique(y[part])) == len(np.unique(y[whole]))


def _some_groups(
    items: np.ndarray, y: np.ndarray, groups: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    """Items of about `fraction` of the groups of each class, sorted; at least one group per class."""
    of_item = y[items] if y.ndim == 1 else y[items].argmax(axis=1)
    kept: set[int] = set()
    for c in np.unique(of_item):
        own = rng.permutation(np.unique(groups[items[of_item == c]]))
        kept.update(own[: max(1, round(fraction * len(own)))].tolist())
    return np.sort(items[np.isin(groups[items], list(kept))])
