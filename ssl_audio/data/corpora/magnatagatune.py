"""MagnaTagATune (Law et al., ISMIR 2009): 25,863 clips of 29 s with tags, under the splits of the literature.

Layout: the split's lists in `root`, the audio in `root/0` ... `root/f`. The splits differ
in their clips and in the order of tags, so results on different splits cannot be compared.
"""

import os
from pathlib import Path

import numpy as np

from ssl_audio.data.corpora.base import (
    SPLITS,
    Corpus,
    Missing,
    Track,
    chosen_labels,
    literal_list,
    make_corpus,
    read_pairs,
    require,
)
from ssl_audio.errors import InputError
from ssl_audio.utils.packaged import packaged_names
from ssl_audio.utils.tables import read_rows

_PONS = "https://github.com/jordipons/musicnn-training, data/index/mtt"
_MINZWON = "https://github.com/minzwon/sota-music-tagging-models, split/mtat"
_HOME = "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset"

FILES: dict[str, dict[str, str]] = {
    "pons2017": dict.fromkeys(("train_gt_mtt.tsv", "val_gt_mtt.tsv", "test_gt_mtt.tsv", "index_mtt.tsv"), _PONS),
    "minzwon": dict.fromkeys(("train.npy", "valid.npy", "test.npy", "binary.npy", "tags.npy"), _MINZWON),
    "folders": {"annotations_final.csv": _HOME},
}
"""split -> its files -> where they come from."""

PONS_TAGS = packaged_names("metadata/labels/magnatagatune.txt")
"""The columns of the pons2017 lists, in their order (`output_labels_mtt.txt` beside them)."""


def read(root: str | os.PathLike, split: str = "pons2017", missing: Missing = "error") -> Corpus:
    """The corpus under one split; a track's group is its artist, from the file name.

    Args:
        split: "pons2017" (Pons et al., musicnn), "minzwon" (Won et al. 2020: without clips that have no tag), or
            "folders": every annotated clip, folders 0-b train, c valid, d-f test, the 50 most frequent tags.
        missing: "error" refuses a corpus with clips without audio, "skip" leaves them out. A few files
            of the distributed archive are empty.

    Raises:
        InputError: lists every missing file; malformed lists; a clip that the index does not know.
    """
    if split not in FILES:
        raise InputError(f"MagnaTagATune has no split {split!r}; there are {', '.join(FILES)}")
    root = require("MagnaTagATune", root, FILES[split])
    reader = {"pons2017": _read_pons, "minzwon": _read_minzwon, "folders": _read_folders}[split]
    tracks, tags = reader(root)
    source = f"unpack mp3.zip of {_HOME} into {root}"
    return make_corpus("MagnaTagATune", split, tracks, tags, multi_label=True, missing=missing, audio_from=source)


def _track(root: Path, clip: str, path: str, split: str, labels: tuple[str, ...]) -> Track:
    return Track(clip, root / path, split, labels, Path(path).name.split("-")[0])


def _read_pons(root: Path) -> tuple[list[Track], tuple[str, ...]]:
    paths = dict(read_pairs(root / "index_mtt.tsv"))
    tracks = []
    for split, file in zip(SPLITS, ("train_gt_mtt.tsv", "val_gt_mtt.tsv", "test_gt_mtt.tsv"), strict=True):
        for clip, vector in read_pairs(root / file):
            where = f"{root / file}, clip {clip}"
            if clip not in paths:
                raise InputError(f"{where}: is not in {root / 'index_mtt.tsv'}; take both from one place")
            labels = chosen_labels(literal_list(vector, where), PONS_TAGS, where)
            tracks.append(_track(root, clip, paths[clip], split, labels))
    return tracks, PONS_TAGS


def _read_minzwon(root: Path) -> tuple[list[Track], tuple[str, ...]]:
    tags = tuple(str(tag) for tag in _load(root / "tags.npy"))
    binary = _load(root / "binary.npy")
    tracks = []
    for split in SPLITS:
        for line in _load(root / f"{split}.npy"):
            row, tab, path = str(line).partition("\t")
            where = f"{root / split}.npy, {str(line)[:60]!r}"
            if not tab or not row.isdigit() or int(row) >= len(binary):
                raise InputError(
                    f"{where}: is not a row of binary.npy, a tab and a path; take all files from one place"
                )
            labels = chosen_labels(binary[int(row)].tolist(), tags, where)
            tracks.append(_track(root, row, path, split, labels))
    return tracks, tags


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{path}: is not a plain numpy array ({error})") from error


def _read_folders(root: Path) -> tuple[list[Track], tuple[str, ...]]:
    path = root / "annotations_final.csv"
    header, *rows = [cells for _, cells in read_rows(path, "\t")] or [[]]
    if not header or header[0] != "clip_id" or header[-1] != "mp3_path" or len(header) < 52:
        raise InputError(f"{path}: expected the columns clip_id, the tags, mp3_path, with tabs between them")
    tags = header[1:-1]
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InputError(f"{path}, line {number}: has {len(row)} columns, the header {len(header)}")
    counts = np.array([[value == "1" for value in row[1:-1]] for row in rows]).sum(0)
    top = tuple(tags[i] for i in np.argsort(-counts, kind="stable")[:50])
    tracks = []
    for clip, *values, place in rows:
        folder = place.split("/")[0]
        split = "train" if folder in "0123456789ab" else "valid" if folder == "c" else "test"
        chosen = {tag for tag, value in zip(tags, values, strict=True) if value == "1"}
        tracks.append(_track(root, clip, place, split, tuple(tag for tag in top if tag in chosen)))
    return tracks, top
