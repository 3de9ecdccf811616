"""From query rows to ranked tracks: windows merged into tracks, the query left out, groups limited, variety."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.retrieval.search import ExactSearch, Searcher, choose, make_searcher, normalize
from ssl_audio.retrieval.select import maximal_marginal_relevance, select
from ssl_audio.retrieval.tracks import Tracks


@dataclass(frozen=True)
class Recommendation:
    """One neighbour. `score` grows with likeness: cosine in [-1, 1], or minus the Euclidean distance."""

    path: str
    score: float
    group: str
    id: int


class State:
    """Tracks and their searcher, which is made when first needed and then shared by all readers."""

    def __init__(self, tracks: Tracks, settings: dict[str, Any], faiss_index: np.ndarray | None = None) -> None:
        self.tracks, self.metric = tracks, settings["metric"]
        self._search, self._faiss_index = settings["search"], faiss_index
        self._lock = threading.Lock()
        self._searcher: Searcher | None = None

    @property
    def searcher(self) -> Searcher:
        with self._lock:
            if self._searcher is None:
                kind = choose(len(self.tracks.rows), self._search)
                self._searcher = make_searcher(self.tracks.rows, self.metric, kind, self._faiss_index)
            return self._searcher


class Search:
    """One call of `Index.recommend`: what is asked, and which files were found gone.

    Args:
        n: tracks a query.
        per_group: at most so many of one group; None for any number.
        mmr: weight of maximal marginal relevance; None for plain order.
        missing: says whether a track's file is gone, by its stored path; asked at most once a track.
    """

    def __init__(
        self, state: State, n: int, per_group: int | None, mmr: float | None, missing: Callable[[str], bool]
    ) -> None:
        self.tracks, self.metric, self.searcher = state.tracks, state.metric, state.searcher
        self.n, self.per_group, self.mmr, self.missing = n, per_group, mmr, missing
        self.pool = n if mmr is None else max(10 * n, 100)
        self._gone: dict[int, bool] = {}

    def run(self, queries: list[tuple[np.ndarray, int | None]]) -> Iterator[list[tuple[int, float]]]:
        """(position, score) of the chosen tracks of each query.

        Args:
            queries: rows `(windows, dim)` of each, and its own position in the index or None.
        """
        if not queries:
            return
        windows = len(self.tracks.rows) / len(self.tracks)
        wanted = (self.pool + 1) * (1 if self.per_group is None else 4)
        k = int(np.ceil(wanted * (windows if windows == 1 else 2 * windows)))
        scores, rows = self.searcher.nearest(np.concatenate([part for part, _ in queries]), k)
        start = 0
        for part, own in queries:
            end = start + len(part)
            yield self._one(part, own, scores[start:end], rows[start:end])
            start = end

    def recommendation(self, position: int, score: float, full: Callable[[str], str]) -> Recommendation:
        tracks = self.tracks
        return Recommendation(full(tracks.paths[position]), score, tracks.groups[position], int(tracks.ids[position]))

    def _one(self, query: np.ndarray, own: int | None, scores: np.ndarray, rows: np.ndarray) -> list[tuple[int, float]]:
        total = len(self.tracks.rows)
        while True:
            k = rows.shape[1]
            positions, values = self._tracks(scores, rows, everything=k >= total)
            keep = positions != (-1 if own is None else own)
            hits, examined = self._pick(positions[keep], values[keep])
            if k >= total or (len(hits) == self.n and examined >= self.pool):
                return hits
            # Groups, gone files or many windows used the candidates up: ask again, exactly, for more.
            k = min(4 * k, total)
            scores, rows = ExactSearch(self.tracks.rows, self.metric).nearest(query, k)

    def _tracks(self, scores: np.ndarray, rows: np.ndarray, everything: bool) -> tuple[np.ndarray, np.ndarray]:
        """`(windows, k)` row hits -> tracks by their best pair of windows, down to where the lists are complete."""
        complete_to = -np.inf if everything else scores[:, -1].max()
        flat_scores, flat_rows = scores.ravel(), rows.ravel()
        known = (flat_rows >= 0) & (flat_scores >= complete_to)
        if len(self.tracks.rows) == len(self.tracks) and len(scores) == 1:
            return flat_rows[known], flat_scores[known]  # one row a track, in order already
        flat_scores, tracks = flat_scores[known], self.tracks.track_of_row[flat_rows[known]]
        order = np.argsort(-flat_scores, kind="stable")
        _, first = np.unique(tracks[order], return_index=True)
        best = order[np.sort(first)]
        return tracks[best], flat_scores[best]

    def _pick(self, positions: np.ndarray, values: np.ndarray) -> tuple[list[tuple[int, float]], int]:
        """The chosen (position, score), and how many candidates there were to choose from."""
        while True:
            here = np.array([not self._gone.get(int(position), False) for position in positions], bool)
            positions, values = positions[here], values[here]
            groups = [self.tracks.groups[position] for position in positions]
            if self.mmr is None:
                chosen = select(values, groups, self.n, self.per_group)
            elif len(positions):
                vectors = normalize(self.tracks.means(positions[: self.pool]), self.metric)
                pool = values[: self.pool]
                chosen = maximal_marginal_relevance(
                    pool, vectors, groups[: self.pool], self.n, self.mmr, self.metric, self.per_group
                )
            else:
                chosen = []
            lost = False
            for position in positions[chosen]:
                if int(position) not in self._gone:
                    self._gone[int(position)] = self.missing(self.tracks.paths[position])
                lost |= self._gone[int(position)]
            if not lost:
                hits = [
                    (int(position), float(value))
                    for position, value in zip(positions[chosen], values[chosen], strict=True)
                ]
                return hits, len(positions)
