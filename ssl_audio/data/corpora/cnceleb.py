"""CN-Celeb (Fan et al., ICASSP 2020; Li et al., 2022): speech and singing of Chinese celebrities in eleven genres.

Layout: `root/data/id00000/singing-01-001.flac` and, in CN-Celeb1, `root/dev/dev.lst`, the 800 speakers for training.
The trials are `root/eval/lists/trials.lst` over `root/eval/enroll` and `root/eval/test`: `ssl-audio evaluate --data
root/eval --trials root/eval/lists/trials.lst`.
"""

import os
import re

from ssl_audio.audio import find_audio_files
from ssl_audio.data.corpora.base import Corpus, Track, make_corpus, require
from ssl_audio.errors import InputError

_HOME = "https://www.openslr.org/82"
_NAME = re.compile(r"(.+)-(\d+)-(\d+)")


def read(root: str | os.PathLike, label: str = "speaker") -> Corpus:
    """Utterances; groups are speakers. Those of `dev/dev.lst` are train, all others test; without that file all train.

    Args:
        label: "speaker" or "genre".

    Raises:
        InputError: no folder data, an unknown label, or a file that is not `<genre>-<session>-<utterance>`.
    """
    if label not in ("speaker", "genre"):
        raise InputError(f"CN-Celeb has no label {label!r}; there are speaker and genre")
    root = require("CN-Celeb", root, {"data": f"{_HOME}, cn-celeb_v2.tar.gz"})
    listed = root / "dev" / "dev.lst"
    train = set(listed.read_text(encoding="utf-8").split()) if listed.is_file() else None
    tracks = []
    for path in find_audio_files(root / "data"):
        name, speaker, match = path.relative_to(root / "data").as_posix(), path.parent.name, _NAME.fullmatch(path.stem)
        if match is None or path.parent.parent != root / "data":
            raise InputError(f"{path}: is not data/<speaker>/<genre>-<session>-<utterance>")
        part = "train" if train is None or speaker in train else "test"
        tracks.append(Track(name, path, part, (speaker if label == "speaker" else match[1],), speaker))
    names = sorted({track.labels[0] for track in tracks})
    return make_corpus("CN-Celeb", "speakers", tracks, names, multi_label=False, audio_from=_HOME)
