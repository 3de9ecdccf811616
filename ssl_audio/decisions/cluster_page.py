"""A page of clusters: a map whose points play, examples of each cluster, and the least certain files."""

import os

import numpy as np

from ssl_audio.decisions.cluster_files import Embedded
from ssl_audio.decisions.clustering import Clusters
from ssl_audio.retrieval import Index
from ssl_audio.retrieval.map import map_page

EXAMPLES, UNCERTAIN, LISTED = 3, 30, 200  # files a cluster, least certain files, clusters with examples


def cluster_page(rows: Embedded, clusters: Clusters, folder: str | os.PathLike, title: str) -> str:
    """The HTML.

    Args:
        rows: one row a file.
        clusters: of these rows.
        folder: of the HTML file; recordings are linked relative to it.
        title: of the page.
    """
    paths = [os.path.abspath(file) for file in rows.files]
    digits = len(str(len(clusters) - 1))
    groups = [f"cluster {number:0{digits}d}" for number in clusters.labels.tolist()]  # in the order of their names
    index = Index.from_embeddings(rows.values, paths, groups)
    return map_page(index, folder, title=title, kind="cluster", lists=_lists(clusters))


def _lists(clusters: Clusters) -> list[tuple[str, list[tuple[int, str]]]]:
    known = not np.isnan(clusters.confidence).any()
    sure = clusters.confidence if known else np.zeros(len(clusters.labels))
    lists = []
    if known:
        least = np.argsort(sure, kind="stable")[:UNCERTAIN].tolist()
        notes = [f"{sure[i]:.2f} {_between(clusters, i)}" for i in least]
        lists.append(("Least certain: listen, and correct", list(zip(least, notes, strict=True))))
    best_first = np.lexsort((-sure, clusters.labels))
    starts = np.searchsorted(clusters.labels[best_first], np.arange(len(clusters) + 1))
    for number in range(min(len(clusters), LISTED)):
        members = best_first[starts[number] : starts[number + 1]]
        notes = [f"{sure[i]:.2f}" if known else "" for i in members[:EXAMPLES]]
        files = f"{len(members):,} file{'s' if len(members) > 1 else ''}"
        lists.append((f"Cluster {number}, {files}", list(zip(members[:EXAMPLES].tolist(), notes, strict=True))))
    return lists


def _between(clusters: Clusters, i: int) -> str:
    other = clusters.nearest[i]
    return f"cluster {clusters.labels[i]}" + (f" or {other}?" if other >= 0 else "?")
