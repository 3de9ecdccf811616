"""A named corpus as what training reads: the files of its official training and validation tracks, no others."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_audio.data.corpora import Corpus, load
from ssl_audio.data.index import SHORTEST_SECONDS, AudioEntry, AudioIndex, Group, LeftOut
from ssl_audio.data.scan import scan_folder
from ssl_audio.errors import InputError

TRAIN, VALID = 0, 1
"""`Group.dataset` of the groups of each split."""


def read_corpus(dataset_dirs: list[str], spec: Mapping[str, Any]) -> Corpus:
    """The corpus that a config names.

    Args:
        dataset_dirs: its one folder.
        spec: `{name: fma, subset: small, ...}`: the name, and arguments of its reader.

    Raises:
        InputError: not one folder, no name, and what `ssl_audio.data.corpora.load` raises.
    """
    if len(dataset_dirs) != 1:
        raise InputError(f"data.dataset_dirs must name the one folder of data.corpus, got {', '.join(dataset_dirs)}")
    options = dict(spec)
    if "name" not in options:
        raise InputError("data.corpus has no name; write corpus: {name: fma}, with the options of its reader")
    return load(options.pop("name"), dataset_dirs[0], **options)


def scan_corpus(folder: str | os.PathLike, corpus: Corpus, by_group: bool = True, progress: bool = True) -> AudioIndex:
    """The usable files of a corpus's train and valid tracks; test tracks never come in.

    Args:
        by_group: files of one artist or speaker are one group; if False each file is a group of its own.

    Raises:
        InputError: none of them can be used.
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
            side = VALID if track.split == "valid" else TRAIN
            entry = AudioEntry(path, fact.frames, fact.sample_rate, (fact.size, fact.mtime_ns))
            entries.setdefault((side, track.group if by_group else track.id), []).append(entry)
    if not any(side == TRAIN for side, _ in entries):
        first = " ".join(left_out[0]) if left_out else "it has none"
        raise InputError(f"{folder}: no training track of {corpus.name} can be used; {first}")
    groups = [
        Group(name, f"{corpus.name}/{('train', 'valid')[side]}/{name}", side, tuple(sorted(files)), folder)
        for (side, name), files in entries.items()
    ]
    return AudioIndex(sorted(groups, key=lambda group: (group.dataset, group.key)), left_out)
