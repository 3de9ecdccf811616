"""VoxCeleb1 (Nagrani et al., Interspeech 2017): who of 1,251 celebrities speaks, under the official split.

Layout: `root/iden_split.txt` and `root/wav/id10001/<video>/00001.wav`. The split parts videos, not speakers.
"""

import os

from ssl_audio.data.corpora.base import SPLITS, Corpus, Missing, Track, make_corpus, require
from ssl_audio.errors import InputError
from ssl_audio.utils.tables import read_lines

_HOME = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"
FILES = {"iden_split.txt": f"{_HOME}, identification split", "wav": f"{_HOME}, vox1_dev_wav.zip and vox1_test_wav.zip"}


def read(root: str | os.PathLike, missing: Missing = "error") -> Corpus:
    """Utterances with their speaker as label; groups are videos.

    Args:
        missing: "error" refuses a corpus with utterances without audio, "skip" leaves them out.

    Raises:
        InputError: lists every missing file; a line that is not `1 id10001/<video>/00001.wav`.
    """
    root = require("VoxCeleb1", root, FILES)
    tracks = []
    for number, line in enumerate(read_lines(root / "iden_split.txt"), 1):
        part, _, name = line.strip().partition(" ")
        places = name.strip().split("/")
        if part not in ("1", "2", "3") or len(places) != 3:
            raise InputError(f"{root / 'iden_split.txt'}, line {number}: {line!r} is not a part and speaker/video/file")
        speaker, video, _ = places
        path = root / "wav" / name.strip()
        tracks.append(Track(name.strip(), path, SPLITS[int(part) - 1], (speaker,), f"{speaker}/{video}"))
    speakers = sorted({track.labels[0] for track in tracks})
    return make_corpus(
        "VoxCeleb1", "identification", tracks, speakers, multi_label=False, missing=missing, audio_from=f"see {_HOME}"
    )
