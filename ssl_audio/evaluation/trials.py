"""Trials: pairs of recordings with the label 1 for the same singer and 0 for different singers.

This module reads, checks, writes and generates lists of trials.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.recordings import Recordings, singer_of, unreadable_files
from ssl_audio.evaluation.trial_lists import FileNames, parse_trial
from ssl_audio.utils.files import write_text
from ssl_audio.utils.names import plain
from ssl_audio.utils.tables import read_lines

KINDS = ("balanced", "within-gender", "within-song", "cross-song")
_ENUMERATED = 5_000_000  # pairs listed in memory, at most; of more pairs, a random sample is drawn
_NAMED = 5  # files that an error message names, at most
_Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]  # which pairs (positions a, positions b) are allowed


@dataclass(frozen=True)
class Trials:
    """A list of trials over a list of files.

    Attributes:
        files: paths relative to the data set, with forward slashes, each once.
        singers: (files,) singer of each file.
        pairs: (trials, 2) int, positions in `files`.
        labels: (trials,) bool, True for the same singer.
        lines: (trials,) line numbers in the trial list, from 1; zeros for generated trials.
        name: source of the trials, for messages.
    """

    files: list[str]
    singers: list[str]
    pairs: np.ndarray
    labels: np.ndarray
    lines: np.ndarray
    name: str = "trials"

    def __len__(self) -> int:
        return len(self.labels)

    def singer_codes(self) -> tuple[np.ndarray, list[str]]:
        """Number the singers who are in a trial.

        Returns:
            (number of the singer on each side (trials, 2), names of the singers in the order of their numbers).
        """
        names = sorted({self.singers[i] for i in np.unique(self.pairs)})
        number = {name: i for i, name in enumerate(names)}
        return np.array([number.get(s, -1) for s in self.singers], dtype=np.int64)[self.pairs], names

    def of_one_file(self) -> np.ndarray:
        """(trials,) bool, True where a recording is paired with itself; the cosine of such a trial is always 1."""
        return self.pairs[:, 0] == self.pairs[:, 1]

    def same_singer_pairs(self) -> np.ndarray:
        """(pairs, 2) same-singer trials of two different recordings, which are the pairs of the ranks."""
        return self.pairs[self.labels & ~self.of_one_file()]

    def note(self) -> str:
        """A line about trials of one recording, for whoever reads the metrics; empty if there are none."""
        alone = int(self.of_one_file().sum())
        if not alone:
            return ""
        trials = "1 trial pairs" if alone == 1 else f"{alone} trials pair"
        return f"{self.name}: {trials} a recording with itself: scored, as in the published protocol, but not ranked"

    def text(self) -> str:
        """The trials in the published format, lines `label,singer/file,singer/file`; names with commas are quoted.

        Raises:
            InputError: a name holds a line break.
        """
        quoted = list(map(quoted_name, self.files))
        rows = zip(self.labels.tolist(), self.pairs.tolist(), strict=True)
        return "".join(f"{int(label)},{quoted[a]},{quoted[b]}\n" for label, (a, b) in rows)

    def digest(self) -> str:
        """SHA-256 of `text()`; equal for equal trials in the same order, however they were stored."""
        return hashlib.sha256(self.text().encode("utf-8", "surrogateescape")).hexdigest()

    def write(self, path: str | os.PathLike) -> None:
        """Write the trial list, atomically."""
        write_text(path, self.text())


def quoted_name(name: str) -> str:
    """A file name as it stands in a list of trials: in quotes if it holds a comma or begins with a quote.

    Raises:
        InputError: it holds a line break, which no list of lines can hold.
    """
    if "\n" in name or "\r" in name:
        raise InputError(f"{name!r}: a list of trials cannot hold a name with a line break; rename the file")
    return '"' + name.replace('"', '""') + '"' if "," in name or name.startswith('"') else name


def read_trials(path: str | os.PathLike, root: str | os.PathLike | None = None) -> Trials:
    """Read a trial list; the forms are in `evaluation.trial_lists`. The first folder of a path names the singer.

    A path with a comma must be quoted, as in any CSV file. Empty lines are skipped. A recording may be paired with
    itself, as in some lines of the published lists; `Trials.note` gives their number.

    Args:
        path: the list.
        root: the data set. Names that are spelled otherwise there (accents, encoding) become those of its files, and
            names that are no paths are looked up (see `FileNames`). None: every name is `singer/file`.

    Raises:
        InputError: the list is missing or empty, or a line is malformed; the message has the line number.
    """
    path = Path(path)
    try:
        lines = read_lines(path)
    except InputError as error:
        remedy = "" if path.exists() else "; ssl-audio pairs makes one"
        raise InputError(f"cannot read the list of trials: {error}{remedy}") from error
    spaced = all(", " in line for line in lines if line.strip())  # a blank after each comma belongs to no name
    names_there = FileNames(None if root is None else Path(root))
    numbers: dict[str, int] = {}
    found: dict[str, str] = {}  # name in the list -> path below the data set
    singers: dict[str, str] = {}
    pairs, labels, used = [], [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        same, *names = parse_trial(line, place, spaced)
        for name in names:
            if name not in found:
                found[name] = _checked(name, names_there, place)
                singers[name] = _singer(found[name])
        if same != (singers[names[0]] == singers[names[1]]):
            raise InputError(f"{place}: label {int(same)} contradicts the singers of {names[0]} and {names[1]}")
        pairs.append([numbers.setdefault(found[name], len(numbers)) for name in names])
        labels.append(same)
        used.append(number)
    if not labels:
        raise InputError(f"{path}: the trial list is empty")
    files = list(numbers)
    singers_of_files = [_singer(name) for name in files]
    return Trials(files, singers_of_files, np.array(pairs), np.array(labels), np.array(used), str(path))


def _singer(name: str) -> str:
    return plain(singer_of(name))


def _checked(name: str, files: FileNames, place: str) -> str:
    """The path of a name in a trial list, checked to lie below the data set."""
    try:
        path = name if set(name.split("/")) & {"", ".", ".."} else files.find(name)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if "/" not in path or set(path.split("/")) & {"", ".", ".."}:
        raise InputError(f"{place}: expected singer/file below the data set, or a file's id in it, got {name!r}")
    return path


def check_decidable(trials: Trials) -> None:
    """Check that error rates can be computed from the trials.

    Raises:
        InputError: the trials have fewer than two singers, no same-singer trial, or no different-singer trial.
    """
    singers = trials.singer_codes()[1]
    if len(singers) < 2:
        only = f"only one singer ({singers[0]})" if singers else "no trials"
        raise InputError(f"{trials.name}: {only}; verification needs recordings of at least two singers")
    if not len(trials.same_singer_pairs()):
        remedy = "add lines with label 1" if trials.lines.any() else "at least one singer needs two recordings"
        raise InputError(f"{trials.name}: no same-singer trial; {remedy} (two clips of one recording do not count)")
    if trials.labels.all():
        raise InputError(f"{trials.name}: every trial is a same-singer trial; add lines with label 0")


def check_files(trials: Trials, root: str | os.PathLike, progress: bool = True) -> None:
    """Decode every file of the trials once, before anything expensive starts.

    Raises:
        InputError: files are missing or unreadable; the message has their lines in the trial list and the reasons.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"{root}: no such data folder")
    bad = unreadable_files([root / name for name in trials.files], progress)
    if not bad:
        return
    found = []
    for i, name in enumerate(trials.files):
        if root / name in bad:
            lines = trials.lines[(trials.pairs == i).any(axis=1)]
            some = ", ".join(str(n) for n in lines[:_NAMED]) + (" ..." if len(lines) > _NAMED else "")
            found.append(f"line {some}: {name} {_sentence(bad[root / name])}")
    more = f"; and {len(found) - _NAMED} more files" if len(found) > _NAMED else ""
    raise InputError(f"{trials.name}: {'; '.join(found[:_NAMED])}{more} (looked in {root})")


