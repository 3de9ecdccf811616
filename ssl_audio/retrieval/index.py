"""The index: build, save, load, add, remove, recommend."""

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from ssl_audio import audio
from ssl_audio.errors import InputError
from ssl_audio.provenance import fingerprint, made_by
from ssl_audio.retrieval import building, storage
from ssl_audio.retrieval.ranking import Search, State
from ssl_audio.retrieval.search import METRICS, SEARCHES, normalize
from ssl_audio.retrieval.tracks import Tracks

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

Query = str | os.PathLike | int | np.ndarray | Tensor
_FILES_AT_ONCE = 64


class Index:
    """Embeddings of a library's tracks, searched by likeness. `build` or `from_embeddings` makes one, `load` opens one.

    Whole tracks are embedded as windows. With aggregate "mean" a track is the mean direction of its windows, and the
    score of two tracks is the cosine of their means. With "max" every window is kept, and the score is the largest
    cosine between any window of the one and any window of the other: tracks that share a passage.

    Any number of threads may call `recommend` while another adds or removes: each call sees one state.

    Attributes:
        settings: how the rows were made: metric, aggregate, search, window_seconds, hop_seconds, group, root (the
            library's folder; None for names that are not files), model (where it came from), fingerprint.
    """

    def __init__(self, settings: dict[str, Any] | None = None, model: "EmbeddingModel | None" = None) -> None:
        defaults = {"metric": "cosine", "aggregate": "mean", "search": "auto", "window_seconds": None}
        defaults |= {"hop_seconds": None, "group": "folder", "root": None, "model": None, "fingerprint": None}
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
        """Embed every audio file under a folder.

        Args:
            window_seconds, hop_seconds: as in `embedding.embed_files`; None embeds each file as one clip.
            aggregate: "mean" or "max", see the class.
            metric: "cosine" or "euclidean".
            search: "exact", "hnsw", "ivf", or "auto": by size (see `description`).
            group: what a group is: the "folder" that holds a file, or the "top_folder" below `folder` (an artist's).
            model_name: written into the index, so that commands find the model again.
            options: batch_size, device, workers of `embed_files`.

        Raises:
            InputError: no audio files there, or none that can be embedded (`failures` of an index lists some).
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
        """An index of `(tracks, dim)` embeddings that are there already; `paths` are names and need not be files."""
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
            raise InputError("the paths of an index must differ from each other")
        index._append(list(normalize(rows, metric)[:, None]), list(paths), list(groups), [(0, 0)] * len(rows))
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
        """Open a saved index; its vectors stay on disk and are mapped into memory.

        Args:
            model: needed for queries that are not in the index; must be the one that made it.
            root: where the library's folder lies now, if it has moved.
            verify: read the file once to compare its checksums.

        Raises:
            InputError: missing, damaged, not an index, of a newer version, or made by another model.
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
        """Write one file, atomically. A large index builds its FAISS part here if it has none yet."""
        state = self._state
        arrays = state.tracks.to_arrays()
        graph = state.searcher.serialize() if len(state.tracks) else None
        if graph is not None:
            arrays["faiss"] = graph
        storage.write_arrays(path, arrays, self.settings)

    def use(self, model: "EmbeddingModel") -> None:
        """Take this model for queries and additions. Raises InputError if another one made the index."""
        recorded = self.settings["fingerprint"]
        if (len(self) and recorded is None) or not (recorded is None or made_by(model, recorded)):
            maker = self.settings["model"] or "embeddings that were given"
            raise InputError(
                f"this index was made by another model ({maker}); use that one, or build it again with this one"
            )
        self.settings["fingerprint"] = fingerprint(model)
        self.model = model

    def __len__(self) -> int:
        return len(self._state.tracks)

    def __contains__(self, track: str | os.PathLike) -> bool:
        """Whether a file is in the index, by its path."""
        return self._position(self._state.tracks, track) is not None

    @property
    def ids(self) -> np.ndarray:
        """`(tracks,)` int64; an id stays with its track when others are added or removed."""
        return self._state.tracks.ids

    @property
    def paths(self) -> list[str]:
        """Of all tracks, in the order of `ids`."""
        return [self._full(path) for path in self._state.tracks.paths]

    @property
    def groups(self) -> list[str]:
        """Of all tracks, in the order of `ids`."""
        return list(self._state.tracks.groups)

    @property
    def embeddings(self) -> np.ndarray:
        """`(tracks, dim)` float32, in the order of `ids`: the mean of each track's rows."""
        return self._state.tracks.means()

    @property
    def description(self) -> str:
        """How it searches, in words."""
        return f"{self._state.searcher.description}, {self.settings['metric']}"

    def add(
        self,
        paths: Sequence[str | os.PathLike],
        *,
        groups: Sequence[str] | None = None,
        on_file: Callable[[], object] | None = None,
        **options: Any,
    ) -> building.Update:
        """Embed more files; one that is there already is embedded again. Bad files are listed in the result's `failed`.

        Args:
            groups: of the files; by default as for the library's folder.
            on_file: called after each file.
            options: batch_size, device, workers of `embed_files`.
        """
        model = self._needed_model("adding files")
        relative = [self._relative(path) for path in paths]
        given = dict(zip(relative, groups, strict=True)) if groups is not None else {}
        relative = list(dict.fromkeys(relative))
        result = building.Update()
        rows, names = [], []
        stamps = [building.stamp(Path(self._full(path))) for path in relative]  # before reading: a later change shows
        embedded = building.embed_tracks(model, [self._full(path) for path in relative], self.settings, **options)
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
        """Forget tracks, by path or id. Raises InputError if one is not there (then nothing is removed)."""
        state = self._state
        positions = [self._position(state.tracks, track) for track in tracks]
        if None in positions:
            raise InputError(f"{tracks[positions.index(None)]} is not in the index")
        self._state = State(state.tracks.without([p for p in positions if p is not None]), self.settings)

    def update(
        self,
        *,
        save_to: str | os.PathLike | None = None,
        save_every_seconds: float = 120.0,
        progress: bool = True,
        **options: Any,
    ) -> building.Update:
        """Follow the library's folder: embed new and changed files, forget those that are gone.

        Args:
            save_to: save there in between (and at the end), so that an interrupted run can go on where it was.
            options: batch_size, device, workers of `embed_files`.

        Raises:
            InputError: the folder is missing or holds no audio files.
        """
        if self.settings["root"] is None:
            raise InputError("this index was made from embeddings, not from a folder; there is nothing to follow")
        root = Path(self.settings["root"])
        files = audio.find_audio_files(root)
        if not files:
            raise InputError(f"{root}: holds no audio files ({' '.join(audio.EXTENSIONS)})")
        new, changed, gone = building.changes(self._state.tracks, root, files)
        total = building.Update(removed=gone)
        if gone:
            self.remove([self._full(path) for path in gone])
        pending = sorted(new + changed)
        pacer = building.Pacer(save_every_seconds)
        try:
            with tqdm(total=len(pending), desc="index", unit="file", disable=not progress or not pending) as bar:
                for start in range(0, len(pending), _FILES_AT_ONCE):
                    part = [self._full(path) for path in pending[start : start + _FILES_AT_ONCE]]
                    total.include(self.add(part, on_file=bar.update, **options))
                    if save_to is not None and len(self) and pacer.due():
                        self.save(save_to)
        finally:  # an interrupted run keeps what it has done
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
        """The `n` tracks most like a query, best first; the query itself is never among them.

        Args:
            query: a path (in the index or not), a track's id, or audio `(samples,)`. Several: a list of these, or
                audio `(batch, samples)`.
            sample_rate: of audio arrays in Hz; None says the model's. Other rates are resampled.
            per_group: at most so many tracks of one group.
            mmr: lambda of maximal marginal relevance in [0, 1]: 1 is plain relevance, lower is more varied. Chooses
                among the 10 n (at least 100) nearest.
            on_missing: called with the path of each hit whose file is gone, which is then skipped; warns by default.

        Returns:
            A list of `Recommendation`, or one such list a query if there are several. Shorter than `n` only if the
            library has no more tracks to give.

        Raises:
            InputError: unknown id, unreadable file, bad audio, or a query that needs the model when there is none.
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
        """(rows `(windows, dim)`, position of the track or None) of each query."""
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
                warnings.warn(f"{full} is gone since it was indexed; skipped", stacklevel=4)
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
        """As stored: relative to the library's folder where it lies in it, else absolute; a plain name without one."""
        root = self.settings["root"]
        if root is None:
            return os.fspath(path)
        full = os.path.abspath(path)
        return Path(full).relative_to(root).as_posix() if Path(full).is_relative_to(root) else full

    def _full(self, path: str) -> str:
        return path if self.settings["root"] is None else os.path.join(self.settings["root"], path)
