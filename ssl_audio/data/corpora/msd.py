"""Million Song Dataset (Bertin-Mahieux et al., ISMIR 2011) with 50 Last.fm tags, by the lists of musicnn and CLMR.

Layout: `root/processed_annotations/` holds the lists, `root/preprocessed/<a>/<b>/<7digital id>.clip.wav` the audio (a
and b: the first two digits of the id). The audio was 7digital's previews, which are no longer given out.
"""

import os
import pickle
from pathlib import Path

from ssl_audio.audio import EXTENSIONS
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
from ssl_audio.utils.tables import read_text

_LISTS = "https://github.com/jordipons/musicnn-training, data/index/msd"
_IDS = "https://github.com/jongpillee/music_dataset_split, MSD_split"

FILES = {
    "processed_annotations/train_gt_msd.tsv": _LISTS,
    "processed_annotations/val_gt_msd.tsv": _LISTS,
    "processed_annotations/test_gt_msd.tsv": _LISTS,
    "processed_annotations/output_labels_msd.txt": _LISTS,
    "processed_annotations/MSD_id_to_7D_id.pkl": _IDS,
}


def read(root: str | os.PathLike, missing: Missing = "error", audio_folder: str = "preprocessed") -> Corpus:
    """The corpus under its lists; the lists name no artist, so each track is its own group.

    Raises:
        InputError: lists every missing file; malformed lists; a pickle that holds more than a dictionary of ids.
    """
    root = require("Million Song Dataset", root, FILES)
    folder = root / "processed_annotations"
    tags = _read_tags(folder / "output_labels_msd.txt")
    ids = _read_ids(folder / "MSD_id_to_7D_id.pkl")
    tracks = []
    for split, file in zip(SPLITS, ("train_gt_msd.tsv", "val_gt_msd.tsv", "test_gt_msd.tsv"), strict=True):
        for track, vector in read_pairs(folder / file):
            where = f"{folder / file}, track {track}"
            if track not in ids:
                raise InputError(f"{where}: is not in {folder / 'MSD_id_to_7D_id.pkl'}")
            labels = chosen_labels(literal_list(vector, where), tags, where)
            tracks.append(Track(track, _audio(root / audio_folder, ids[track]), split, labels, track))
    source = f"the audio goes to {root / audio_folder}/<a>/<b>/<7digital id>.clip.wav (or .mp3)"
    return make_corpus(
        "Million Song Dataset", "lastfm50", tracks, tags, multi_label=True, missing=missing, audio_from=source
    )


def _audio(folder: Path, number: str) -> Path:
    stem = folder / number[0] / number[1:2] / f"{number}.clip"
    found = (stem.with_name(stem.name + suffix) for suffix in EXTENSIONS)
    return next((path for path in found if path.is_file()), stem.with_name(stem.name + ".wav"))


def _read_tags(path: Path) -> tuple[str, ...]:
    text = read_text(path)
    return tuple(str(tag) for tag in literal_list(text[text.find("[") :].strip(), str(path)))


class _PlainUnpickler(pickle.Unpickler):
    """Reads containers and text alone: a pickle can name any function to call, and here every name is refused."""

    def find_class(self, module: str, name: str) -> type:
        raise InputError(f"names {module}.{name}, which a dictionary of ids does not need; it was not run")


def _read_ids(path: Path) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            ids = _PlainUnpickler(file, encoding="latin1").load()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path}: is not a pickle ({error})") from error
    if not isinstance(ids, dict):
        raise InputError(f"{path}: holds no dictionary of ids")
    return {str(key): str(value) for key, value in ids.items()}
