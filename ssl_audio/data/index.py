"""The recordings of data set folders in groups (singers), and their split.

Everything depends on the seed and the names, never on the order in which a file system lists them.
"""

import csv
import hashlib
import io
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

from ssl_audio.data.scan import FileFacts, scan_folder
from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_text
from ssl_audio.utils.names import printable

SHORTEST_SECONDS = 0.1


class FileCopy(NamedTuple):
    """The decoded copy of a recording in the store of its data set (see `ssl_audio.data.store`)."""

    path: str


class ShardSlice(NamedTuple):
    """A recording inside a shard (see `ssl_audio.data.shards`).

    Attributes:
        shard: position of its shard in the set.
        start: the byte of the shard at which its samples begin.
        scale: an integer times this is the sample.
    """

    shard: int
    start: int
    scale: float


class AudioEntry(NamedTuple):
    """One usable recording.

    Attributes:
        path: of its file; of a recording in shards, the path that it had in its data set, under the name of the shards.
        frames, sample_rate: the samples that can be decoded, at its own rate in Hz.
        version: its size and modification time (ns) when it was scanned.
        location: where its samples are read; None is its file.
    """

    path: str
    frames: int
    sample_rate: int
    version: tuple[int, int] = (0, 0)
    location: FileCopy | ShardSlice | None = None

    def samples(self, sample_rate: int) -> int:
        """Its length in samples at another rate, as `ssl_audio.audio` gives it."""
        return (2 * self.frames * sample_rate + self.sample_rate) // (2 * self.sample_rate)


class Group(NamedTuple):
    """The files of one singer, or one file alone (`group_by_artist=False`).

    Attributes:
        name: as in a batch's `group_name`.
        key: "<name of the data set's folder>/<path of the group in it>"; with the seed it decides the split.
        dataset: position of its folder in `dataset_dirs`.
        entries: its files, sorted by path.
        folder: of its data set.
    """

    name: str
    key: str
    dataset: int
    entries: tuple[AudioEntry, ...]
    folder: str = ""


class LeftOut(NamedTuple):
    """A file that is not used, and why."""

    path: str
    reason: str


class AudioIndex:
    """Usable files in groups, and what was left out. Made by `AudioIndex.scan`.

    Attributes:
        groups: sorted by data set, then by key.
        left_out: files that were found and are not used, with the reason.
    """

    def __init__(self, groups: Sequence[Group], left_out: Sequence[LeftOut] = ()) -> None:
        self.groups = list(groups)
        self.left_out = list(left_out)

    @classmethod
    def scan(
        cls,
        dataset_dirs: Sequence[str | os.PathLike],
        *,
        group_by_artist: bool = True,
        group_name_is_folder: bool = True,
        max_groups: int | None = None,
        seed: int = 0,
        workers: int | None = None,
        progress: bool = True,
    ) -> "AudioIndex":
        """Find the files of data sets laid out as `dataset/singer/**/file`.

        Args:
            dataset_dirs: folders, each a data set.
            group_by_artist: each first-level folder is a group. If False each file is a group of its own, also files
                directly in the data set's folder.
            group_name_is_folder: a group is named after its first-level folder, with the data set's name in front where
                two data sets have a folder of the same name. If False every group is named "unknown".
            max_groups: use at most so many groups of all data sets together.
            seed: decides which, for `max_groups`.
            workers, progress: see `scan_folder`.

        Raises:
            InputError: no folder given, one given twice, in another or missing, or one without any usable file.
        """
        if not dataset_dirs:
            raise InputError("dataset_dirs is empty; name at least one folder laid out as dataset/singer/file")
        if len({os.path.realpath(folder) for folder in dataset_dirs}) < len(dataset_dirs):
            raise InputError(f"dataset_dirs names a folder twice: {', '.join(map(str, dataset_dirs))}")
        for inner, outer in permutations([os.fspath(folder) for folder in dataset_dirs], 2):
            if Path(os.path.realpath(inner)).is_relative_to(os.path.realpath(outer)):
                raise InputError(
                    f"dataset_dirs: {inner} lies in {outer}, so its files would count twice; leave one out"
                )
        groups: list[Group] = []
        left_out: list[LeftOut] = []
        for number, folder in enumerate(os.fspath(folder) for folder in dataset_dirs):
            facts = scan_folder(folder, workers, progress)
            found, bad = _group(folder, number, facts, group_by_artist)
            if not found:
                raise InputError(_nothing_usable(folder, facts, bad))
            groups += found
            left_out += bad
        index = cls(groups, left_out).limited(max_groups, seed)
        index.groups = _named(index.groups, group_name_is_folder)
        return index

    def limited(self, max_groups: int | None, seed: int) -> "AudioIndex":
        """The index with at most so many groups; the seed and their names decide which."""
        if max_groups is None or max_groups >= len(self.groups):
            return self
        if max_groups < 1:
            raise InputError(f"max_groups is {max_groups}; it must be at least 1, or null for all groups")
        kept = set(
            sorted((_rank(seed, "max_groups", group.key), n) for n, group in enumerate(self.groups))[:max_groups]
        )
        chosen = {n for _, n in kept}
        return AudioIndex([group for n, group in enumerate(self.groups) if n in chosen], self.left_out)

    def at_least(self, samples: int, sample_rate: int) -> "AudioIndex":
        """The index without files shorter than so many samples at a rate; these become part of `left_out`."""
        groups, left_out = [], list(self.left_out)
        for group in self.groups:
            kept = []
            for entry in group.entries:
                if (length := entry.samples(sample_rate)) >= samples:
                    kept.append(entry)
                else:
                    reason = f"is shorter than the window: {length} of {samples} samples at {sample_rate} Hz"
                    left_out.append(LeftOut(entry.path, reason))
            if kept:
                groups.append(group._replace(entries=tuple(kept)))
        return AudioIndex(groups, left_out)

    def split(self, eval_frac: float, seed: int) -> tuple[list[Group], list[Group]]:
        """(training, validation) groups: of each data set, a fraction `eval_frac` (rounded) is for validation.

        The side of a group depends on the seed and the names alone, so it is the same on every machine. A data set with
        more than one group has at least one on each side.

        Raises:
            InputError: `eval_frac` is not in [0, 1).
        """
        if not 0 <= eval_frac < 1:
            raise InputError(f"eval_frac is {eval_frac}; it must be at least 0 and below 1 (0.2 keeps a fifth)")
        held_out: set[int] = set()
        for dataset in {group.dataset for group in self.groups}:
            drawn = sorted(
                (_rank(seed, "split", group.key), n) for n, group in enumerate(self.groups) if group.dataset == dataset
            )
            count = round(eval_frac * len(drawn)) if eval_frac else 0
            if eval_frac and len(drawn) > 1:
                count = min(max(count, 1), len(drawn) - 1)
            held_out.update(n for _, n in drawn[:count])
        train = [group for n, group in enumerate(self.groups) if n not in held_out]
        return train, [group for n, group in enumerate(self.groups) if n in held_out]

    def summary(self) -> str:
        """One line: how many files of how many groups, and what was left out for which reasons."""
        files = sum(len(group.entries) for group in self.groups)
        text = f"{files} files in {len(self.groups)} groups"
        if self.left_out:
            reasons = Counter(item.reason.split(":")[0].split(" (")[0] for item in self.left_out)
            listed = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common(4))
            text += f", {len(self.left_out)} left out ({listed}{'; ...' if len(reasons) > 4 else ''})"
        return text


