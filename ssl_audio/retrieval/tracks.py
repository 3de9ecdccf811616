"""The content of an index at one moment: never changed in place, so that readers need no lock."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ssl_audio.errors import InputError


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks and their rows, which lie together: rows `offsets[t]` to `offsets[t + 1]` belong to track `t`.

    Attributes:
        rows: `(rows, dim)` float32, as `search.normalize` leaves them.
        offsets: `(tracks + 1,)` int64.
        ids: `(tracks,)` int64, ascending; a track keeps its id for life.
        stamps: `(tracks, 2)` int64: size in bytes and modification time in ns of the file when it was embedded.
        paths: of the files, relative to the library's folder where they lie in it.
        groups: artist, folder or whatever else recommendations are limited by.
    """

    rows: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    stamps: np.ndarray
    paths: list[str]
    groups: list[str]

    @classmethod
    def empty(cls, dim: int = 0) -> "Tracks":
        integers = np.empty(0, np.int64)
        return cls(np.empty((0, dim), np.float32), np.zeros(1, np.int64), integers, np.empty((0, 2), np.int64), [], [])

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def dim(self) -> int:
        return self.rows.shape[1]

    @cached_property
    def track_of_row(self) -> np.ndarray:
        """`(rows,)` int64."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def position_of_path(self) -> dict[str, int]:
        return {path: position for position, path in enumerate(self.paths)}

    def position_of_id(self, track_id: int) -> int:
        position = int(np.searchsorted(self.ids, track_id))
        if position == len(self.ids) or self.ids[position] != track_id:
            raise InputError(f"no track has the id {track_id}; ids are in index.ids")
        return position

    def rows_of(self, position: int) -> np.ndarray:
        """`(windows, dim)` of one track."""
        return self.rows[self.offsets[position] : self.offsets[position + 1]]

    def means(self, positions: np.ndarray | None = None) -> np.ndarray:
        """`(tracks, dim)`: the mean row of each track, or of those at `positions`."""
        if positions is None:
            if len(self.rows) == len(self):
                return self.rows
            return np.add.reduceat(self.rows, self.offsets[:-1]) / np.diff(self.offsets)[:, None].astype(np.float32)
        return np.stack([self.rows_of(position).mean(0) for position in positions])

    def appended(
        self,
        rows: Sequence[np.ndarray],
        paths: Sequence[str],
        groups: Sequence[str],
        stamps: Sequence[tuple[int, int]],
        next_id: int,
    ) -> "Tracks":
        """With new tracks at the end, `rows[i]` `(windows, dim)` of the i-th; a path already there is replaced."""
        old = self.without([self.position_of_path[path] for path in paths if path in self.position_of_path])
        if len(old) and rows and rows[0].shape[1] != old.dim:
            raise InputError(f"embeddings of size {rows[0].shape[1]} do not fit an index of size {old.dim}")
        lengths = np.cumsum([len(part) for part in rows], dtype=np.int64)
        return Tracks(
            rows=np.concatenate([old.rows, *rows]) if len(old) else np.concatenate(rows),
            offsets=np.concatenate([old.offsets, old.offsets[-1] + lengths]),
            ids=np.concatenate([old.ids, np.arange(next_id, next_id + len(paths), dtype=np.int64)]),
            stamps=np.concatenate([old.stamps, np.array(stamps, np.int64).reshape(-1, 2)]),
            paths=[*old.paths, *paths],
            groups=[*old.groups, *groups],
        )

    def without(self, positions: Sequence[int]) -> "Tracks":
        """Less the tracks at `positions`."""
        if not len(positions):
            return self
        keep = np.ones(len(self), bool)
        keep[list(positions)] = False
        lengths = np.diff(self.offsets)
        return Tracks(
            rows=self.rows[np.repeat(keep, lengths)],
            offsets=np.concatenate([[0], np.cumsum(lengths[keep])]).astype(np.int64),
            ids=self.ids[keep],
            stamps=self.stamps[keep],
            paths=[path for path, kept in zip(self.paths, keep, strict=True) if kept],
            groups=[group for group, kept in zip(self.groups, keep, strict=True) if kept],
        )

    def to_arrays(self) -> dict[str, np.ndarray]:
        names = json.dumps({"paths": self.paths, "groups": self.groups}).encode()  # ASCII: odd file names survive
        return {
            "rows": self.rows,
            "offsets": self.offsets,
            "ids": self.ids,
            "stamps": self.stamps,
            "names": np.frombuffer(names, np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Tracks":
        names = json.loads(arrays["names"].tobytes())
        columns = {name: arrays[name] for name in ("rows", "offsets", "ids", "stamps")}
        return cls(**columns, paths=names["paths"], groups=names["groups"])
