"""Trials: pairs of recordings, labelled 1 when one singer is heard in both. Read, checked, generated, all pairs."""

import csv
import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.recordings import Recordings, unreadable_files
from ssl_audio.utils.files import write_text

KINDS = ("balanced", "within-gender", "within-song", "cross-song")
_Rule = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (pairs,) of recordings a and b -> (pairs,) bool
_ENUMERATED = 5_000_000  # pairs that are listed in memory before some are drawn
_NAMED = 5  # at most so many files in one error line


@dataclass(frozen=True)
class Trials:
    """A list of trials over a list of files.

    Attributes:
        files: names relative to the data set, forward slashes, each once.
        singers: (files,) who sings in each.
        pairs: (trials, 2) int, positions in `files`.
        labels: (trials,) bool, True for the same singer.
        lines: (trials,) line numbers in the list that was read, from 1; zeros for generated trials.
        name: where they came from, for messages.
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
        """((trials, 2) number of the singer on each side, the singers in the order of their numbers)."""
        names = sorted({self.singers[i] for i in np.unique(self.pairs)})  # a singer without trials tells nothing
        number = {name: i for i, name in enumerate(names)}
        return np.array([number.get(s, -1) for s in self.singers], dtype=np.int64)[self.pairs], names

    def of_one_file(self) -> np.ndarray:
        """(trials,) bool, True where a recording is paired with itself: its cosine is 1, whatever the model."""
        return self.pairs[:, 0] == self.pairs[:, 1]

    def same_singer_pairs(self) -> np.ndarray:
        """(pairs, 2), the trials of the same singer that pair two recordings; these are ranked."""
        return self.pairs[self.labels & ~self.of_one_file()]

    def note(self) -> str:
        """What to know about these trials, in a line; empty if there is nothing."""
        alone = int(self.of_one_file().sum())
        if not alone:
            return ""
        trials = "1 trial pairs" if alone == 1 else f"{alone} trials pair"
        return f"{self.name}: {trials} a recording with itself: scored, as in the published protocol, but not ranked"

    def text(self) -> str:
        """The published form, a line a trial: `label,singer/file,singer/file`; names with commas are quoted."""
        quoted = [f'"{n.replace(chr(34), chr(34) * 2)}"' if "," in n or n.startswith('"') else n for n in self.files]
        rows = zip(self.labels.tolist(), self.pairs.tolist(), strict=True)
        return "".join(f"{int(label)},{quoted[a]},{quoted[b]}\n" for label, (a, b) in rows)

    def digest(self) -> str:
        """SHA-256 of `text()`: the same trials in the same order, however they were stored."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def write(self, path: str | os.PathLike) -> None:
        write_text(path, self.text())


