"""UrbanSound8K (Salamon et al., ACM Multimedia 2014): 8,732 street sounds of up to 4 s, 10 classes, ten official folds.

Layout: `root/metadata/UrbanSound8K.csv` and `root/audio/fold1/<slice_file_name>`. Slices of one recording (`fsID`)
lie in one fold; a random split would put them on both sides of it.
"""

import os

from ssl_audio.data.corpora.base import (
    Corpus,
    Missing,
    Track,
    make_corpus,
    numbered_folds,
    read_table,
    require,
    split_of_fold,
)

_HOME = "https://urbansounddataset.weebly.com/urbansound8k.html, UrbanSound8K.tar.gz"
FILES = {"metadata/UrbanSound8K.csv": _HOME}


def read(root: str | os.PathLike, fold: int = 10, missing: Missing = "error") -> Corpus:
    """The corpus with its official folds; groups are the source recordings.

    Args:
        fold: the test fold, where a single split is needed.
        missing: "error" refuses a corpus with slices without audio, "skip" leaves them out.

    Raises:
        InputError: lists every missing file; a malformed table; an unknown fold.
    """
    root = require("UrbanSound8K", root, FILES)
    rows = read_table(root / "metadata" / "UrbanSound8K.csv", ["slice_file_name", "fsID", "fold", "class"])
    folds = numbered_folds(rows, root / "metadata" / "UrbanSound8K.csv")
    tracks = [
        Track(
            row["slice_file_name"].removesuffix(".wav"),
            root / "audio" / f"fold{row['fold']}" / row["slice_file_name"],
            split_of_fold(row["fold"], folds, str(fold)),
            (row["class"],),
            row["fsID"],
            row["fold"],
        )
        for row in rows
    ]
    return make_corpus(
        "UrbanSound8K",
        f"{len(folds)} folds",
        tracks,
        sorted({row["class"] for row in rows}),
        multi_label=False,
        missing=missing,
        audio_from=f"unpack {_HOME} into {os.fspath(root)}",
    )
