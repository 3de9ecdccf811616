"""Trees of speakers: VoxCeleb2, VoxBlink and whatever has the same layout.

Layout: `root/[dev or train, test, valid/][wav or aac/]<speaker>/<video>/<utterance>.wav`, of any depth below the
speaker. VoxCeleb2 comes as m4a, which the extra `media` reads.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ssl_audio.audio import find_audio_files
from ssl_audio.data.corpora.base import Corpus, Track, make_corpus, require, split_groups
from ssl_audio.errors import InputError

_PARTS = {"dev": "train", "train": "train", "valid": "valid", "test": "test"}
_FORMATS = ("wav", "aac", "m4a", "flac", "audio")


def read(
    root: str | os.PathLike,
    name: str = "speakers",
    home: str = "the corpus's own page",
    fractions: Sequence[float] = (0.98, 0.02, 0),
    seed: int = 0,
) -> Corpus:
    """Utterances with their speaker as label; groups are speakers, and the parts share none.

    Args:
        name, home: of the corpus, for messages.
        fractions: of the speakers for train, valid and test, if the tree has no folders dev or train. With such
            folders they are the split: dev and train are train.
        seed: decides the split by fractions, with the names.

    Raises:
        InputError: no folder, no audio, or a file that lies in no speaker's folder.
    """
    root = require(name, root, {".": home})
    found = [(path, *_place(path, root)) for path in find_audio_files(root)]
    official = any(part for _, part, _ in found)
    split = {} if official or not found else split_groups([speaker for *_, speaker in found], fractions, seed)
    tracks = [
        Track(path.relative_to(root).as_posix(), path, part or split.get(speaker, "train"), (speaker,), speaker)
        for path, part, speaker in found
    ]
    speakers = sorted({track.group for track in tracks})
    kind = "folders" if official else f"speakers, seed {seed}"
    return make_corpus(name, kind, tracks, speakers, multi_label=False, audio_from=f"see {home}")


def _place(path: Path, root: Path) -> tuple[str, str]:
    """(split or "", speaker) of a file."""
    folders = list(path.relative_to(root).parts[:-1])
    part = _PARTS[folders.pop(0)] if folders and folders[0] in _PARTS else ""
    if folders and folders[0] in _FORMATS:
        folders.pop(0)
    if not folders:
        raise InputError(f"{path}: lies in no speaker's folder, such as {root.name}/id00012/video/{path.name}")
    return part, folders[0]
