"""Speech Commands v2 (Warden 2018, https://arxiv.org/abs/1804.03209): 105,829 words of up to 1 s, 35 words.

Layout: `root/<word>/<speaker>_nohash_<n>.wav`, `root/validation_list.txt`, `root/testing_list.txt`; what is in
neither list is train. `_background_noise_` is left out.
"""

import os

from ssl_audio.audio import find_audio_files
from ssl_audio.data.corpora.base import Corpus, Track, make_corpus, require
from ssl_audio.errors import InputError
from ssl_audio.utils.tables import read_text

_HOME = "http://download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
FILES = dict.fromkeys(("validation_list.txt", "testing_list.txt"), _HOME)


def read(root: str | os.PathLike) -> Corpus:
    """The corpus under its official split; groups are speakers, who are on one side only.

    Raises:
        InputError: lists every missing file; a list that names a file that is not there.
    """
    root = require("Speech Commands", root, FILES)
    paths = {path.relative_to(root).as_posix(): path for path in find_audio_files(root)}
    paths = {name: path for name, path in paths.items() if "/" in name and not name.startswith("_")}
    splits = {}
    for split, file in (("valid", "validation_list.txt"), ("test", "testing_list.txt")):
        for name in read_text(root / file).split():
            if name not in paths:
                raise InputError(f"{root / file} names {name}, which is not there; unpack all of {_HOME}")
            splits[name] = split
    tracks = [
        Track(name, path, splits.get(name, "train"), (path.parent.name,), path.stem.split("_nohash_")[0])
        for name, path in paths.items()
    ]
    words = sorted({track.labels[0] for track in tracks})
    return make_corpus("Speech Commands", "official", tracks, words, multi_label=False, audio_from=f"unpack {_HOME}")