def read_trials(path: str | os.PathLike) -> Trials:
    """Read `label,singer/file,singer/file` lines; the folder before the first slash is the singer.

    A name that holds a comma must be quoted, as in any CSV. Empty lines are skipped. A recording may be paired with
    itself, as in a few lines of the published lists; `Trials.note` says how many there are.

    Raises:
        InputError: missing or empty list, or a malformed line, which is named by its number.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        remedy = "; ssl-audio pairs makes one" if isinstance(error, FileNotFoundError) else ""
        raise InputError(f"{path}: cannot read the trial list: {why}{remedy}") from error
    numbers: dict[str, int] = {}
    pairs, labels, used = [], [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        label, first, second = _parse(line, f"{path}, line {number}")
        pairs.append([numbers.setdefault(name, len(numbers)) for name in (first, second)])
        labels.append(label)
        used.append(number)
    if not labels:
        raise InputError(f"{path}: the trial list is empty")
    files = list(numbers)
    singers = [name.partition("/")[0] for name in files]
    return Trials(files, singers, np.array(pairs), np.array(labels), np.array(used), str(path))


def _parse(line: str, place: str) -> tuple[bool, str, str]:
    fields = next(csv.reader([line])) if '"' in line else line.split(",")
    fields = [field.strip() for field in fields]
    if len(fields) != 3:
        raise InputError(
            f"{place}: expected label,singer/file,singer/file (commas in names quoted), got {line.strip()!r}"
        )
    label, *names = fields
    if label not in ("0", "1"):
        raise InputError(f"{place}: the label must be 1 (same singer) or 0, got {label!r}")
    for name in names:
        if "/" not in name or set(name.split("/")) & {"", ".", ".."}:
            raise InputError(f"{place}: expected singer/file below the data set, got {name!r}")
    if (label == "1") != (names[0].partition("/")[0] == names[1].partition("/")[0]):
        raise InputError(f"{place}: label {label} contradicts the singers of {names[0]} and {names[1]}")
    return label == "1", names[0], names[1]


def check_decidable(trials: Trials) -> None:
    """InputError, with the remedy, unless error rates over singers can be computed from these trials."""
    singers = trials.singer_codes()[1]
    if len(singers) < 2:
        only = f"only one singer ({singers[0]})" if singers else "no trials"
        raise InputError(f"{trials.name}: {only}; telling singers apart needs recordings of at least two")
    if not len(trials.same_singer_pairs()):
        remedy = "lines with label 1 are needed too" if trials.lines.any() else "some singer needs two recordings"
        raise InputError(f"{trials.name}: no trial of the same singer; {remedy} (clips of one recording do not count)")
    if trials.labels.all():
        raise InputError(f"{trials.name}: every trial is of the same singer; error rates need lines with label 0 too")


def check_files(trials: Trials, root: str | os.PathLike, progress: bool = True) -> None:
    """Decode every file of the trials once, before anything expensive starts.

    Raises:
        InputError: names the lines of the list that hold missing or unreadable files, and why.
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
    """Draw trials, half of the same singer and half of different ones, each pair at most once, from the seed.

    Singers are drawn evenly, then their recordings, so that a singer with many files does not dominate. A same-singer
    trial never pairs two clips of one recording where that is known.

    Args:
        recordings: see `find_recordings`.
        count: trials wanted; when the set has fewer pairs of a class, both classes shrink to what there is.
        seed: of the draw.
        kind: "balanced"; "within-gender": different singers have one gender; "within-song": both sides of every trial
            sing one song, in different takes; "cross-song": both sides sing different songs.

    Raises:
        InputError: unknown kind, metadata that the kind needs is missing, or no pair of a class exists.
    """
    if kind not in KINDS:
        raise InputError(f"no kind of trials {kind!r}; there are {', '.join(KINDS)}")
    if count < 2:
        raise InputError(f"a list of trials needs at least 2, got {count}")
    rng = np.random.default_rng(seed)
    same = _draw(rng, recordings, count // 2, kind, same_singer=True)
    different = _draw(rng, recordings, count // 2, kind, same_singer=False)
    half = min(len(same), len(different))
    if not half:
        missing = "the same singer" if not len(same) else "different singers"
        raise InputError(
            f"{recordings.root}: no {kind} trial of {missing} is possible with these {len(recordings)} recordings; "
            "add some, or choose another kind of trials"
        )
    pairs = np.concatenate([same[:half], different[:half]])
    order = rng.permutation(2 * half)
    return _trials(recordings, pairs[order], np.repeat([True, False], half)[order])


def _draw(rng: np.random.Generator, recordings: Recordings, count: int, kind: str, same_singer: bool) -> np.ndarray:
    """(<= count, 2) distinct pairs of one class: random until they get scarce, then what is left of all of them."""
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
    """Vectorised test of which pairs (a, b) a kind of trial allows, beyond whether the singers are the same."""
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
    return lambda a, b: recording[a] != recording[b]


def all_pairs(recordings: Recordings, limit: int | None = None, seed: int = 0) -> Trials:
    """Every pair of two recordings except same-singer pairs of one recording.

    With a `limit`, at most so many, drawn from the seed, up to half of them (or more, if need be) of one singer.
    """
    singers, recording = _codes(recordings.singers), _codes(recordings.recording)
    members = [np.flatnonzero(singers == s) for s in range(singers.max() + 1)]
    same = np.concatenate([_pairs_among(m, recording[m]) for m in members])
    count = len(recordings)
    n_different = (count**2 - sum(len(m) ** 2 for m in members)) // 2
    if limit is None or len(same) + n_different <= max(limit, _ENUMERATED):
        different = _all_pairs(count, lambda a, b: singers[a] != singers[b])
    else:
        different = _draw_different(np.random.default_rng(seed), singers, limit)
    if limit is not None and len(same) + len(different) > limit:
        rng = np.random.default_rng(seed)
        n_same = min(len(same), max(limit // 2, limit - len(different)))
        same = same[np.sort(rng.permutation(len(same))[:n_same])]
        different = different[np.sort(rng.permutation(len(different))[: limit - n_same])]
    return _trials(recordings, np.concatenate([same, different]), np.repeat([True, False], [len(same), len(different)]))


def _draw_different(rng: np.random.Generator, singers: np.ndarray, count: int) -> np.ndarray:
    """(count, 2) distinct pairs of different singers, evenly over all such pairs; there must be many more of them."""
    found = np.empty(0, dtype=np.int64)
    while len(found) < count:
        a, b = np.sort(rng.integers(len(singers), size=(2, 2 * count)), axis=0)
        found = np.union1d(found, (a * len(singers) + b)[singers[a] != singers[b]])
    found = np.sort(rng.permutation(found)[:count])
    return np.stack([found // len(singers), found % len(singers)], axis=1)


def _pairs_among(members: np.ndarray, recording: np.ndarray) -> np.ndarray:
    """(pairs, 2) of the members, except pairs of one recording."""
    return members[_all_pairs(len(members), lambda a, b: recording[a] != recording[b])]


def _all_pairs(count: int, allowed: _Rule) -> np.ndarray:
    """(pairs, 2) of all a < b < count that are `allowed`, a row at a time."""
    rows = []
    for a in range(count - 1):
        b = np.arange(a + 1, count)
        b = b[allowed(np.full(len(b), a), b)]
        rows.append(np.stack([np.full(len(b), a), b], axis=1))
    return np.concatenate(rows) if rows else np.empty((0, 2), dtype=np.int64)


def _trials(recordings: Recordings, pairs: np.ndarray, labels: np.ndarray) -> Trials:
    """Trials over the recordings, files in their order there."""
    lines = np.zeros(len(labels), dtype=np.int64)
    return Trials(recordings.files, recordings.singers, pairs, labels, lines, str(recordings.root))


def _codes(values: Sequence[str]) -> np.ndarray:
    """(values,) one integer a distinct value."""
    return np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)[1]
