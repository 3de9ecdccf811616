"""From audio files to what an index holds of them: windows, embeddings, groups, and what changed in a folder."""

import os
import time
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

GROUPS = ("folder", "top_folder")
"""What a track's group is: the folder that holds it, or the first folder under the library (Artist/Album/song)."""


@dataclass
class Update:
    """What one pass over a folder did; `failed` holds (path, why) of the files that could not be embedded."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)

    def include(self, other: "Update") -> None:
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
    """`(windows, dim)` embeddings of one track -> its rows: one mean of the normalized windows, or every window."""
    rows = normalize(np.atleast_2d(embeddings), metric)
    return normalize(rows.mean(0, keepdims=True), metric) if aggregate == "mean" else rows


def group_of(path: str, group: str) -> str:
    parents = Path(path).parent.parts
    return "/".join(parents if group == "folder" else parents[:1])


def embed_tracks(
    model: "EmbeddingModel", paths: Sequence[str | os.PathLike], settings: dict[str, Any], **options: Any
) -> Iterator[tuple[str | os.PathLike, np.ndarray | None, str | None]]:
    """(path, rows `(windows, dim)` or None, why not) of each file, in order, never raising for a bad file."""
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
    """`(samples,)` float mono -> rows `(windows, dim)`, cut and aggregated as the files of the index were."""
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
    """(new, changed, gone) relative paths of a folder against what was indexed, by size and modification time."""
    new, changed, present = [], [], set()
    for path in files:
        relative = path.relative_to(root).as_posix()
        present.add(relative)
        position = tracks.position_of_path.get(relative)
        if position is None:
            new.append(relative)
        elif tuple(tracks.stamps[position]) != stamp(path):
            changed.append(relative)
    gone = [path for path in tracks.paths if path not in present and not os.path.isabs(path)]
    return new, changed, gone


def stamp(path: Path) -> tuple[int, int]:
    """(size in bytes, modification time in ns); zeros for a file that is gone."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


class Pacer:
    """Says yes once every `seconds`."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.last = seconds, time.monotonic()

    def due(self) -> bool:
        if time.monotonic() - self.last < self.seconds:
            return False
        self.last = time.monotonic()
        return True
