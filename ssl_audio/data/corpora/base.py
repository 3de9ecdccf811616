"""`Corpus` and `Track`, which all readers return, and what the readers share."""

import ast
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.utils import tables

SPLITS = ("train", "valid", "test")

Missing = Literal["error", "skip"]
"""Where a listed track has no audio: "error" refuses the corpus, "skip" leaves the track out (`Corpus.left_out`)."""


@dataclass(frozen=True)
class Track:
    """One recording.

    Attributes:
        id: as in the corpus.
        path: of the audio file.
        split: train, valid or test.
        labels: names, some of the corpus's `label_names`; possibly none in a multi-label corpus.
        group: artist or speaker; tracks of one group must be on one side of a split.
        fold: the official fold in a corpus for cross-validation, else "". `split` then follows from the tested fold: it
            is test, the fold before it valid (before the first: the last), the others are train.
    """

    id: str
    path: Path
    split: str
    labels: tuple[str, ...]
    group: str
    fold: str = ""


@dataclass(frozen=True)
class Corpus:
    """Tracks under one official split.

    Attributes:
        name, split_name: which corpus, which of its splits; results on different splits cannot be compared.
        label_names: all labels, in the order of the columns of `targets`.
        multi_label: a track has any number of labels (tags); if False exactly one (genre, speaker).
        left_out: ids of tracks without audio, under `missing="skip"`.
    """

    name: str
    split_name: str
    tracks: tuple[Track, ...]
    label_names: tuple[str, ...]
    multi_label: bool
    left_out: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        known = set(self.label_names)
        for track in self.tracks:
            unknown = set(track.labels) - known
            if unknown or track.split not in SPLITS or (not self.multi_label and len(track.labels) != 1):
                raise InputError(
                    f"{self.name}: track {track.id} has the labels {track.labels} and split {track.split!r}"
                )
        ids = [track.id for track in self.tracks]
        if len(set(ids)) < len(ids):
            twice = next(track_id for track_id in ids if ids.count(track_id) > 1)
            raise InputError(f"{self.name}: track {twice} is listed twice, so its split is not clear; check the lists")

    def split(self, name: str) -> list[Track]:
        """The tracks of train, valid or test."""
        if name not in SPLITS:
            raise InputError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        return [track for track in self.tracks if track.split == name]

    def targets(self, tracks: Sequence[Track], label_names: Sequence[str] | None = None) -> np.ndarray:
        """`(tracks, labels)` float32 of 0 and 1.

        Args:
            label_names: the same names in another order of columns, such as a model's.
        """
        names = self.label_names if label_names is None else tuple(label_names)
        if set(names) != set(self.label_names):
            odd = sorted(set(names) ^ set(self.label_names))
            raise InputError(f"{self.name} and the given labels differ in: {', '.join(odd[:5])}")
        column = {name: i for i, name in enumerate(names)}
        result = np.zeros((len(tracks), len(names)), np.float32)
        for row, track in enumerate(tracks):
            result[row, [column[label] for label in track.labels]] = 1
        return result

    def artist_filtered(self) -> "Corpus":
        """Without the valid and test tracks whose group is in train, and the valid tracks whose group is in test."""
        groups = {name: {track.group for track in self.split(name)} for name in SPLITS}
        shared = {"train": set(), "valid": groups["train"] | groups["test"], "test": groups["train"]}
        return replace(self, tracks=tuple(track for track in self.tracks if track.group not in shared[track.split]))

    def random_split(self, seed: int = 777, test: float = 0.25) -> "Corpus":
        """A random split instead of the official one: stratified by label, a fraction `test` for test, nothing valid.

        Some systems were evaluated like this (WaveBYOL: 75/25, seed 777). Clips of one recording or speaker fall on
        both sides, so results are too good and cannot be compared with those on official splits.
        """
        from sklearn.model_selection import train_test_split

        labels = None if self.multi_label else [track.labels[0] for track in self.tracks]
        try:
            _, held = train_test_split(range(len(self.tracks)), test_size=test, random_state=seed, stratify=labels)
        except ValueError as error:
            raise InputError(f"{self.name} cannot be split at random within labels: {error}") from error
        chosen = set(held)
        tracks = tuple(
            replace(track, split="test" if i in chosen else "train", fold="") for i, track in enumerate(self.tracks)
        )
        return replace(self, tracks=tracks, split_name=f"random {1 - test:.0%}/{test:.0%}, seed {seed}")


def split_of_fold(fold: str, folds: Sequence[str], tested: str) -> str:
    """The split of a fold: test if it is the tested one, valid if it is the one before that, else train.

    Raises:
        InputError: there is no such fold to test.
    """
    if tested not in folds:
        raise InputError(f"there is no fold {tested!r} to test; there are {', '.join(folds)}")
    valid = folds[folds.index(tested) - 1]
    return "test" if fold == tested else "valid" if fold == valid else "train"


def named(names: Sequence[str] | str) -> list[str]:
    """A list of names, from a list or from a single name."""
    return [names] if isinstance(names, str) else list(names)


