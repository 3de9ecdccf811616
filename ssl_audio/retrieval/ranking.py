"""Ranked tracks for a query: merges windows into tracks, leaves the query out, limits groups, varies the results."""

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
    """A recommended track.

    Attributes:
        path: path of the track.
        score: similarity to the query: the cosine in [-1, 1], or the negative Euclidean distance.
        group: group of the track.
        id: id of the track.
    """

    path: str
    score: float
    group: str
    id: int


class State:
    """The tracks of an index at one moment, with their searcher. All threads share it; it is built at its first use.

    Args:
        tracks: the tracks.
        settings: settings of the index; `metric` and `search` are used.
        faiss_index: a serialised FAISS index of the rows; None to build one if the search needs it.
    """

    def __init__(self, tracks: Tracks, settings: dict[str, Any], faiss_index: np.ndarray | None = None) -> None:
        self.tracks, self.metric = tracks, settings["metric"]
        self._search, self._faiss_index = settings["search"], faiss_index
        self._lock = threading.Lock()
        self._searcher: Searcher | None = None

    @property
    def searcher(self) -> Searcher:
        """The searcher of the rows."""
        with self._lock:
            if self._searcher is None:
                kind = choose(len(self.tracks.rows), self._search)
                self._searcher = make_searcher(self.tracks.rows, self.metric, kind, self._faiss_index)
            return self._searcher


class Search:
    """The search of one call of `Index.recommend`.

    Args:
        state: tracks and searcher.
        n: number of tracks per query.
        per_group: maximum number of tracks of one group; None for no limit.
        mmr: weight of maximal marginal relevance; None for the order by similarity.
        missing: tells from the stored path of a track whether its file is missing; called once per track at most.
    """

    def __init__(
        self, state: State, n: int, per_group: int | None, mmr: float | None, missing: Callable[[str], bool]
    ) -> None:
        self.tracks, self.metric, self.searcher = state.tracks, state.metric, state.searcher
        self.n, self.per_group, self.mmr, self.missing = n, per_group, mmr, missing
        self.pool = n if mmr is None else max(10 * n, 100)
        self._missing: dict[int, bool] = {}

    def run(self, queries: list[tuple[np.ndarray, int | None]]) -> Iterator[list[tuple[int, float]]]:
        """Search for the tracks of several queries.

        Args:
            queries: (rows `(rows, dim)`, position of the query in the index or None) of each query.

        Yields:
            [(position, score)] of the chosen tracks of each query.
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
        """The recommendation of the track at a position; `full` turns its stored path into a full path."""
        tracks = self.tracks
        return Recommendation(full(tracks.paths[position]), score, tracks.groups[position], int(tracks.ids[position]))

    def _one(self, query: np.ndarray, own: int | None, scores: np.ndarray, rows: np.ndarray) -> list[tuple[int, float]]:
        total = len(self.tracks.rows)
        while True:
            k = rows.shape[1]
            complete = k >= total and bool((rows >= 0).all())  # an approximate search fills what it misses with -1
            positions, values = self._tracks(scores, rows, everything=complete)
            keep = positions != (-1 if own is None else own)
            hits, examined = self._pick(positions[keep], values[keep])
            if complete or (len(hits) == self.n and examined >= self.pool):
                return hits
            # Limits of groups, missing files or many windows of one track left too few candidates: search for more.
            k = min(4 * k, total)
            scores, rows = ExactSearch(self.tracks.rows, self.metric).nearest(query, k)

    def _tracks(self, scores: np.ndarray, rows: np.ndarray, everything: bool) -> tuple[np.ndarray, np.ndarray]:
        """Merge the nearest rows of the windows of a query into tracks.

        The score of a track is that of its best pair of windows. Scores below the last listed score of any window are
        left out: an unlisted row of the same track could have a higher score there.

        Args:
            scores, rows: `(windows, k)` scores and row numbers from the searcher.
            everything: whether the lists hold all rows.

        Returns:
            (positions of tracks, their scores), best first.
        """
        complete_to = -np.inf if everything else scores[:, -1].max()
        flat_scores, flat_rows = scores.ravel(), rows.ravel()
        known = (flat_rows >= 0) & (flat_scores >= complete_to)
        if len(self.tracks.rows) == len(self.tracks) and len(scores) == 1:
            return flat_rows[known], flat_scores[known]  # with one row per track, they are in order already
        flat_scores, tracks = flat_scores[known], self.tracks.track_of_row[flat_rows[known]]
        order = np.argsort(-flat_scores, kind="stable")
        _, first = np.unique(tracks[order], return_index=True)
        best = order[np.sort(first)]
        return tracks[best], flat_scores[best]

    def _pick(self, positions: np.ndarray, values: np.ndarray) -> tuple[list[tuple[int, float]], int]:
        """Choose tracks among candidates.

        Returns:
            ([(position, score)] of the chosen tracks, number of candidates whose files are not missing).
        """
        while True:
            here = np.array([not self._missing.get(int(position), False) for position in positions], bool)
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
                if int(position) not in self._missing:
                    self._missing[int(position)] = self.missing(self.tracks.paths[position])
                lost |= self._missing[int(position)]
            if not lost:
                hits = [
                    (int(position), float(value))
                    for position, value in zip(positions[chosen], values[chosen], strict=True)
                ]
                return hits, len(positions)
