"""Whether an index's neighbours make sense: by its groups, and by labels that someone wrote down."""

import os
from pathlib import Path

from ssl_audio.errors import InputError
from ssl_audio.evaluation.retrieval_metrics import library_metrics
from ssl_audio.retrieval.index import Index
from ssl_audio.utils.names import by_plain_name, plain
from ssl_audio.utils.tables import read_table


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
