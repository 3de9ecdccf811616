"""FSD50K (Fonseca et al., 2020, https://arxiv.org/abs/2010.00475): 51,197 sounds of 0.3-30 s, any of 200 classes.

Layout: `root/FSD50K.ground_truth/{dev,eval,vocabulary}.csv`, `root/FSD50K.dev_audio/<id>.wav`,
`root/FSD50K.eval_audio`.
"""

import os

from ssl_audio.data.corpora.base import Corpus, Missing, Track, make_corpus, read_table, require
from ssl_audio.errors import InputError
from ssl_audio.utils.tables import read_lines

_HOME = "https://zenodo.org/record/4060432"
FILES = {
    f"FSD50K.ground_truth/{name}.csv": f"{_HOME}, FSD50K.ground_truth.zip" for name in ("dev", "eval", "vocabulary")
}


def read(root: str | os.PathLike, missing: Missing = "error") -> Corpus:
    """The corpus under its official split: dev in train and valid, eval as test.

    Args:
        missing: "error" refuses a corpus with sounds without audio, "skip" leaves them out.

    Raises:
        InputError: lists every missing file; malformed tables; a label that the vocabulary does not know.
    """
    root = require("FSD50K", root, FILES)
    truth = root / "FSD50K.ground_truth"
    lines = read_lines(truth / "vocabulary.csv")
    vocabulary = [line.split(",")[1].strip() for line in lines if line.count(",") >= 2]
    tracks = []
    for name, columns in (("dev", ["fname", "labels", "split"]), ("eval", ["fname", "labels"])):
        for row in read_table(truth / f"{name}.csv", columns):
            labels = tuple(label.strip() for label in row["labels"].split(",") if label.strip())
            if unknown := sorted(set(labels) - set(vocabulary)):
                raise InputError(f"{truth / f'{name}.csv'}, {row['fname']}: vocabulary.csv has no {', '.join(unknown)}")
            split = "test" if name == "eval" else {"train": "train", "val": "valid"}.get(row["split"], row["split"])
            path = root / f"FSD50K.{name}_audio" / f"{row['fname']}.wav"
            tracks.append(Track(row["fname"], path, split, labels, row["fname"]))
    source = f"unpack FSD50K.dev_audio and FSD50K.eval_audio of {_HOME} into {os.fspath(root)}"
    return make_corpus("FSD50K", "official", tracks, vocabulary, multi_label=True, missing=missing, audio_from=source)
