"""RAVDESS (Livingstone & Russo, PLoS ONE 2018): 24 actors speak or sing two sentences in eight emotions.

Layout: `root/Actor_01/03-01-06-01-02-01-12.wav` (modality, channel, emotion, intensity, statement, repetition,
actor). The corpus has no official split; the five folds of Luna-Jimenez et al. (2021,
https://doi.org/10.3390/app12010327) divide the actors, so that no voice is on both sides.
"""

import os
import re
from pathlib import Path

from ssl_audio.audio import find_audio_files
from ssl_audio.data.corpora.base import Corpus, Track, make_corpus, read_table, require, split_of_fold
from ssl_audio.errors import InputError
from ssl_audio.utils.packaged import packaged, packaged_names

_HOME = "https://zenodo.org/record/1188976, Audio_Speech_Actors_01-24.zip"
EMOTIONS = packaged_names("metadata/labels/ravdess.txt")  # codes 01 to 08
_TABLE = read_table(packaged("metadata/labels/ravdess_folds.csv"), ["actor", "fold"])
FOLDS = {int(row["actor"]): row["fold"] for row in _TABLE}
"""actor -> fold."""

_NAME = re.compile(r"03-0([12])-0([1-8])-0\d-0\d-0\d-(\d\d)")


def read(root: str | os.PathLike, channel: str = "speech", fold: int = 5) -> Corpus:
    """The corpus in folds of actors; groups are actors.

    Args:
        channel: "speech" (1,440 files, 8 emotions) or "song" (6 of the emotions).
        fold: the test fold, where a single split is needed.

    Raises:
        InputError: no actor's folder, a file that is not named as above, an unknown channel or fold.
    """
    if channel not in ("speech", "song"):
        raise InputError(f"RAVDESS has the channels speech and song, not {channel!r}")
    root = require("RAVDESS", root, {"Actor_01": _HOME})
    folds = sorted(set(FOLDS.values()))
    tracks = []
    for path in find_audio_files(root):
        spoken, emotion, actor = _parse(path)
        if (spoken == "1") == (channel == "speech"):
            own = FOLDS.get(int(actor))
            if own is None:
                raise InputError(f"{path}: RAVDESS has no actor {actor}")
            split = split_of_fold(own, folds, str(fold))
            tracks.append(Track(path.stem, path, split, (EMOTIONS[int(emotion) - 1],), actor, own))
    labels = sorted({track.labels[0] for track in tracks})
    return make_corpus("RAVDESS", "5 folds of actors", tracks, labels, multi_label=False, audio_from=f"unpack {_HOME}")


def _parse(path: Path) -> tuple[str, str, str]:
    match = _NAME.fullmatch(path.stem)
    if not match:
        raise InputError(f"{path}: is not named as RAVDESS's audio, such as 03-01-06-01-02-01-12.wav")
    return match[1], match[2], match[3]
