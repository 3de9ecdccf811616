"""Whether an index's neighbours make sense: by its groups, and by labels that someone wrote down."""

import csv
import os
from pathlib import Path

from ssl_audio.errors import InputError
from ssl_audio.evaluation.retrieval_metrics import library_metrics
from ssl_audio.retrieval.index import Index


def index_quality(index: Index, labels: str | os.PathLike | None = None) -> dict[str, dict[str, float]]:
    """Retrieval metrics of a library; each track queries all others.

    Args:
        labels: a CSV with the columns `path` (as in the index: relative to the library) and `label` (genre, mood). All
            tracks without a label are left out of what concerns labels.

    Returns:
        `same_artist`, by the index's groups; with labels also `same_genre` and `same_genre_other_artist` (the artist
        filter); each with the metrics of `evaluation.retrieval_metrics`.

    Raises:
        InputError: the CSV has other columns, names a file twice or one that is not in the index.
    """
    embeddings, groups = index.embeddings, index.groups
    tables = library_metrics(embeddings, groups)
    if labels is not None:
        label_of = read_labels(labels, index)
        rows = [i for i, path in enumerate(index.paths) if path in label_of]
        found = [label_of[index.paths[i]] for i in rows]
        tables |= library_metrics(embeddings[rows], [groups[i] for i in rows], found) | tables
    if not tables:
        raise InputError("every track is a group of its own and there are no labels, so there is nothing to judge by")
    return tables


def read_labels(path: str | os.PathLike, index: Index) -> dict[str, str]:
    """Full path -> label of a CSV with the columns path and label."""
    known = set(index.paths)
    root = Path(index.settings["root"] or "")
    result: dict[str, str] = {}
    try:
        with open(path, newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file), 2):
                if not {"path", "label"} <= set(row):
                    raise InputError(f"{path}: expected the columns path and label")
                name = os.path.normpath(root / row["path"]) if str(root) != "." else row["path"]
                if name not in known or name in result:
                    problem = "twice" if name in result else "but it is not in the index"
                    raise InputError(f"{path}, line {number}: names {row['path']} {problem}")
                result[name] = row["label"]
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    return result
