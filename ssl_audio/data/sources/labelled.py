"""Sources whose labels come from elsewhere than a corpus: from the groups of another source, or from a list."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, ClassVar

import numpy as np
from torch.utils.data import Dataset

from ssl_audio import audio
from ssl_audio.data.corpora.base import split_groups
from ssl_audio.data.index import AudioEntry, AudioIndex, Group
from ssl_audio.data.int16 import AudioReader
from ssl_audio.data.sampler import EpochSampler
from ssl_audio.data.sources.base import Labels, Source


class GroupsAsClasses(Source):
    """Another source in which each group is a class, as the folders of `class/**/file` are.

    Files of one folder below the class stay on one side of the split, and files directly in it stand alone; validation
    gets `eval_frac` of them within each class, by seed and name.

    Args:
        source: folders or shards.
    """

    has_labels: ClassVar[bool] = True

    def __init__(self, source: Source) -> None:
        self.source = source
        self._labels: Labels | None = None

    def __str__(self) -> str:
        return str(self.source)

    def scan(self, progress: bool = True) -> AudioIndex:
        """The recordings, a group for each folder below a class."""
        index = self.source.scan(progress)
        classes = sorted({group.name for group in index.groups})
        number = {name: np.int64(i) for i, name in enumerate(classes)}
        targets = {entry.path: number[group.name] for group in index.groups for entry in group.entries}
        self._labels = Labels(targets, tuple(classes), multi_label=False)
        groups: dict[str, list[Group]] = defaultdict(list)
        for group in index.groups:
            for entry in group.entries:
                path = PurePath(os.path.relpath(entry.path, group.folder))
                part = path.parent if len(path.parts) > 2 else path
                groups[f"{group.key}/{part.as_posix()}"].append(group._replace(entries=(entry,)))
        merged = [
            parts[0]._replace(key=key, entries=tuple(entry for part in parts for entry in part.entries))
            for key, parts in sorted(groups.items())
        ]
        return AudioIndex(merged, index.left_out)

    def split(self, index: AudioIndex, eval_frac: float, seed: int) -> tuple[list[Group], list[Group]]:
        """(training, validation) groups, split within each class."""
        sides: dict[str, str] = {}
        for name in {group.name for group in index.groups}:
            keys = [group.key for group in index.groups if group.name == name]
            sides |= split_groups(keys, (1 - eval_frac, eval_frac, 0.0), seed)
        train, valid = ([g for g in index.groups if sides[g.key] == side] for side in ("train", "valid"))
        return train, valid

    def labels(self) -> Labels:
        assert self._labels is not None, "scan first"
        return self._labels

    def prepare(self) -> None:
        self.source.prepare()

    def problem(self, sample_rate: int, needs_all: str) -> str:
        return self.source.problem(sample_rate, needs_all)

    def find_copies(self, index: AudioIndex, sample_rate: int) -> tuple[AudioIndex, int]:
        return self.source.find_copies(index, sample_rate)

    def open(self, entry: AudioEntry) -> AudioReader:
        return self.source.open(entry)

    def sampler(self, dataset: Dataset, **arguments: Any) -> EpochSampler:
        return self.source.sampler(dataset, **arguments)

    def categories(self) -> Mapping[str, str] | None:
        return self.source.categories()


def with_labels(source: Source) -> Source:
    """The source, if it has labels; else with its groups as classes."""
    return source if source.has_labels else GroupsAsClasses(source)


class ListedFiles(Source):
    """Files with their targets and sides of the split, as a caller lists them.

    Args:
        paths: of all files.
        targets: (files,) class numbers, or (files, classes) of 0 and 1.
        classes: names, in the order of the targets.
        train, validation: positions in `paths`.
    """

    has_labels: ClassVar[bool] = True

    def __init__(
        self,
        paths: Sequence[str | os.PathLike],
        targets: np.ndarray,
        classes: Sequence[str],
        train: Sequence[int] | np.ndarray,
        validation: Sequence[int] | np.ndarray,
    ) -> None:
        multi_label = targets.ndim == 2
        values = targets.astype(np.float32 if multi_label else np.int64)
        names = [os.fspath(path) for path in paths]
        self._labels = Labels(dict(zip(names, values, strict=True)), tuple(classes), multi_label)
        self._sides = [[names[i] for i in positions] for positions in (train, validation)]

    def __str__(self) -> str:
        return "the listed files"

    def scan(self, progress: bool = True) -> AudioIndex:
        """The files of both sides, each a group. Raises AudioError: one of them cannot be read."""
        groups = []
        for side, paths in enumerate(self._sides):
            for path in paths:
                info = audio.info(path)
                groups.append(Group(path, path, side, (AudioEntry(path, info.frames, info.sample_rate),)))
        return AudioIndex(groups)

    def split(self, index: AudioIndex, eval_frac: float, seed: int) -> tuple[list[Group], list[Group]]:
        """As listed."""
        train, valid = ([group for group in index.groups if group.dataset == side] for side in (0, 1))
        return train, valid

    def labels(self) -> Labels:
        return self._labels
