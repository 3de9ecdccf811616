"""VoxCeleb1 (Nagrani et al., Interspeech 2017): who of 1,251 celebrities speaks, under one of the official splits.

Layout: `root/iden_split.txt` and `root/wav/id10001/<video>/00001.wav`. The split for identification parts videos, the
split for verification speakers.
"""

import os
from pathlib import Path

from ssl_audio.audio import find_audio_files
from ssl_audio.data.corpora.base import SPLITS, Corpus, Missing, Track, make_corpus, require
from ssl_audio.errors import InputError
from ssl_audio.utils.tables import read_lines

_HOME = "https://www.robots.ox.ac.uk/~vgg/data/voxceleb/vox1.html"
FILES = {"iden_split.txt": f"{_HOME}, identification split", "wav": f"{_HOME}, vox1_dev_wav.zip and vox1_test_wav.zip"}


TESTED = {f"id{number}" for number in range(10270, 10310)}
"""The 40 speakers of the list Vox1-O, whose names begin with E. The lists E and H test all 1,251 speakers: a model that
was trained on any of VoxCeleb1 must not be tested on them."""


def read(root: str | os.PathLike, missing: Missing = "error", split: str = "identification") -> Corpus:
    """Utterances with their speaker as label.

    Args:
        split: "identification" by `iden_split.txt`; groups are videos. "verification": the 1,211 speakers of dev are
            train and the 40 of Vox1-O test; groups are speakers, and no list is needed.
        missing: "error" refuses a corpus with utterances without audio, "skip" leaves them out.

    Raises:
        InputError: lists every missing file; a line that is not `1 id10001/<video>/00001.wav`.
    """
    if split not in ("identification", "verification"):
        raise InputError(f"VoxCeleb1 has no split {split!r}; there are identification and verification")
    if split == "verification":
        return _verification(require("VoxCeleb1", root, {"wav": FILES["wav"]}))
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


def _verification(root: Path) -> Corpus:
    tracks = []
    for path in find_audio_files(root / "wav"):
        name = path.relative_to(root / "wav").as_posix()
        speaker, slash, _ = name.partition("/")
        if not slash:
            raise InputError(f"{path}: lies in no speaker's folder, such as wav/id10001/<video>/{path.name}")
        tracks.append(Track(name, path, "test" if speaker in TESTED else "train", (speaker,), speaker))
    speakers = sorted({track.group for track in tracks})
    return make_corpus("VoxCeleb1", "verification", tracks, speakers, multi_label=False, audio_from=f"see {_HOME}")
