"""Any folder of recordings as a corpus: the folders of the first level are the labels."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ssl_audio.audio import find_audio_files
from ssl_audio.data.corpora.base import Corpus, Track, make_corpus, split_groups
from ssl_audio.errors import InputError


def read(
    root: str | os.PathLike, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0, group: str = "folder"
) -> Corpus:
    """Tracks labelled by the first folder under `root`, split within each label by whole groups.

    Args:
        fractions: of the groups of each label for train, valid and test, see `split_groups`.
        seed: decides the split, with the names of the groups.
        group: "folder": files of one folder stay together, and each file directly in the label's folder is a group of
            its own; "file": each file is a group of its own.

    Raises:
        InputError: no audio files, or none in a folder of its own; fractions that do not add up to 1.
    """
    if group not in ("folder", "file"):
        raise InputError(f"group is {group!r}; it must be folder or file")
    root = Path(root)
    by_label: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in find_audio_files(root):
        parts = path.relative_to(root).parts
        if len(parts) > 1:
            deep = group == "folder" and len(parts) > 2
            by_label[parts[0]]["/".join(parts[:-1] if deep else parts)].append(path)
    if not by_label:
        raise InputError(
            f"{root}: holds no audio files in folders of their own; put each label's files into one folder"
        )
    tracks = []
    for label, groups in by_label.items():
        for name, part in split_groups(list(groups), fractions, seed).items():
            tracks += [Track(p.relative_to(root).as_posix(), p, part, (label,), name) for p in groups[name]]
    tracks.sort(key=lambda track: track.id)
    return make_corpus(
        root.name, f"seed {seed}", tracks, sorted(by_label), multi_label=False, audio_from=f"they belong under {root}"
    )
