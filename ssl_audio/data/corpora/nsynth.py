"""NSynth (Engel et al., ICML 2017, https://arxiv.org/abs/1704.01279): 305,979 notes of 4 s, by instrument family.

Layout: `root/nsynth-train/examples.json`, `root/nsynth-train/audio/<note>.wav`, likewise `nsynth-valid` and
`nsynth-test`. No instrument of train is in valid or test, and the family synth_lead is in train alone.
"""

import json
import os

from ssl_audio.data.corpora.base import SPLITS, Corpus, Missing, Track, make_corpus, require
from ssl_audio.errors import InputError
from ssl_audio.utils.packaged import packaged_names

_HOME = "https://magenta.tensorflow.org/datasets/nsynth"
FILES = {f"nsynth-{split}/examples.json": f"{_HOME}, nsynth-{split}.jsonwav.tar.gz" for split in SPLITS}
FAMILIES = packaged_names("metadata/labels/nsynth.txt")


def read(root: str | os.PathLike, missing: Missing = "error") -> Corpus:
    """The corpus under its official split; the label is the family, groups are instruments.

    Args:
        missing: "error" refuses a corpus with notes without audio, "skip" leaves them out.

    Raises:
        InputError: lists every missing file; a note without family or instrument.
    """
    root = require("NSynth", root, FILES)
    tracks = []
    for split in SPLITS:
        folder = root / f"nsynth-{split}"
        try:
            notes = json.loads((folder / "examples.json").read_text(encoding="utf-8"))
            found = [(name, note["instrument_family_str"], note["instrument_str"]) for name, note in notes.items()]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder / 'examples.json'}: is not NSynth's list of notes ({error})") from error
        tracks += [Track(name, folder / "audio" / f"{name}.wav", split, (kind,), who) for name, kind, who in found]
    return make_corpus(
        "NSynth", "official", tracks, FAMILIES, multi_label=False, missing=missing, audio_from=f"unpack {_HOME}"
    )
