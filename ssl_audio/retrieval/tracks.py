"""The tracks of an index. They are never changed in place, so that readers need no lock."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ssl_audio.errors import InputError


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks and their rows.

    Attributes:
        rows: `(rows, dim)` float32 from `search.normalize`. The rows of a track are adjacent.
        offsets: `(tracks + 1,)` int64; rows `offsets[t]` to `offsets[t + 1] - 1` belong to track `t`.
        ids: `(tracks,)` int64, ascending. The id of a track never changes.
        stamps: `(tracks, 4)` int64 what `building.stamp` gave for each file when it was embedded.
        paths: paths of the files, relative to the library if they are in it.
        groups: group of each track, such as its artist or folder.
    """

    rows: np.ndarray
    offsets: np.ndarray
    ids: np.ndarray
    stamps: np.ndarray
    paths: list[str]
    groups: list[str]

    @classmethod
    def empty(cls, dim: int = 0) -> "Tracks":
        """No tracks."""
        integers = np.empty(0, np.int64)
        return cls(np.empty((0, dim), np.float32), np.zeros(1, np.int64), integers, np.empty((0, 4), np.int64), [], [])

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def dim(self) -> int:
        """Size of a row."""
        return self.rows.shape[1]

    @cached_property
    def track_of_row(self) -> np.ndarray:
        """`(rows,)` int64 position of the track of each row."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def position_of_path(self) -> dict[str, int]:
        """{path: position of the track}."""
        return {path: position for position, path in enumerate(self.paths)}

    def position_of_id(self, track_id: int) -> int:
        """Position of the track with an id. Raises InputError if there is none."""
        position = int(np.searchsorted(self.ids, track_id))
        if position == len(self.ids) or self.ids[position] != track_id:
            raise InputError(f"no track has the id {track_id}; ids are in index.ids")
        return position

    def rows_of(self, position: int) -> np.ndarray:
        """`(rows, dim)` rows of one track."""
        return self.rows[self.offsets[position] : self.offsets[position + 1]]

    def means(self, positions: np.ndarray | None = None) -> np.ndarray:
        """`(tracks, dim)` mean row of each track, or of the tracks at `positions`."""
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
        stamps: Sequence[tuple[int, int, int, int]],
        next_id: int,
    ) -> "Tracks":
        """The tracks with new tracks at the end; a track with the same path is replaced.

        Args:
            rows: `(rows, dim)` of each new track.
            paths: path of each new track.
            groups: group of each new track.
            stamps: of each new track.
            next_id: id of the first new track.

        Raises:
            InputError: the rows have another size.
        """
        old = self.without([self.position_of_path[path] for path in paths if path in self.position_of_path])
        if len(old) and rows and rows[0].shape[1] != old.dim:
            raise InputError(f"embeddings of size {rows[0].shape[1]} do not fit an index of size {old.dim}")
        lengths = np.cumsum([len(part) for part in rows], dtype=np.int64)
        return Tracks(
            rows=np.concatenate([old.rows, *rows]) if len(old) else np.concatenate(rows),
            offsets=np.concatenate([old.offsets, old.offsets[-1] + lengths]),
            ids=np.concatenate([old.ids, np.arange(next_id, next_id + len(paths), dtype=np.int64)]),
            stamps=np.concatenate([old.stamps, np.array(stamps, np.int64).reshape(-1, 4)]),
            paths=[*old.paths, *paths],
            groups=[*old.groups, *groups],
        )

    def without(self, positions: Sequence[int]) -> "Tracks":
        """The tracks without those at `positions`."""
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
        """The tracks as arrays, for a file."""
        names = json.dumps({"paths": self.paths, "groups": self.groups}).encode()  # ASCII keeps undecodable file names
        return {
            "rows": self.rows,
            "offsets": self.offsets,
            "ids": self.ids,
            "stamps": self.stamps,
            "names": np.frombuffer(names, np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> "Tracks":
        """The tracks that `to_arrays` returned."""
        names = json.loads(arrays["names"].tobytes())
        columns = {name: arrays[name] for name in ("rows", "offsets", "ids", "stamps")}
        missing = 4 - columns["stamps"].shape[1]  # 0.1 has two columns
        columns["stamps"] = np.pad(columns["stamps"], ((0, 0), (0, missing)))
        return cls(**columns, paths=names["paths"], groups=names["groups"])
