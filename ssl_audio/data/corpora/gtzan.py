"""GTZAN (Tzanetakis & Cook 2002): 1,000 excerpts of 30 s in 10 genres, under the fault-filtered split.

The full collection has repetitions, mislabelled and distorted files, and artists on both sides of random splits (Sturm
2013). The filtered lists (Kereliuk et al. 2015, https://arxiv.org/abs/1507.04761) leave these out.

Layout: `root/genres/<genre>/<genre>.00000.wav` (or `genres_original`, or the genres in `root` itself; .wav or .au),
and the three lists in `root`.
"""

import os
from pathlib import Path

from ssl_audio.data.corpora.base import SPLITS, Corpus, Missing, Track, make_corpus, require
from ssl_audio.errors import InputError
from ssl_audio.utils.packaged import packaged_names
from ssl_audio.utils.tables import read_text

_LISTS = "https://github.com/minzwon/sota-music-tagging-models, split/gtzan"
FILES = {f"{split}_filtered.txt": _LISTS for split in SPLITS}
GENRES = packaged_names("metadata/labels/gtzan.txt")


def read(root: str | os.PathLike, missing: Missing = "error") -> Corpus:
    """The corpus under the filtered split. Artists are not in the lists, so each track is its own group.

    Args:
        missing: "skip" where jazz.00054 is corrupt and was removed, as in some distributions.

    Raises:
        InputError: lists every missing file; a line that is not `genre/genre.00000.wav` or `genre.00000`.
    """
    root = require("GTZAN", root, FILES)
    folder = next((root / name for name in ("genres", "genres_original") if (root / name).is_dir()), root)
    tracks = []
    for split in SPLITS:
        path = root / f"{split}_filtered.txt"
        for number, line in enumerate(read_text(path).split(), 1):
            name = line.rsplit("/", 1)[-1].removesuffix(".wav").removesuffix(".au")
            genre, dot, digits = name.partition(".")
            if genre not in GENRES or not dot or not digits.isdigit():
                raise InputError(f"{path}, line {number}: {line!r} is not a track such as blues/blues.00000.wav")
            tracks.append(Track(name, _audio(folder / genre / name), split, (genre,), name))
    source = f"unpack genres.tar.gz into {root}"
    return make_corpus("GTZAN", "fault-filtered", tracks, GENRES, multi_label=False, missing=missing, audio_from=source)


def _audio(stem: Path) -> Path:
    wav, au = (stem.with_name(stem.name + suffix) for suffix in (".wav", ".au"))
    return au if au.is_file() and not wav.is_file() else wav
