"""ESC-50 and ESC-10 (Piczak, ACM Multimedia 2015): environmental sounds of 5 s, with five official folds.

Layout: `root/meta/esc50.csv` and `root/audio/1-100032-A-0.wav` (the repository as it is), or `root/esc10.csv` with a
column filename relative to `root`. Clips cut from one recording (`src_file`) lie in one fold.
"""

import os
from pathlib import Path

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
from ssl_audio.errors import InputError

_HOME = "https://github.com/karolpiczak/ESC-50"
FILES = {"meta/esc50.csv": _HOME, "audio": _HOME}


def read(root: str | os.PathLike, subset: str = "esc50", fold: int = 5, missing: Missing = "error") -> Corpus:
    """The corpus with its official folds; groups are the source recordings.

    Args:
        subset: "esc50" (2,000 clips, 50 classes) or "esc10" (400 of them, 10 classes).
        fold: the test fold, where a single split is needed.
        missing: "error" refuses a corpus with clips without audio, "skip" leaves them out.

    Raises:
        InputError: lists every missing file; a malformed table; an unknown subset or fold.
    """
    if subset not in ("esc50", "esc10"):
        raise InputError(f"ESC has no subset {subset!r}; there are esc50 and esc10")
    root = Path(root)
    columns = ["filename", "fold", "category", "src_file"]
    if subset == "esc10" and (root / "esc10.csv").is_file():
        rows, folder = read_table(root / "esc10.csv", columns), root
    else:
        require("ESC-50", root, FILES)
        rows, folder = read_table(root / "meta" / "esc50.csv", [*columns, "esc10"]), root / "audio"
        rows = [row for row in rows if subset == "esc50" or row["esc10"] == "True"]
    folds = numbered_folds(rows, root)
    tracks = [
        Track(
            Path(row["filename"]).stem,
            folder / row["filename"],
            split_of_fold(row["fold"], folds, str(fold)),
            (row["category"],),
            row["src_file"],
            row["fold"],
        )
        for row in rows
    ]
    labels = sorted({row["category"] for row in rows})
    name = "ESC-50" if subset == "esc50" else "ESC-10"
    return make_corpus(
        name, f"{len(folds)} folds", tracks, labels, multi_label=False, missing=missing, audio_from=f"clone {_HOME}"
    )
