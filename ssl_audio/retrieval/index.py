"""The index of a library: build, save, load, add, remove, update and recommend."""

import logging
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ssl_audio import audio
from ssl_audio.config import build, describe
from ssl_audio.errors import InputError
from ssl_audio.level import level_of
from ssl_audio.provenance import fingerprint, made_by
from ssl_audio.retrieval import building, storage
from ssl_audio.retrieval.ranking import Search, State
from ssl_audio.retrieval.search import METRICS, SEARCHES, normalize
from ssl_audio.retrieval.tracks import Tracks

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

Query = str | os.PathLike | int | np.ndarray | Tensor
_FILES_AT_ONCE = 64

logger = logging.getLogger("ssl_audio.retrieval")


class Index:
    """The embeddings of the tracks of a library, searched by similarity.

    Make an index with `build` or `from_embeddings`; open a saved one with `load`.

    Each track is embedded window by window. With aggregate "mean", a track is represented by the mean direction of its
    windows, and the score of two tracks is the cosine of these means. With "max", all windows are kept, and the score
    is the largest cosine between a window of one track and a window of the other. It finds tracks with a common
    passage.

    Any number of threads may call `recommend` while another thread adds or removes tracks. Each call uses one
    consistent state.

    Attributes:
        settings: settings of the index: metric, aggregate, search, window_seconds, hop_seconds, group, root (folder of
            the library; None if the paths are not files), model (name of the model), fingerprint (of the model), level
            (the rule by which the level of its clips is set, see `ssl_audio.level`; None before it has a model).
    """

    def __init__(self, settings: dict[str, Any] | None = None, model: "EmbeddingModel | None" = None) -> None:
        defaults = {"metric": "cosine", "aggregate": "mean", "search": "auto", "window_seconds": None}
        defaults |= {
            "hop_seconds": None,
            "group": "folder",
            "root": None,
            "model": None,
            "fingerprint": None,
            "level": None,
        }
        self.settings: dict[str, Any] = defaults | {"next_id": 0} | (settings or {})
        choices = {"metric": METRICS, "aggregate": ("mean", "max"), "search": SEARCHES, "group": building.GROUPS}
        for name, allowed in choices.items():
            if self.settings[name] not in allowed:
                raise InputError(f"{name} is {self.settings[name]!r}; it must be one of {', '.join(allowed)}")
        self.model: EmbeddingModel | None = None
        self._state = State(Tracks.empty(), self.settings)
        if model is not None:
            self.use(model)

    @classmethod
    def build(
        cls,
        model: "EmbeddingModel",
        folder: str | os.PathLike,
        *,
        window_seconds: float | None = 10.0,
        hop_seconds: float | None = None,
        aggregate: str = "mean",
        metric: str = "cosine",
        search: str = "auto",
        group: str = "folder",
        model_name: str | None = None,
        progress: bool = True,
        **options: Any,
    ) -> "Index":
        """Embed every audio file below a folder.

        Args:
            model: the model.
            folder: the library.
            window_seconds: see `embed_files`; None embeds each file as one clip.
            hop_seconds: see `embed_files`.
            aggregate: "mean" or "max", see the class.
            metric: "cosine" or "euclidean".
            search: "exact", "hnsw", "ivf", or "auto" to choose by the number of rows (see `search.choose`).
            group: the group of a file: "folder" for the folder that holds it, "top_folder" for the first folder below
                `folder` (usually the artist).
            model_name: name of the model to store, so that commands can load the model.
            progress: show a progress bar.
            options: `batch_size`, `device` and `workers` of `embed_files`.

        Raises:
            InputError: the folder has no audio files, or none that can be embedded.
        """
        names = ("window_seconds", "hop_seconds", "aggregate", "metric", "search", "group")
        values = (window_seconds, hop_seconds, aggregate, metric, search, group)
        settings = dict(zip(names, values, strict=True)) | {"root": os.path.abspath(folder), "model": model_name}
        index = cls(settings, model)
        update = index.update(progress=progress, **options)
        if not len(index):
            path, reason = update.failed[0]
            raise InputError(
                f"{folder}: none of its {len(update.failed)} audio files can be embedded; {path}: {reason}"
            )
        return index

    @classmethod
    def from_embeddings(
        cls,
        embeddings: np.ndarray | Tensor,
        paths: Sequence[str],
        groups: Sequence[str] | None = None,
        *,
        metric: str = "cosine",
        search: str = "auto",
    ) -> "Index":
        """Make an index of existing embeddings.

        Args:
            embeddings: `(tracks, dim)`.
            paths: names of the tracks; they need not be files.
            groups: group of each track; default: the folder in its path.
            metric: "cosine" or "euclidean".
            search: see `build`.

        Raises:
            InputError: lengths differ, there are no embeddings, one is not finite, or a path is given twice.
        """
        index = cls({"metric": metric, "search": search})
        rows = embeddings.detach().cpu().numpy() if isinstance(embeddings, Tensor) else np.asarray(embeddings)
        groups = [building.group_of(path, "folder") for path in paths] if groups is None else groups
        if rows.ndim != 2 or not len(rows) == len(paths) == len(groups):
            raise InputError(f"{len(paths)} paths, {len(groups)} groups and embeddings {rows.shape} do not match")
        if not len(rows):
            raise InputError("an index needs at least one embedding")
        if not np.isfinite(rows).all():
            raise InputError(f"the embedding of {paths[int(np.argmin(np.isfinite(rows).all(1)))]} is not finite")
        if len(set(paths)) < len(paths):
            raise InputError("a path is given twice; the paths of an index must be distinct")
        index._append(list(normalize(rows, metric)[:, None]), list(paths), list(groups), [(0, 0, 0, 0)] * len(rows))
        return index

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        model: "EmbeddingModel | None" = None,
        *,
        root: str | os.PathLike | None = None,
        verify: bool = True,
    ) -> "Index":
        """Open a saved index. Its vectors stay on disk and are memory-mapped.

        Args:
            path: the index file.
            model: the model that made the index; needed for queries that are not in the index.
            root: the folder of the library, if it has moved.
            verify: read the whole file once to compare its checksums.

        Raises:
            InputError: the file is missing, damaged, not an index or of a newer version; or another model made it.
        """
        arrays, settings = storage.read_arrays(path, verify)
        if root is not None:
            settings["root"] = os.path.abspath(root)
        index = cls(settings)
        index._state = State(Tracks.from_arrays(arrays), settings, arrays.get("faiss"))
        if model is not None:
            index.use(model)
        return index

    def save(self, path: str | os.PathLike) -> None:
        """Write the index to one file, atomically. A large index without a FAISS part builds it first."""
        state = self._state
        arrays = state.tracks.to_arrays()
        graph = state.searcher.serialize() if len(state.tracks) else None
        if graph is not None:
            arrays["faiss"] = graph
        storage.write_arrays(path, arrays, self.settings)

    def use(self, model: "EmbeddingModel") -> None:
        """Set the model for queries and additions. Raises InputError if another model made the index."""
        recorded = self.settings["fingerprint"]
        if (len(self) and recorded is None) or not (recorded is None or made_by(model, recorded)):
            maker = self.settings["model"] or "unknown, from embeddings"
            raise InputError(f"another model ({maker}) made this index; use that one, or build it again with this one")
        level: Any = level_of(model)
        level = level if isinstance(level, str) else describe(level)
        if len(self) and self.settings["level"] is None:  # of 0.1, which knew no rule
            self.settings["level"] = "none"
            if level != "none":
                logger.warning(
                    "this index was made before models had a level rule, and is continued without one; to follow the "
                    "rule of its model, build it again (--rebuild)"
                )
        self.settings["level"] = self.settings["level"] or level
        self.settings["fingerprint"] = fingerprint(model)
        same = self.settings["level"] == level
        self.model = model if same else model.with_parts(level=build(self.settings["level"]))

    def __len__(self) -> int:
        return len(self._state.tracks)

    def __contains__(self, track: str | os.PathLike) -> bool:
        """Whether the index has a track with this path."""
        return self._position(self._state.tracks, track) is not None

    @property
    def ids(self) -> np.ndarray:
        """`(tracks,)` int64 ids of the tracks. The id of a track does not change when others are added or removed."""
        return self._state.tracks.ids

    @property
    def paths(self) -> list[str]:
        """Paths of all tracks, in the order of `ids`."""
        return [self._full(path) for path in self._state.tracks.paths]

    @property
    def groups(self) -> list[str]:
        """Groups of all tracks, in the order of `ids`."""
        return list(self._state.tracks.groups)

    @property
    def embeddings(self) -> np.ndarray:
        """`(tracks, dim)` float32 mean of the rows of each track, in the order of `ids`."""
        return self._state.tracks.means()

    @property
    def description(self) -> str:
        """Kind of search and metric, for messages."""
        return f"{self._state.searcher.description}, {self.settings['metric']}"

    def add(
        self,
        paths: Sequence[str | os.PathLike],
        *,
        groups: Sequence[str] | None = None,
        on_file: Callable[[], object] | None = None,
        **options: Any,
    ) -> building.Update:
        """Embed files and add them; a file that is in the index already is embedded again.

        Args:
            paths: audio files.
            groups: group of each file; default: see the setting `group`.
            on_file: called after each file.
            options: `batch_size`, `device` and `workers` of `embed_files`.

        Returns:
            The changes; bad files are in `failed`.

        Raises:
            InputError: the index has no model.
        """
        model = self._needed_model("adding files")
        relative = [self._relative(path) for path in paths]
        given = dict(zip(relative, groups, strict=True)) if groups is not None else {}
        relative = list(dict.fromkeys(relative))
        result = building.Update()
        rows, names = [], []
        full_paths = [self._full(path) for path in relative]
        stamps = [building.stamp(Path(path)) for path in full_paths]  # before reading, to notice later changes
        embedded = building.embed_tracks(model, full_paths, self.settings, **options)
        kept_stamps = []
        for path, mark, (_, part, reason) in zip(relative, stamps, embedded, strict=True):
            if on_file is not None:
                on_file()
            if part is None:
                result.failed.append((path, reason or "unknown"))
                continue
            (result.changed if path in self._state.tracks.position_of_path else result.added).append(path)
            rows.append(part)
            names.append(path)
            kept_stamps.append(mark)
        if rows:
            labels = [given.get(path) or building.group_of(path, self.settings["group"]) for path in names]
            self._append(rows, names, labels, kept_stamps)
        return result

    def remove(self, tracks: Sequence[str | os.PathLike | int]) -> None:
        """Remove tracks by path or id. Raises InputError if one is not in the index; then no track is removed."""
        state = self._state
        positions = [self._position(state.tracks, track) for track in tracks]
        if None in positions:
            raise InputError(f"{tracks[positions.index(None)]} is not in the index")
        self._state = State(state.tracks.without([p for p in positions if p is not None]), self.settings)

    def set_groups(self, groups: Sequence[str]) -> None:
        """Give every track another group; `groups` is in the order of `ids`. Raises InputError for another number."""
        if len(groups) != len(self):
            raise InputError(f"{len(groups)} groups do not fit an index of {len(self)} tracks")
        self._state = State(replace(self._state.tracks, groups=list(groups)), self.settings)

    def update(
        self,
        *,
        save_to: str | os.PathLike | None = None,
        save_every_seconds: float = 120.0,
        progress: bool = True,
        **options: Any,
    ) -> building.Update:
        """Update the index to the folder of the library: embed new and changed files, remove missing ones.

        Args:
            save_to: file to save the index to from time to time and at the end. An interrupted update can then be
                continued.
            save_every_seconds: time between two saves.
            progress: show a progress bar.
            options: `batch_size`, `device` and `workers` of `embed_files`.

        Raises:
            InputError: the folder is missing or holds no audio files, or the index was not made from a folder.
        """
        if self.settings["root"] is None:
            raise InputError("this index was made from embeddings, not from a folder, and cannot be updated")
        root = Path(self.settings["root"])
        files = audio.find_audio_files(root)
        if not files:
            raise InputError(f"{root}: holds no audio files ({' '.join(audio.EXTENSIONS)})")
        new, changed, removed = building.changes(self._state.tracks, root, files)
        total = building.Update(removed=removed)
        if removed:
            self.remove([self._full(path) for path in removed])
        pending = sorted(new + changed)
        save_interval = building.Interval(save_every_seconds)
        try:
            with tqdm(total=len(pending), desc="index", unit="file", disable=not progress or not pending) as bar:
                for start in range(0, len(pending), _FILES_AT_ONCE):
                    part = [self._full(path) for path in pending[start : start + _FILES_AT_ONCE]]
                    total.include(self.add(part, on_file=bar.update, **options))
                    if save_to is not None and len(self) and save_interval.due():
                        self.save(save_to)
        finally:  # also after an interrupt
            if save_to is not None and len(self):
                self.save(save_to)
        return total

    def recommend(
        self,
        query: Query | Sequence[Query],
        n: int = 10,
        *,
        sample_rate: int | None = None,
        per_group: int | None = None,
        mmr: float | None = None,
        on_missing: Callable[[str], object] | None = None,
    ) -> Any:
        """The `n` tracks most similar to a query, best first. The query itself is never among them.

        Args:
            query: a path (in the index or not), the id of a track, or audio `(samples,)`. Several queries: a list of
                these, or audio `(batch, samples)`.
            n: number of tracks.
            sample_rate: sample rate of audio arrays in Hz; None for the rate of the model. Other rates are resampled.
            per_group: maximum number of tracks of one group; None for no limit.
            mmr: lambda of maximal marginal relevance in [0, 1]. 1 is the order by similarity; lower values give more
                varied results. The candidates are the 10 n (at least 100) nearest tracks.
            on_missing: called with the path of each result whose file does not exist; default: a warning. Such results
                are skipped.

        Returns:
            A list of `Recommendation`; for several queries, a list of such lists. A list is shorter than `n` only if
            the library has no more tracks.

        Raises:
            InputError: an id is unknown, a file is unreadable, audio is invalid, or the query needs a model and the
                index has none.
        """
        if n < 1 or (per_group is not None and per_group < 1):
            raise InputError(f"n and per_group must be at least 1, got {n} and {per_group}")
        if mmr is not None and not 0 <= mmr <= 1:
            raise InputError(f"mmr is {mmr}; it must lie in [0, 1]")
        if not len(self):
            raise InputError("the index is empty; add files first")
        several = isinstance(query, (list, tuple)) or getattr(query, "ndim", 1) == 2
        state = self._state
        resolved = self._resolve(state.tracks, list(query) if several else [query], sample_rate)  # type: ignore
        search = Search(state, n, per_group, mmr, self._missing(on_missing))
        found = [
            [search.recommendation(position, score, self._full) for position, score in hits]
            for hits in search.run(resolved)
        ]
        return found if several else found[0]

    # --- queries

    def _resolve(
        self, tracks: Tracks, queries: list[Query], sample_rate: int | None
    ) -> list[tuple[np.ndarray, int | None]]:
        """(rows `(rows, dim)`, position of the track or None) of each query."""
        resolved: list[tuple[np.ndarray, int | None]] = []
        for query in queries:
            position = self._position(tracks, query) if isinstance(query, (str, os.PathLike, int, np.integer)) else None
            if position is not None:
                resolved.append((tracks.rows_of(position), position))
                continue
            model = self._needed_model("a query that is not in the index")
            if isinstance(query, (str, os.PathLike)):
                _, rows, reason = next(building.embed_tracks(model, [query], self.settings))
                if rows is None:
                    raise InputError(reason or f"{query}: cannot be embedded")
            else:
                rows = building.embed_array(model, query, sample_rate, self.settings)  # type: ignore[arg-type]
            resolved.append((rows, None))
        return resolved

    def _position(self, tracks: Tracks, track: str | os.PathLike | int) -> int | None:
        if isinstance(track, (int, np.integer)):
            return tracks.position_of_id(int(track))
        position = tracks.position_of_path.get(os.fspath(track))
        return tracks.position_of_path.get(self._relative(track)) if position is None else position

    def _missing(self, report: Callable[[str], object] | None) -> Callable[[str], bool]:
        if self.settings["root"] is None:
            return lambda path: False

        def missing(path: str) -> bool:
            full = self._full(path)
            if os.path.exists(full):
                return False
            if report is None:
                warnings.warn(f"{full} does not exist any more; skipped", stacklevel=4)
            else:
                report(full)
            return True

        return missing

    def _needed_model(self, what: str) -> "EmbeddingModel":
        if self.model is None:
            raise InputError(f"{what} needs the model that made the index; give it: Index.load(path, model)")
        return self.model

    # --- content

    def _append(self, rows: list[np.ndarray], paths: list[str], groups: list[str], stamps: list) -> None:
        tracks = self._state.tracks.appended(rows, paths, groups, stamps, self.settings["next_id"])
        self.settings["next_id"] += len(paths)
        self._state = State(tracks, self.settings)

    def _relative(self, path: str | os.PathLike) -> str:
        """A path as it is stored: relative if it is in the library, else its real path; unchanged without a library."""
        root = self.settings["root"]
        if root is None:
            return os.fspath(path)
        full, real = Path(os.path.abspath(path)), Path(os.path.realpath(path))
        if full.is_relative_to(root):
            return full.relative_to(root).as_posix()
        library = os.path.realpath(root)
        return real.relative_to(library).as_posix() if real.is_relative_to(library) else os.fspath(real)

    def _full(self, path: str) -> str:
        return path if self.settings["root"] is None else os.path.join(self.settings["root"], path)