def write_data_report(path: str | os.PathLike, left_out: Iterable[LeftOut]) -> None:
    """Write `data_report.csv`: columns path and reason, one row per file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(LeftOut._fields)
    writer.writerows((printable(item.path), item.reason) for item in left_out)
    write_text(path, text.getvalue())


def _group(
    folder: str, number: int, facts: Iterable[FileFacts], group_by_artist: bool
) -> tuple[list[Group], list[LeftOut]]:
    """Groups of one data set, sorted by name, and its unusable files."""
    dataset = Path(os.path.realpath(folder)).name
    entries: dict[str, list[tuple[str, AudioEntry]]] = {}
    left_out = []
    for fact in facts:
        path = os.path.join(folder, fact.path)
        singer, slash, _ = fact.path.partition("/")
        if fact.problem:
            left_out.append(LeftOut(path, fact.problem))
        elif fact.frames < SHORTEST_SECONDS * fact.sample_rate:
            left_out.append(LeftOut(path, f"is shorter than {SHORTEST_SECONDS} s"))
        elif group_by_artist and not slash:
            left_out.append(LeftOut(path, "lies in no singer's folder (group_by_artist: false takes such files)"))
        else:
            entry = AudioEntry(path, fact.frames, fact.sample_rate, (fact.size, fact.mtime_ns))
            entries.setdefault(singer if group_by_artist else fact.path, []).append((_normal(fact.path), entry))
    groups = []
    for name, members in entries.items():
        in_order = tuple(entry for _, entry in sorted(members))
        groups.append(Group(name.partition("/")[0], f"{_normal(dataset)}/{_normal(name)}", number, in_order, folder))
    return sorted(groups, key=lambda group: group.key), left_out


def _named(groups: list[Group], group_name_is_folder: bool) -> list[Group]:
    """The groups with the names that batches have."""
    if not group_name_is_folder:
        return [group._replace(name="unknown") for group in groups]
    homes: dict[str, set[int]] = {}
    for group in groups:
        homes.setdefault(group.name, set()).add(group.dataset)
    return [
        group._replace(name=f"{group.key.partition('/')[0]}/{group.name}") if len(homes[group.name]) > 1 else group
        for group in groups
    ]


def _nothing_usable(folder: str, facts: Sequence[FileFacts], left_out: Sequence[LeftOut]) -> str:
    if not facts:
        return f"{folder}: no audio files under this folder; it should be laid out as dataset/singer/file.wav"
    first = left_out[0]
    where = os.path.relpath(first.path, folder)
    return f"{folder}: none of its {len(facts)} audio files can be used; the first, {where}, {first.reason}"


def _normal(name: str) -> str:
    """A name in one Unicode form, because file systems store accents in different ones."""
    return unicodedata.normalize("NFC", name)


def _rank(seed: int, purpose: str, key: str) -> bytes:
    """Bytes that follow from seed and name alone, by which groups are put into a random order."""
    return hashlib.sha256(f"{seed}/{purpose}/{key}".encode("utf-8", "surrogateescape")).digest()
