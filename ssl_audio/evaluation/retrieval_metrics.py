"""Retrieval metrics: precision at k, hit rate and mean average precision, with the artist filter.

Each item is a query against all other items. A candidate is relevant if it has the label of the query.

Songs of one artist, album or studio sound similar whatever their genre. A metric about genre therefore leaves the songs
of the query's artist out of the candidates (the artist filter: Pampalk et al., ISMIR 2005; Flexer, ISMIR 2007). In the
same way, a metric about singers can leave out clips of the query's recording.
"""

from collections.abc import Sequence

import numpy as np

from ssl_audio.errors import InputError

_BLOCK = 256


def retrieval_metrics(
    embeddings: np.ndarray, labels: Sequence, exclude: Sequence | None = None, ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Leave-one-out retrieval by cosine.

    Args:
        embeddings: `(items, dim)`, finite.
        labels: label of each item, such as artist, genre or instrument.
        exclude: a value for each item, such as its artist for the artist filter. Items with the value of the query are
            no candidates. An item is never a candidate for itself.
        ks: lengths of the result list.

    Returns:
        The means over the queries of:

        - `mean_average_precision`: of the whole ranking.
        - `precision_at_k`, for each k: fraction of relevant items among the k nearest; if there are fewer candidates
          than k, the missing places count as misses.
        - `hit_rate_at_k`, for each k: fraction of queries with a relevant item among the k nearest.
        - `chance`: precision of a random order.

        And two numbers: `queries`, and `queries_without_match`, the items that were left out because no candidate is
        relevant.

    Raises:
        InputError: lengths differ, embeddings are not finite, a k is below 1, or no query has a relevant candidate.
    """
    x = np.asarray(embeddings, np.float64)
    if x.ndim != 2 or len(x) != len(labels) or (exclude is not None and len(x) != len(exclude)):
        raise InputError(f"embeddings {x.shape}, {len(labels)} labels and the values to exclude must match in number")
    if not np.isfinite(x).all():
        raise InputError(f"embedding {int(np.argmin(np.isfinite(x).all(1)))} is not finite; check the model's weights")
    if min(ks, default=0) < 1:
        raise InputError(f"ks must be at least 1, got {list(ks)}")
    x = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    label = _numbered(labels)
    apart = np.arange(len(x)) if exclude is None else _numbered(exclude)
    parts = [_query_metrics(x, label, apart, slice(start, start + _BLOCK), ks) for start in range(0, len(x), _BLOCK)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    matched = columns["matches"] > 0 if parts else np.zeros(0, bool)
    if not matched.any():
        raise InputError("no item has a candidate with its label; retrieval needs two items of one label")
    result = {name: float(values[matched].mean()) for name, values in columns.items() if name != "matches"}
    return result | {"queries": int(matched.sum()), "queries_without_match": int((~matched).sum())}


def library_metrics(
    embeddings: np.ndarray,
    artists: Sequence,
    genres: Sequence | None = None,
    ks: Sequence[int] = (1, 5, 10),
    takes: Sequence | None = None,
) -> dict[str, dict[str, float]]:
    """Retrieval metrics of a music library.

    Args:
        embeddings: `(items, dim)`.
        artists: artist of each item.
        genres: genre of each item; None leaves the genre metrics out.
        ks: lengths of the result list.
        takes: recording of each item; for `same_artist`, clips of the query's recording are no candidates.

    Returns:
        {"same_artist", "same_genre", "same_genre_other_artist" (with the artist filter): `retrieval_metrics`}.
        `same_artist` is missing if no artist has two items (or two recordings).
    """
    tables = {}
    if len(set(artists)) < (len(artists) if takes is None else len(set(zip(artists, takes, strict=True)))):
        tables["same_artist"] = retrieval_metrics(embeddings, artists, takes, ks)
    if genres is not None:
        tables["same_genre"] = retrieval_metrics(embeddings, genres, ks=ks)
        tables["same_genre_other_artist"] = retrieval_metrics(embeddings, genres, artists, ks)
    return tables


def _query_metrics(
    x: np.ndarray, label: np.ndarray, apart: np.ndarray, queries: slice, ks: Sequence[int]
) -> dict[str, np.ndarray]:
    """{metric: (queries,)} of a block of queries, and the number of relevant candidates as `matches`."""
    scores = x[queries] @ x.T
    candidate = apart[queries, None] != apart[None]
    candidate[np.arange(len(scores)), np.arange(len(x))[queries]] = False
    relevant = (label[queries, None] == label[None]) & candidate
    scores[~candidate] = -np.inf
    ranks = [_ranks(row, found) for row, found in zip(scores, relevant, strict=True)]
    matches = np.array([len(row) for row in ranks])
    result = {
        "matches": matches,
        "mean_average_precision": np.array([np.mean(np.arange(1, len(r) + 1) / r) if len(r) else 0.0 for r in ranks]),
        "chance": matches / np.maximum(candidate.sum(1), 1),
    }
    for k in ks:
        top = np.array([np.count_nonzero(row <= k) for row in ranks])
        result |= {f"precision_at_{k}": top / k, f"hit_rate_at_{k}": (top > 0).astype(float)}
    return result


def _ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Ranks of the relevant items, from 1, ascending; among equal scores, the first item comes first.

    The function sorts values, not positions, which is several times faster. Only if scores are equal it sorts
    positions.
    """
    wanted, ordered = np.sort(scores[relevant]), np.sort(scores)
    above, from_here = (len(scores) - np.searchsorted(ordered, wanted, side=side) for side in ("right", "left"))
    if np.all(from_here - above == 1):
        return above[::-1] + 1
    return np.flatnonzero(relevant[np.argsort(-scores, kind="stable")]) + 1


def _numbered(values: Sequence) -> np.ndarray:
    """(values,) one integer per distinct value."""
    numbers: dict = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
