"""Retrieval metrics of an index, from its groups and from a table of labels."""

import os
from pathlib import Path

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.retrieval_metrics import library_metrics
from ssl_audio.retrieval.index import Index
from ssl_audio.utils.names import by_plain_name, plain
from ssl_audio.utils.tables import read_table


def index_quality(index: Index, labels: str | os.PathLike | None = None) -> dict[str, dict[str, float]]:
    """Retrieval metrics of a library, with each track as a query against all others.

    Args:
        index: the index.
        labels: CSV table with the columns `path` (relative to the library) and `label` (such as genre or mood). Tracks
            without a label are left out of the genre metrics.

    Returns:
        {"same_artist", with labels also "same_genre" and "same_genre_other_artist": `retrieval_metrics`}; the artists
        are the groups of the index, and the genres are the labels.

    Raises:
        InputError: the table has other columns, or names a file twice or a file that is not in the index; or every
            track is its own group and there are no labels.
    """
    embeddings = index.embeddings
    groups = [group or path for group, path in zip(index.groups, index.paths, strict=True)]  # "" is no common group
    tables = library_metrics(embeddings, groups)
    if labels is not None:
        label_of = _labels_of_paths(labels, index)
        rows = [i for i, path in enumerate(index.paths) if path in label_of]
        found = [label_of[index.paths[i]] for i in rows]
        tables |= library_metrics(embeddings[rows], [groups[i] for i in rows], found) | tables
    if not tables:
        raise InputError("every track is its own group and there are no labels; give --labels or index with --group")
    return tables


def mean_cosine(embeddings: np.ndarray) -> float:
    """Mean cosine of two different rows of `(tracks, dim)`; 0 for fewer than two."""
    if len(embeddings) < 2:
        return 0.0
    x = np.asarray(embeddings, np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-30)
    return float((np.square(x.sum(0)).sum() - len(x)) / (len(x) * (len(x) - 1)))


def _labels_of_paths(path: str | os.PathLike, index: Index) -> dict[str, str]:
    """{full path: label} from a CSV table with the columns path and label."""
    known = by_plain_name(index.paths)
    root = Path(index.settings["root"] or "")
    result: dict[str, str] = {}
    for number, row in read_table(path, ("path", "label")).numbered():
        written = row["path"].strip()
        spelling = os.path.normpath(root / written) if str(root) != "." else written
        name = known.get(spelling) or known.get(plain(spelling))
        if name is None or name in result:
            problem = "twice; remove one of the lines" if name else "which is not in the index; remove the line"
            raise InputError(f"{path}, line {number}: names {written}, {problem}")
        result[name] = plain(row["label"]).strip()
    return result
