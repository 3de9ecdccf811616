"""Building an index: embeddings of files and arrays, groups of tracks, and the changes in a folder."""

import os
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ssl_audio import audio
from ssl_audio.embedding.files import embed_files, window_starts
from ssl_audio.errors import InputError
from ssl_audio.retrieval.search import normalize
from ssl_audio.retrieval.tracks import Tracks

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

_PART = 1 << 12  # bytes of each part of a file that its checksum covers
GROUPS = ("folder", "top_folder")
"""The group of a track is the folder that holds it, or the first folder below the library (Artist/Album/song)."""


@dataclass
class Update:
    """Changes of an index.

    Attributes:
        added, changed, removed: paths of tracks.
        failed: (path, reason) of the files that could not be embedded.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def include(self, other: "Update") -> None:
        """Add the changes of another update."""
        for name, items in vars(other).items():
            getattr(self, name).extend(items)

    def __str__(self) -> str:
        counts: dict[str, list] = {
            "added": self.added,
            "changed": self.changed,
            "removed": self.removed,
            "failed": self.failed,
        }
        return ", ".join(f"{len(items)} {name}" for name, items in counts.items() if items) or "nothing changed"


def aggregated(embeddings: np.ndarray, metric: str, aggregate: str) -> np.ndarray:
    """Rows of one track in the index.

    Args:
        embeddings: `(windows, dim)`.
        metric: "cosine" or "euclidean".
        aggregate: "mean" for one row, the mean of the normalised windows; "max" for one row per window.

    Returns:
        `(rows, dim)`.
    """
    rows = normalize(np.atleast_2d(embeddings), metric)
    return normalize(rows.mean(0, keepdims=True), metric) if aggregate == "mean" else rows


def group_of(path: str, group: str) -> str:
    """The group of a track; `path` is relative to the library and `group` one of `GROUPS`.

    A track directly in the library has the group "", and is treated as the only one of its group.
    """
    parents = Path(path).parent.parts
    return "/".join(parents if group == "folder" else parents[:1])


def embed_tracks(
    model: "EmbeddingModel", paths: Sequence[str | os.PathLike], settings: dict[str, Any], **options: Any
) -> Iterator[tuple[str | os.PathLike, np.ndarray | None, str | None]]:
    """Embed files for an index. A bad file raises no error.

    Args:
        model: the model of the index.
        paths: audio files.
        settings: settings of the index.
        options: `batch_size`, `device` and `workers` of `embed_files`.

    Yields:
        (path, rows `(rows, dim)`, None) or, of a bad file, (path, None, reason), in the order of `paths`.
    """
    windows: list[np.ndarray] = []
    current = 0
    results = embed_files(
        model,
        list(paths),
        window_seconds=settings["window_seconds"],
        hop_seconds=settings["hop_seconds"],
        on_error="report",
        **options,
    )
    error: str | None = None

    def finish() -> tuple[str | os.PathLike, np.ndarray | None, str | None]:
        if error is not None:
            return paths[current], None, error
        return paths[current], aggregated(np.stack(windows), settings["metric"], settings["aggregate"]), None

    for result in results:
        if result.index != current:
            yield finish()
            windows, error, current = [], None, result.index
        if result.embedding is None:
            error = result.error
        else:
            windows.append(result.embedding)
    if paths:
        yield finish()


def embed_array(
    model: "EmbeddingModel", waveform: np.ndarray | Tensor, sample_rate: int | None, settings: dict[str, Any]
) -> np.ndarray:
    """Embed audio in memory as the files of an index are embedded.

    Args:
        model: the model of the index.
        waveform: `(samples,)` float mono.
        sample_rate: in Hz; None for the sample rate of the model.
        settings: settings of the index.

    Returns:
        `(rows, dim)`.

    Raises:
        InputError: the audio is not mono, or the sample rate is not positive.
    """
    array = waveform.detach().cpu().numpy() if isinstance(waveform, Tensor) else np.asarray(waveform)
    if array.ndim != 1:
        raise InputError(f"a query of shape {array.shape} is not mono audio (samples,); average its channels")
    if sample_rate is not None and sample_rate <= 0:
        raise InputError(f"sample_rate is {sample_rate}; it must be the array's rate in Hz")
    if sample_rate is not None and array.dtype.kind == "f":
        array = audio.resample(array, sample_rate, model.sample_rate)
    window = round((settings["window_seconds"] or 0) * model.sample_rate)
    if not window or len(array) <= window:
        return aggregated(model.embed(array), settings["metric"], settings["aggregate"])
    hop = round((settings["hop_seconds"] or settings["window_seconds"]) * model.sample_rate)
    starts = window_starts(len(array), window, max(1, hop))
    batches = [np.stack([array[s : s + window] for s in starts[i : i + 16]]) for i in range(0, len(starts), 16)]
    embeddings = np.concatenate([model.embed(batch) for batch in batches])
    return aggregated(embeddings, settings["metric"], settings["aggregate"])


def changes(tracks: Tracks, root: Path, files: Iterable[Path]) -> tuple[list[str], list[str], list[str]]:
    """Compare a folder with an index, by the stamps of the files.

    Args:
        tracks: tracks of the index.
        root: the folder.
        files: audio files in the folder.

    Returns:
        Relative paths of the files that are (new, changed, removed).
    """
    new, changed, present = [], [], set[str]()
    for path in files:
        relative = path.relative_to(root).as_posix()
        present.add(relative)
        position = tracks.position_of_path.get(relative)
        if position is None:
            new.append(relative)
        elif _changed(path, tracks.stamps[position].tolist()):
            changed.append(relative)
    removed = [path for path in tracks.paths if path not in present and not os.path.isabs(path)]
    return new, changed, removed


def stamp(path: Path) -> tuple[int, int, int, int]:
    """(size in bytes, modification time in ns, time of the last change of its entry in ns, checksum) of a file.

    The checksum is of three parts of the content. All are zero if the file does not exist.
    """
    try:
        status = path.stat()
        return status.st_size, status.st_mtime_ns, status.st_ctime_ns, _checksum(path, status.st_size)
    except OSError:
        return 0, 0, 0, 0


def _checksum(path: Path, size: int) -> int:
    with open(path, "rb") as file:
        parts = []
        for place in (0, size // 2, max(size - _PART, 0)):
            file.seek(place)
            parts.append(file.read(_PART))
    return zlib.crc32(b"".join(parts))


def _changed(path: Path, known: list[int]) -> bool:
    """Whether a file is another than when it was stamped.

    Archives and copying programs set modification times, so that two files may have one. The content is looked at
    where the entry of the file has changed since. Stamps of 0.1 end after the modification time.
    """
    try:
        status = path.stat()
        if [status.st_size, status.st_mtime_ns] != known[:2]:
            return True
        return known[2] not in (0, status.st_ctime_ns) and _checksum(path, status.st_size) != known[3]
    except OSError:
        return True


class Interval:
    """A timer for a repeated action.

    Args:
        seconds: between two actions.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def due(self) -> bool:
        """True if `seconds` have passed since the last True, or since the start."""
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True
