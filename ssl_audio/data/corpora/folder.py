"""Any folder: the first level of folders is the label."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ssl_audio.audio import find_audio_files
from ssl_audio.data.corpora.base import SPLITS, Corpus, Track, make_corpus
from ssl_audio.errors import InputError


def read(
    root: str | os.PathLike, fractions: Sequence[float] = (0.8, 0.1, 0.1), seed: int = 0, group: str = "folder"
) -> Corpus:
    """Tracks labelled by the first folder under `root`, split within each label by whole groups.

    Args:
        fractions: of the groups of each label for train, valid and test; a split whose fraction is not 0 gets one of
            them at least where there are enough.
        seed: of the split, which depends on names alone: a new file moves no other one.
        group: "folder": files of one folder stay together, and those directly in the label's folder stand alone; or
            "file": each file alone.

    Raises:
        InputError: no audio files, or none in a folder of its own.
    """
    if len(fractions) != 3 or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise InputError(f"fractions are {list(fractions)}; give train, valid and test, adding up to 1")
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
        order = sorted(groups, key=lambda name: hashlib.blake2b(f"{seed}/{name}".encode(errors="replace")).digest())
        for name, part in zip(order, _parts(len(order), fractions), strict=True):
            tracks += [Track(p.relative_to(root).as_posix(), p, part, (label,), name) for p in groups[name]]
    tracks.sort(key=lambda track: track.id)
    return make_corpus(
        root.name, f"seed {seed}", tracks, sorted(by_label), multi_label=False, audio_from=f"they belong under {root}"
    )


def _parts(count: int, fractions: Sequence[float]) -> list[str]:
    """The split of each of `count` groups: test and valid get their share rounded, at least 1 while train keeps 1."""
    test = min(max(round(fractions[2] * count), int(fractions[2] > 0)), count - 1)
    valid = min(max(round(fractions[1] * count), int(fractions[1] > 0)), count - 1 - test)
    return [SPLITS[2]] * test + [SPLITS[1]] * valid + [SPLITS[0]] * (count - test - valid)
