"""LibriSpeech (Panayotov et al., ICASSP 2015) by speaker.

Layout: `root/<subset>/<speaker>/<chapter>/<speaker>-<chapter>-<utterance>.flac`, root being the unpacked `LibriSpeech`.
"""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from ssl_audio.audio import find_audio_files
from ssl_audio.data.corpora.base import Corpus, Track, make_corpus, named, require
from ssl_audio.errors import InputError

_HOME = "https://www.openslr.org/12"
_SPLIT_OF = {"train": "train", "dev": "valid", "test": "test"}
_NAME = re.compile(r"(\d+)-(\d+)-(\d+)")


def read(
    root: str | os.PathLike,
    subsets: Sequence[str] | str = ("train-clean-100", "test-clean"),
    split: str = "subsets",
) -> Corpus:
    """Utterances with their speaker as label and group.

    Args:
        subsets: folders under `root`.
        split: "subsets": train-* is train, dev-* valid, test-* test; they share no speaker, which suits verification.
            "chapters": closed-set identification; of each speaker with two chapters or more the last is test, with
            three or more the one before it valid. Chapters, not utterances, because one chapter is one recording, and
            its room would give the speaker away.

    Raises:
        InputError: a subset is missing, empty or, to split by, of another name; a file is not named as above.
    """
    if split not in ("subsets", "chapters"):
        raise InputError(f"LibriSpeech has no split {split!r}; there are subsets and chapters")
    subsets = named(subsets)
    odd = [name for name in subsets if name.split("-")[0] not in _SPLIT_OF]
    if split == "subsets" and odd:
        raise InputError(f"LibriSpeech: subset {odd[0]} is not train-*, dev-* or test-*; split=chapters takes any")
    root = require("LibriSpeech", root, {name: f"{_HOME}, {name}.tar.gz" for name in subsets})
    found = [(subset, *_parse(path), path) for subset in subsets for path in find_audio_files(root / subset)]
    chapters = defaultdict(set)
    for _, speaker, chapter, _ in found:
        chapters[speaker].add(chapter)
    tracks = []
    for subset, speaker, chapter, path in found:
        if split == "subsets":
            part = _SPLIT_OF[subset.split("-")[0]]
        else:
            order = sorted(chapters[speaker], key=int)
            last = len(order) - 1 - order.index(chapter)
            part = "test" if last == 0 and len(order) > 1 else "valid" if last == 1 and len(order) > 2 else "train"
        tracks.append(Track(path.stem, path, part, (speaker,), speaker))
    speakers = sorted({track.group for track in tracks}, key=int)
    return make_corpus("LibriSpeech", split, tracks, speakers, multi_label=False, audio_from=_HOME)


def _parse(path: Path) -> tuple[str, str]:
    match = _NAME.fullmatch(path.stem)
    if not match:
        raise InputError(f"{path}: is not named <speaker>-<chapter>-<utterance>")
    return match[1], match[2]