def _sentence(reason: str) -> str:
    return "does not exist" if reason == "no such file" else reason


def generate_trials(recordings: Recordings, count: int, seed: int, kind: str = "balanced") -> Trials:
    """Draw random trials: half same-singer, half different-singer, each pair at most once.

    A singer is drawn first and then one of the singer's recordings, so that a singer with many files does not dominate.
    A same-singer trial never holds two clips of one recording, as far as the recordings are known.

    Args:
        recordings: see `find_recordings`.
        count: number of trials. If there are fewer pairs of a class, both classes get this smaller number.
        seed: of the random numbers.
        kind: the kind of trials:

            - "balanced": no further condition.
            - "within-gender": both sides of a different-singer trial have the same gender.
            - "within-song": both sides of every trial have the same song; a same-singer trial has two takes of it.
            - "cross-song": both sides of every trial have different songs.

    Raises:
        InputError: the kind is unknown, the metadata that it needs are missing, or a class has no pairs.
    """
    if kind not in KINDS:
        raise InputError(f"unknown kind of trials {kind!r}; choose one of {', '.join(KINDS)}")
    if count < 2:
        raise InputError(f"the number of trials must be at least 2, got {count}")
    rng = np.random.default_rng(seed)
    same = _draw(rng, recordings, count // 2, kind, same_singer=True)
    different = _draw(rng, recordings, count // 2, kind, same_singer=False)
    half = min(len(same), len(different))
    if not half:
        missing = "same-singer" if not len(same) else "different-singer"
        raise InputError(
            f"{recordings.root}: these {len(recordings)} recordings have no {missing} pair for {kind} trials; "
            "add recordings or choose another kind of trials"
        )
    pairs = np.concatenate([same[:half], different[:half]])
    order = rng.permutation(2 * half)
    return _trials(recordings, pairs[order], np.repeat([True, False], half)[order])


def _draw(rng: np.random.Generator, recordings: Recordings, count: int, kind: str, same_singer: bool) -> np.ndarray:
    """(at most `count`, 2) distinct random pairs of one class.

    If drawing does not find `count` pairs, the function lists all pairs and chooses among them.
    """
    singers = _codes(recordings.singers)
    allowed = _rule(recordings, kind, same_singer)
    order, sizes = np.argsort(singers, kind="stable"), np.bincount(singers)
    starts = np.cumsum(sizes) - sizes
    found: dict[tuple[int, int], None] = {}
    for _ in range(20):
        first = rng.integers(len(sizes), size=4 * count)
        second = first if same_singer else rng.integers(len(sizes), size=4 * count)
        a, b = (starts[side] + (rng.random(4 * count) * sizes[side]).astype(int) for side in (first, second))
        a, b = order[a], order[b]
        a, b = np.minimum(a, b), np.maximum(a, b)
        good = (a != b) & ((singers[a] == singers[b]) == same_singer) & allowed(a, b)
        found.update(dict.fromkeys(zip(a[good].tolist(), b[good].tolist(), strict=True)))
        if len(found) >= count:
            return np.array(list(found)[:count])
    everything = _all_pairs(len(recordings), lambda a, b: ((singers[a] == singers[b]) == same_singer) & allowed(a, b))
    return rng.permutation(everything)[:count]


def _rule(recordings: Recordings, kind: str, same_singer: bool) -> _Rule:
    """The condition of a kind of trials on a pair, apart from the condition on the singers."""
    recording = _codes(recordings.recording)
    if kind == "within-song":
        song, known = _codes(recordings.known("song")), np.array([bool(s) for s in recordings.known("song")])
        take = _codes(recordings.known("take"))
        return lambda a, b: (song[a] == song[b]) & known[a] & ((take[a] != take[b]) | (not same_singer))
    if kind == "cross-song":
        song, known = _codes(recordings.known("song")), np.array([bool(s) for s in recordings.known("song")])
        return lambda a, b: (song[a] != song[b]) & known[a] & known[b] & (recording[a] != recording[b])
    if kind == "within-gender" and not same_singer:
        gender, known = _codes(recordings.known("gender")), np.array([bool(g) for g in recordings.known("gender")])
        return lambda a, b: (gender[a] == gender[b]) & known[a]
    return _differs(recording)


def _differs(codes: np.ndarray) -> _Rule:
    """The condition that both sides of a pair have different codes."""
    return lambda a, b: codes[a] != codes[b]


def all_pairs(recordings: Recordings, limit: int | None = None, seed: int = 0) -> Trials:
    """Every pair of files, except two clips of one recording by the same singer.

    Args:
        recordings: see `find_recordings`.
        limit: maximum number of trials; of more pairs, a random sample is used. Half of the sample are same-singer
            trials; more if there are too few different-singer pairs, fewer if there are too few same-singer pairs.
        seed: of the sample.
    """
    singers, recording = _codes(recordings.singers), _codes(recordings.recording)
    members = [np.flatnonzero(singers == s) for s in range(singers.max() + 1)]
    same = np.concatenate([m[_all_pairs(len(m), _differs(recording[m]))] for m in members])
    count = len(recordings)
    n_different = (count**2 - sum(len(m) ** 2 for m in members)) // 2
    if limit is None or len(same) + n_different <= max(limit, _ENUMERATED):
        different = _all_pairs(count, _differs(singers))
    else:
        different = _draw_different(np.random.default_rng(seed), singers, limit)
    if limit is not None and len(same) + len(different) > limit:
        rng = np.random.default_rng(seed)
        n_same = min(len(same), max(limit // 2, limit - len(different)))
        same = same[np.sort(rng.permutation(len(same))[:n_same])]
        different = different[np.sort(rng.permutation(len(different))[: limit - n_same])]
    return _trials(recordings, np.concatenate([same, different]), np.repeat([True, False], [len(same), len(different)]))


def _draw_different(rng: np.random.Generator, singers: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) distinct different-singer pairs, uniform over all such pairs; there must be many more than `count`."""
    found = np.empty(0, dtype=np.int64)
    while len(found) < count:
        a, b = np.sort(rng.integers(len(singers), size=(2, 2 * count)), axis=0)
        found = np.union1d(found, (a * len(singers) + b)[singers[a] != singers[b]])
    found = np.sort(rng.permutation(found)[:count])
    return np.stack([found // len(singers), found % len(singers)], axis=1)


def _all_pairs(count: int, allowed: _Rule) -> np.ndarray:
    """(pairs, 2) all pairs a < b < count that are `allowed`."""
    rows = []
    for a in range(count - 1):
        b = np.arange(a + 1, count)
        b = b[allowed(np.full(len(b), a), b)]
        rows.append(np.stack([np.full(len(b), a), b], axis=1))
    return np.concatenate(rows) if rows else np.empty((0, 2), dtype=np.int64)


def _trials(recordings: Recordings, pairs: np.ndarray, labels: np.ndarray) -> Trials:
    """Trials over all files of the recordings, in their order."""
    lines = np.zeros(len(labels), dtype=np.int64)
    return Trials(recordings.files, recordings.singers, pairs, labels, lines, str(recordings.root))


def _codes(values: Sequence[str]) -> np.ndarray:
    """(values,) one integer per distinct value."""
    return np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)[1]