def split_groups(names: Sequence[str], fractions: Sequence[float], seed: int) -> dict[str, str]:
    """{group: split}, from seed and names alone, so that a new group moves few others.

    Args:
        fractions: of the groups for train, valid and test, adding up to 1. The numbers of valid and test are rounded,
            and at least 1 where the fraction is not 0, as long as train keeps 1.

    Raises:
        InputError: fractions that do not add up to 1.
    """
    given = list(fractions) if isinstance(fractions, Sequence) else [fractions]
    numbers = all(isinstance(fraction, (int, float)) for fraction in given)
    if len(given) != 3 or not numbers or min(given) < 0 or abs(sum(given) - 1) > 1e-6:
        raise InputError(f"fractions are {given}; give train, valid and test, adding up to 1, such as [0.8, 0.1, 0.1]")
    order = sorted(set(names), key=lambda name: hashlib.blake2b(f"{seed}/{name}".encode(errors="replace")).digest())
    test = min(max(round(fractions[2] * len(order)), int(fractions[2] > 0)), len(order) - 1)
    valid = min(max(round(fractions[1] * len(order)), int(fractions[1] > 0)), len(order) - 1 - test)
    parts = [SPLITS[2]] * test + [SPLITS[1]] * valid + [SPLITS[0]] * (len(order) - test - valid)
    return dict(zip(order, parts, strict=True))


def make_corpus(
    name: str,
    split_name: str,
    tracks: Sequence[Track],
    label_names: Sequence[str],
    *,
    multi_label: bool,
    missing: Missing = "error",
    audio_from: str,
) -> Corpus:
    """A corpus, after checking that its audio files are there.

    Args:
        audio_from: for the message: where the audio comes from and where it belongs.

    Raises:
        InputError: audio is missing (with "skip": all of it), or labels and splits are inconsistent.
    """
    if missing not in ("error", "skip"):
        raise InputError(f"missing is {missing!r}; it must be 'error' or 'skip'")
    present = {track.path for track in tracks if _has_content(track.path)}
    absent = [track for track in tracks if track.path not in present]
    if absent and (missing == "error" or len(absent) == len(tracks)):
        examples = ", ".join(str(track.path) for track in absent[:3])
        skip = "" if len(absent) == len(tracks) else "; missing=skip leaves them out (probe: --option missing=skip)"
        raise InputError(
            f"{name}: {len(absent)} of {len(tracks)} audio files are missing, such as {examples}; {audio_from}{skip}"
        )
    if not tracks:
        raise InputError(f"{name}: no track is left under these settings")
    kept = tuple(track for track in tracks if track.path in present)
    return Corpus(name, split_name, kept, tuple(label_names), multi_label, tuple(track.id for track in absent))


def _has_content(path: Path) -> bool:
    try:
        return path.stat().st_size > 0  # some archives hold empty files
    except OSError:
        return False


def require(name: str, root: str | os.PathLike, files: Mapping[str, str]) -> Path:
    """Check that the corpus's lists and tables are there; returns the folder.

    Args:
        files: path under `root` -> where it comes from.

    Raises:
        InputError: names every missing file, where to put it and where to get it.
    """
    root = Path(root)
    absent = [f"{root / file} (from {source})" for file, source in files.items() if not (root / file).exists()]
    if absent:
        raise InputError(f"{name}: put these files there: {'; '.join(absent)}")
    return root


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """The two columns of a tab-separated list, as text.

    Raises:
        InputError: a line without exactly one tab.
    """
    pairs = []
    for number, line in enumerate(tables.read_lines(path), 1):
        if line.strip():
            first, tab, second = line.partition("\t")
            if not tab or "\t" in second:
                raise InputError(f"{path}, line {number}: expected two columns with a tab between them")
            pairs.append((first.strip(), second.strip()))
    return pairs


def read_table(path: Path, columns: Sequence[str], separator: str | None = None) -> list[dict[str, str]]:
    """The rows of a table with a header that has these columns among others.

    Raises:
        InputError: no rows, a missing column, a row cut short.
    """
    rows = tables.read_table(path, columns, separator).rows
    if not rows:
        raise InputError(f"{path}: has no rows")
    return rows


def numbered_folds(rows: Sequence[Mapping[str, str]], path: Path) -> list[str]:
    """The folds of a table's column `fold`, in the order of their numbers.

    Raises:
        InputError: a fold is not a number.
    """
    folds = {row["fold"] for row in rows}
    if odd := sorted(fold for fold in folds if not fold.strip().isdecimal()):
        raise InputError(f"{path}: its column fold holds {odd[0]!r}; folds are whole numbers, such as 1")
    return sorted(folds, key=int)


def literal_list(text: str, where: str) -> list:
    """A list written as in Python, such as `[0, 1.0]` or `['a', 'b']`; read as data, never run."""
    try:
        value = json.loads(text)  # numbers; twenty times quicker than the literal, for 240,000 lines
    except ValueError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise InputError(f"{where}: is not a list") from error
    if not isinstance(value, list):
        raise InputError(f"{where}: is not a list")
    return value


def chosen_labels(vector: Sequence, label_names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names at which a vector of 0 and 1 has a 1. Raises InputError if it has another length or other values."""
    if len(vector) != len(label_names) or any(value not in (0, 1) for value in vector):
        raise InputError(f"{where}: expected {len(label_names)} values of 0 or 1, got {len(vector)}")
    return tuple(name for name, value in zip(label_names, vector, strict=True) if value)
