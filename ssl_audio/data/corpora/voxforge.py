"""VoxForge (voxforge.org): read sentences in six languages, to tell the language.

Layout: `root/<language>/<speaker>-<date>-<code>/wav/*.wav` (or flac), languages de, en, es, fr, it, ru. There is no
official split; here whole speakers go to one side, by seed and name. Anonymous sessions count as a speaker each.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from ssl_audio.audio import find_audio_files
from ssl_audio.data.corpora.base import Corpus, Track, make_corpus, named, require, split_groups
from ssl_audio.errors import InputError
from ssl_audio.utils.packaged import packaged_names

_HOME = "http://www.repository.voxforge1.org/downloads"
LANGUAGES = packaged_names("metadata/labels/voxforge.txt")


def read(
    root: str | os.PathLike,
    languages: Sequence[str] | str = LANGUAGES,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
) -> Corpus:
    """Sentences with their language as label; groups are speakers.

    Args:
        languages: folders under `root`.
        fractions: of the speakers of each language for train, valid and test.
        seed: decides the split, with the names.

    Raises:
        InputError: lists every missing language; a file outside of a session's folder.
    """
    languages = named(languages)
    root = require("VoxForge", root, {name: f"{_HOME}/{name}/Trunk/Audio" for name in languages})
    tracks = []
    for language in languages:
        paths = find_audio_files(root / language)
        speakers = [_speaker(path, root / language) for path in paths]
        splits = split_groups(speakers, fractions, seed) if paths else {}
        for path, speaker in zip(paths, speakers, strict=True):
            name = path.relative_to(root).as_posix()
            tracks.append(Track(name, path, splits[speaker], (language,), f"{language}/{speaker}"))
    return make_corpus(
        "VoxForge", f"speakers, seed {seed}", tracks, tuple(languages), multi_label=False, audio_from=f"see {_HOME}"
    )


def _speaker(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).parts
    if len(parts) < 2:
        raise InputError(f"{path}: lies in no session's folder, such as {folder.name}/speaker-20080320-abc/wav")
    name = parts[0].split("-")[0]
    return parts[0] if name.lower() in ("anonymous", "anonyme", "anonimo", "") else name
