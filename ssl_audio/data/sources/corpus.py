"""A named corpus as a source: the recordings of its official training and validation tracks, with their labels."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ssl_audio.data.corpora import Corpus, load
from ssl_audio.data.index import SHORTEST_SECONDS, AudioEntry, AudioIndex, Group, LeftOut
from ssl_audio.data.scan import scan_folder
from ssl_audio.data.sources.base import Labels, Source
from ssl_audio.data.sources.folders import Folders, check_max_groups, current_copies, make_copies
from ssl_audio.errors import InputError

_TRAIN, _VALID = 0, 1  # `Group.dataset` of the groups of each split


class NamedCorpus(Source):
    """The corpus that a config names, such as `{name: fma, subset: small}`; its test tracks are never read.

    Training takes the official training tracks and validation the official validation tracks. Where a corpus has no
    validation tracks, or `eval_frac` is 0, the groups of all these tracks are split as those of folders are.

    Args:
        dataset_dirs: the corpus's one folder.
        corpus: the name, and arguments of its reader.
        by_group: files of one artist or speaker are one group; if False each file is a group of its own.
        max_groups, seed: use at most so many groups, drawn by the seed.
        store, copy_at: see `Folders`.

    Raises:
        InputError: not one folder, or no name of a corpus.
    """

    has_labels: ClassVar[bool] = True

    def __init__(
        self,
        dataset_dirs: Sequence[str] | str | None,
        corpus: Mapping[str, Any],
        by_group: bool = True,
        max_groups: int | None = None,
        seed: int = 0,
        store: str | None = None,
        copy_at: int | None = None,
    ) -> None:
        dirs = [dataset_dirs] if isinstance(dataset_dirs, str) else list(dataset_dirs or ())
        if len(dirs) != 1:
            named = ", ".join(dirs) or "none"
            raise InputError(f"data.dataset_dirs must name one folder, that of the corpus, and names {named}")
        if "name" not in corpus:
            raise InputError("data.corpus has no name; write corpus: {name: fma}, with the options of its reader")
        check_max_groups(max_groups)
        self.folder = dirs[0]
        self.spec = dict(corpus)
        self.by_group = by_group
        self.max_groups = max_groups
        self.seed = seed
        self.store = store
        self.copy_at = copy_at

    def __str__(self) -> str:
        return self.folder

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus, read once. Raises InputError: see `ssl_audio.data.corpora.load`."""
        options = dict(self.spec)
        return load(options.pop("name"), self.folder, **options)

    def scan(self, progress: bool = True) -> AudioIndex:
        """The usable recordings of training and validation tracks. Raises InputError: none of them can be used."""
        return index_of(self.folder, self.corpus, self.by_group, progress).limited(self.max_groups, self.seed)

    def prepare(self) -> None:
        """Scan once a machine, and bring the copies up to date; where they cannot be written, warn."""
        self.scan()
        if self.copy_at is not None:
            make_copies(self.folder, self.copy_at, self.store)

    def find_copies(self, index: AudioIndex, sample_rate: int) -> tuple[AudioIndex, int]:
        """See `current_copies`."""
        return current_copies(index, [self.folder], sample_rate, self.store)

    def split(self, index: AudioIndex, eval_frac: float, seed: int) -> tuple[list[Group], list[Group]]:
        """The official split, or by seed and name; see the class."""
        train, valid = ([g for g in index.groups if g.dataset == side] for side in (_TRAIN, _VALID))
        return (train, valid) if valid and eval_frac else index.split(eval_frac, seed)

    def labels(self) -> Labels:
        """The labels of all tracks."""
        return self._labels

    @cached_property
    def _labels(self) -> Labels:
        corpus = self.corpus
        targets = corpus.targets(corpus.tracks)
        values = targets if corpus.multi_label else targets.argmax(axis=1).astype(np.int64)
        paths = [str(track.path) for track in corpus.tracks]
        return Labels(dict(zip(paths, values, strict=True)), tuple(corpus.label_names), corpus.multi_label)


def folders_or_corpus(
    dataset_dirs: Sequence[str] | str | None,
    corpus: Mapping[str, Any] | None,
    labels: bool = False,
    group_by_artist: bool = True,
    group_name_is_folder: bool = True,
    max_groups: int | None = None,
    seed: int = 0,
    store: str | None = None,
    copy_at: int | None = None,
) -> Source:
    """The source that the keys of a data module name: the corpus, or plain folders.

    Args:
        dataset_dirs: folders.
        corpus: see `NamedCorpus`; None: folders laid out as `dataset/singer/**/file`.
        labels: without a corpus, take the one folder as `class/**/file`, whose classes are the labels.
        group_by_artist, group_name_is_folder, max_groups, seed, store, copy_at: see `Folders`.

    Raises:
        InputError: see `Folders` and `NamedCorpus`.
    """
    if corpus is None and labels:
        corpus = {"name": "folder", "seed": seed}
    if corpus is None:
        return Folders(dataset_dirs, group_by_artist, group_name_is_folder, max_groups, seed, store, copy_at)
    return NamedCorpus(dataset_dirs, corpus, group_by_artist, max_groups, seed, store, copy_at)


def index_of(folder: str | os.PathLike, corpus: Corpus, by_group: bool = True, progress: bool = True) -> AudioIndex:
    """The usable files of a corpus's training and validation tracks.

    Args:
        by_group: files of one artist or speaker are one group; if False each file is a group of its own.

    Raises:
        InputError: no training track can be used.
    """
    folder = os.fspath(folder)
    facts = {fact.path: fact for fact in scan_folder(folder, progress=progress)}
    entries: dict[tuple[int, str], list[AudioEntry]] = {}
    left_out = []
    for track in corpus.tracks:
        if track.split == "test":
            continue
        fact = facts.get(Path(os.path.relpath(track.path, folder)).as_posix())
        path = os.fspath(track.path)
        if fact is None:
            left_out.append(LeftOut(path, "is listed and was not found"))
        elif fact.problem or fact.frames < SHORTEST_SECONDS * fact.sample_rate:
            left_out.append(LeftOut(path, fact.problem or f"is shorter than {SHORTEST_SECONDS} s"))
        else:
            side = _VALID if track.split == "valid" else _TRAIN
            entry = AudioEntry(path, fact.frames, fact.sample_rate, (fact.size, fact.mtime_ns))
            entries.setdefault((side, track.group if by_group else track.id), []).append(entry)
    if not any(side == _TRAIN for side, _ in entries):
        first = " ".join(left_out[0]) if left_out else "it has none"
        raise InputError(f"{folder}: no training track of {corpus.name} can be used; {first}")
    groups = [
        Group(name, f"{corpus.name}/{('train', 'valid')[side]}/{name}", side, tuple(sorted(files)), folder)
        for (side, name), files in entries.items()
    ]
    return AudioIndex(sorted(groups, key=lambda group: (group.dataset, group.key)), left_out)
