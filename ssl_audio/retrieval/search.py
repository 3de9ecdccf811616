"""Search for the nearest rows of a matrix, exactly, or approximately with FAISS and exact scores of its candidates.

Every searcher has `description` and `nearest(queries, k) -> (scores, rows)`, best first. A score is the cosine in
[-1, 1] or the negative Euclidean distance. Searchers do not change, so any number of threads may share one.
"""

from functools import cached_property
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
from tqdm import tqdm

from ssl_audio.errors import InputError
from ssl_audio.utils.extras import install_command

METRICS = ("cosine", "euclidean")
SEARCHES = ("auto", "exact", "hnsw", "ivf")

EXACT_ROWS = 50_000
"""Up to this number of rows, `auto` compares with every row, which takes a few milliseconds per query."""

HNSW_ROWS = 2_000_000
"""Up to this number of rows, `auto` builds an HNSW graph; beyond, an inverted file (smaller, built faster)."""

_BLOCK = 1 << 25  # scores in memory at a time: 128 MB


class Searcher(Protocol):
    """The interface of searchers.

    Attributes:
        kind: "exact", "hnsw" or "ivf".
        description: kind and size in words.
        rows: `(n, dim)` float32.
    """

    kind: str
    description: str
    rows: np.ndarray

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`(q, dim)` queries -> `(q, k)` scores and row numbers, best first."""
        ...

    def serialize(self) -> np.ndarray | None:
        """The data to store beside the rows as `(bytes,)` uint8; None if there are none."""
        ...


def choose(rows: int, search: str = "auto") -> str:
    """Choose the kind of search.

    Args:
        rows: number of rows.
        search: "exact", "hnsw", "ivf", or "auto" to choose by the number of rows and by whether FAISS is installed.

    Returns:
        "exact", "hnsw" or "ivf".

    Raises:
        InputError: the search is unknown.
    """
    if search not in SEARCHES:
        raise InputError(f"search is {search!r}; it must be one of {', '.join(SEARCHES)}")
    if search != "auto":
        return search
    if rows <= EXACT_ROWS or find_spec("faiss") is None:
        return "exact"
    return "hnsw" if rows <= HNSW_ROWS else "ivf"


def normalize(rows: np.ndarray, metric: str) -> np.ndarray:
    """Prepare rows for a metric: "cosine" scales them to length 1 (zeros stay zero), "euclidean" leaves them unchanged.

    Args:
        rows: `(n, dim)`.
        metric: "cosine" or "euclidean".

    Returns:
        `(n, dim)` float32.
    """
    rows = np.ascontiguousarray(rows, np.float32)
    if metric == "euclidean":
        return rows
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def similarity(queries: np.ndarray, rows: np.ndarray, metric: str) -> np.ndarray:
    """Scores of queries against rows; both must have passed `normalize`.

    Args:
        queries: `(..., q, dim)`.
        rows: `(..., n, dim)`.
        metric: "cosine" or "euclidean".

    Returns:
        `(..., q, n)`.
    """
    if metric == "cosine":
        return np.clip(queries @ np.swapaxes(rows, -1, -2), -1, 1)
    difference = queries[..., :, None, :] - rows[..., None, :, :]
    return -np.sqrt(np.einsum("...d,...d->...", difference, difference))


class ExactSearch:
    """Compares with every row, in blocks of queries of bounded memory.

    Args:
        rows: `(n, dim)` float32 from `normalize`; may be a memory map.
        metric: "cosine" or "euclidean".
    """

    kind = "exact"

    def __init__(self, rows: np.ndarray, metric: str = "cosine") -> None:
        self.rows, self.metric = rows, metric
        self.description = f"exact search over {len(rows):,} vectors"
        if len(rows) > EXACT_ROWS and find_spec("faiss") is None:
            self.description += f" (for a faster search, install FAISS: {install_command('search')})"

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`(q, dim)` queries -> `(q, k)` scores and row numbers; k is reduced to the number of rows."""
        k = min(k, len(self.rows))
        scores, numbers = [np.empty((0, k), np.float32)], [np.empty((0, k), np.int64)]
        size = max(1, _BLOCK // max(1, len(self.rows)))
        for block in (queries[start : start + size] for start in range(0, len(queries), size)):
            # numpy multiplies, because torch warns about read-only maps; torch selects, because it is ten times faster
            products = block @ self.rows.T
            if self.metric == "cosine":
                values, indices = _top(torch.from_numpy(products), k)
                scores.append(values.clamp_(-1, 1).numpy())
                numbers.append(indices.numpy())
            else:  # q x - |x|^2 / 2 has the order of -|q - x|; rounding may swap near-equal rows, so rescore a few more
                products -= self._half_squares
                _, indices = _top(torch.from_numpy(products), min(k + 8, len(self.rows)))
                found = _rescored(block, self.rows, indices.numpy(), k, self.metric)
                scores.append(found[0])
                numbers.append(found[1])
        return np.concatenate(scores), np.concatenate(numbers)

    def serialize(self) -> None:
        """None: an exact search needs only the rows."""

    @cached_property
    def _half_squares(self) -> np.ndarray:
        return 0.5 * np.einsum("nd,nd->n", self.rows, self.rows)


def _top(scores: torch.Tensor, k: int, chunk: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """`topk` of each row, faster for long rows: the k largest values are in the k chunks with the largest maxima."""
    n = scores.shape[1]
    if n < 8 * k * chunk:
        best = scores.topk(k)
        return best.values, best.indices
    whole = n - n % chunk
    chunks = scores[:, :whole].unflatten(1, (-1, chunk)).amax(2).topk(k).indices
    columns = (chunks[:, :, None] * chunk + torch.arange(chunk)).flatten(1)
    columns = torch.cat([columns, torch.arange(whole, n).expand(len(scores), -1)], 1)
    best = scores.gather(1, columns).topk(k)
    return best.values, columns.gather(1, best.indices)


def _rescored(
    queries: np.ndarray, rows: np.ndarray, candidates: np.ndarray, k: int, metric: str
) -> tuple[np.ndarray, np.ndarray]:
    """Exact scores of candidate rows.

    Args:
        queries: `(q, dim)`.
        rows: `(n, dim)`.
        candidates: `(q, c)` row numbers; -1 for no candidate, which scores -inf.
        k: number of rows to return.
        metric: "cosine" or "euclidean".

    Returns:
        `(q, k)` scores and row numbers, best first.
    """
    scores = np.empty(candidates.shape, np.float32)
    for start in range(0, len(queries), 256):
        part = slice(start, start + 256)
        found = rows[np.maximum(candidates[part], 0)]
        scores[part] = similarity(queries[part, None], found, metric)[:, 0]
    scores[candidates < 0] = -np.inf
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, order, 1), np.take_along_axis(candidates, order, 1)


class ApproximateSearch:
    """Approximate search: FAISS finds candidates with 8-bit codes; their scores are then computed exactly.

    - "hnsw": a graph (Malkov & Yashunin 2016, https://arxiv.org/abs/1603.09320) with 16 links per node, efConstruction
      80 and efSearch 64.
    - "ivf": k-means cells; a query searches one cell in 32.

    Args:
        kind: "hnsw" or "ivf".
        rows: `(n, dim)` float32 from `normalize`.
        metric: "cosine" or "euclidean".
        faiss_index: what `serialize` returned for the same rows; None builds it.
    """

    def __init__(
        self, kind: str, rows: np.ndarray, metric: str = "cosine", faiss_index: np.ndarray | None = None
    ) -> None:
        import faiss

        self.kind, self.rows, self.metric = kind, rows, metric
        if faiss_index is not None:
            self._faiss: Any = faiss.deserialize_index(np.asarray(faiss_index))
        else:
            self._faiss = self._make(faiss)
            self._faiss.train(np.asarray(rows))
            for start in tqdm(range(0, len(rows), 10_000), desc=kind, disable=len(rows) <= EXACT_ROWS):
                self._faiss.add(np.asarray(rows[start : start + 10_000]))
        if kind == "hnsw":
            self._faiss.hnsw.efSearch = 64
            detail = "an HNSW graph"
        else:
            self._faiss.nprobe = max(8, self._faiss.nlist // 32)
            detail = f"an inverted file of {self._faiss.nlist:,} cells"
        self.description = f"approximate search (FAISS, {detail}) over {len(rows):,} vectors"

    def _make(self, faiss: Any) -> Any:
        dim = self.rows.shape[1]
        codes = faiss.ScalarQuantizer.QT_8bit
        distance = faiss.METRIC_INNER_PRODUCT if self.metric == "cosine" else faiss.METRIC_L2
        if self.kind == "hnsw":
            index = faiss.IndexHNSWSQ(dim, codes, 16, distance)
            index.hnsw.efConstruction = 80
            return index
        cells = max(1, min(int(4 * len(self.rows) ** 0.5), len(self.rows) // 39))  # k-means wants 39 rows a cell
        centres = faiss.IndexFlat(dim, distance)
        index = faiss.IndexIVFScalarQuantizer(centres, dim, cells, codes, distance)
        index.own_fields = True
        centres.this.disown()
        return index

    def nearest(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """`(q, dim)` queries -> `(q, k)` scores and row numbers; missing results are -1 with the score -inf."""
        k = min(k, len(self.rows))
        _, candidates = self._faiss.search(queries, min(4 * k, len(self.rows)))
        return _rescored(queries, self.rows, candidates, k, self.metric)

    def serialize(self) -> np.ndarray:
        """The FAISS index as `(bytes,)` uint8."""
        import faiss

        return faiss.serialize_index(self._faiss)


def make_searcher(
    rows: np.ndarray, metric: str = "cosine", search: str = "auto", faiss_index: np.ndarray | None = None
) -> Searcher:
    """The searcher that `choose` names for these rows."""
    kind = choose(len(rows), search)
    return ExactSearch(rows, metric) if kind == "exact" else ApproximateSearch(kind, rows, metric, faiss_index)
