"""How good the neighbours are: precision at k, hit rate, mean average precision, with the artist filter.

Each item queries all others. A neighbour is relevant if it has the query's label. Songs of one artist, album or studio
sound alike whatever their genre, so genre is judged with the query's own artist left out of the candidates (the artist
filter: Pampalk et al., ISMIR 2005; Flexer, ISMIR 2007); with `exclude` the same goes for takes of one recording.
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
        labels: of each item: artist, genre, instrument.
        exclude: items that share the query's value here are no candidates (artists for the artist filter). An item
            never is its own candidate.
        ks: lengths of the list that is judged.

    Returns:
        `mean_average_precision` over the whole ranking; per k `precision_at_k`, the share of relevant items among the k
        nearest (the k of all lists that are shorter count as misses), and `hit_rate_at_k`, the share of queries with a
        relevant one among them; `chance`, the precision that a random order would have; `queries`, how many were
        judged, and `queries_without_match`, left out because no candidate is relevant.

    Raises:
        InputError: lengths differ, values are not finite, a k below 1, or no query has a relevant candidate.
    """
    x = np.asarray(embeddings, np.float64)
    if x.ndim != 2 or len(x) != len(labels) or (exclude is not None and len(x) != len(exclude)):
        raise InputError(f"embeddings {x.shape}, {len(labels)} labels and the values to exclude must match in number")
    if not np.isfinite(x).all():
        raise InputError(f"embedding {int(np.argmin(np.isfinite(x).all(1)))} is not finite")
    if min(ks, default=0) < 1:
        raise InputError(f"ks must be at least 1, got {list(ks)}")
    x = (x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    label = _numbered(labels)
    apart = np.arange(len(x)) if exclude is None else _numbered(exclude)
    parts = [_judge(x, label, apart, slice(start, start + _BLOCK), ks) for start in range(0, len(x), _BLOCK)]
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {}
    judged = columns["matches"] > 0 if parts else np.zeros(0, bool)
    if not judged.any():
        raise InputError("no item has another one of its label among the candidates; there is nothing to retrieve")
    result = {name: float(values[judged].mean()) for name, values in columns.items() if name != "matches"}
    return result | {"queries": int(judged.sum()), "queries_without_match": int((~judged).sum())}


def library_metrics(
    embeddings: np.ndarray,
    artists: Sequence,
    genres: Sequence | None = None,
    ks: Sequence[int] = (1, 5, 10),
    takes: Sequence | None = None,
) -> dict[str, dict[str, float]]:
    """`same_artist` (if one has two tracks), `same_genre` and `same_genre_other_artist` (the artist filter).

    With `takes` clips of one recording are no candidates when the artist is asked for.
    """
    tables = {}
    if len(set(artists)) < (len(artists) if takes is None else len(set(zip(artists, takes, strict=True)))):
        tables["same_artist"] = retrieval_metrics(embeddings, artists, takes, ks)
    if genres is not None:
        tables["same_genre"] = retrieval_metrics(embeddings, genres, ks=ks)
        tables["same_genre_other_artist"] = retrieval_metrics(embeddings, genres, artists, ks)
    return tables


def _judge(
    x: np.ndarray, label: np.ndarray, apart: np.ndarray, queries: slice, ks: Sequence[int]
) -> dict[str, np.ndarray]:
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
    """Ranks of the relevant items, from 1, ascending; of equal scores the first item comes first.

    Values alone are sorted, not positions: that is several times quicker, and enough where no scores are equal.
    """
    wanted, ordered = np.sort(scores[relevant]), np.sort(scores)
    above, from_here = (len(scores) - np.searchsorted(ordered, wanted, side=side) for side in ("right", "left"))
    if np.all(from_here - above == 1):
        return above[::-1] + 1
    return np.flatnonzero(relevant[np.argsort(-scores, kind="stable")]) + 1


def _numbered(values: Sequence) -> np.ndarray:
    numbers: dict = {}
    return np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
