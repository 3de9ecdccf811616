"""Features of a frozen encoder: embeddings of consecutive clips of each file, cached in the user's cache folder."""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn
from tqdm import tqdm

from ssl_audio.data.scan import cache_path
from ssl_audio.embedding import FileEmbedding
from ssl_audio.embedding.table import EmbeddingTable, SourceFile
from ssl_audio.errors import InputError, first_line
from ssl_audio.level import Level, level_name, level_of
from ssl_audio.provenance import description_in_0_1, fingerprint, fingerprint_in_0_1
from ssl_audio.utils.device import best_device

CLIP_SECONDS = 3.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Features:
    """Embeddings of clips of files.

    Attributes:
        values: (clips, dim) float32.
        owner: (clips,) position of the file of each clip, ascending.
        unreadable: {position of a file that could not be embedded: reason}.
        level: the rule by which the level of the clips was set; see `ssl_audio.level`.
    """

    values: np.ndarray
    owner: np.ndarray
    unreadable: dict[int, str]
    level: Level = "none"

    def without(self, positions: Collection[int]) -> "Features":
        """The features without the files at these positions; the positions of the other files close up."""
        kept = ~np.isin(self.owner, list(positions))
        moved = self.owner[kept] - np.searchsorted(np.sort(list(positions)), self.owner[kept])
        return Features(self.values[kept], moved, {}, self.level)


def clip_seconds(model: Any, wanted: float | None = None) -> float:
    """Length of a clip in seconds.

    Args:
        model: an `EmbeddingModel` or a baseline.
        wanted: the length; None for 3 s, or for the shortest clip that the model accepts if it is longer.

    Raises:
        InputError: `wanted` is shorter than the model accepts.
    """
    shortest = model.minimum_samples / model.sample_rate
    if wanted is None:
        return max(CLIP_SECONDS, shortest)
    if round(wanted * model.sample_rate) < model.minimum_samples:
        raise InputError(f"clips of {wanted} s are too short; this model needs {shortest:.3f} s or more")
    return wanted


def extract(
    model: Any,
    paths: Sequence[Path],
    seconds: float,
    hop_seconds: float | None = None,
    *,
    batch_size: int | None = None,
    device: str | None = None,
    label: str = "features",
    cache: Path | None = None,
) -> Features:
    """Embed consecutive clips that cover each file, or read their embeddings from the cache.

    - The last clip ends at the end of the file.
    - A file shorter than a clip is one clip of its own length.
    - A file shorter than the model accepts is repeated until it is long enough.
    - The level of each clip is set by the rule of the model. Features that 0.1 left in the cache are of clips at the
      level of their recordings; they are used as such, with a notice.
    - An interrupted extraction continues where it stopped.

    Args:
        model: an `EmbeddingModel` or a baseline.
        paths: audio files.
        seconds: length of a clip.
        hop_seconds: from the start of one clip to the start of the next; default: the length of a clip.
        batch_size: clips in a forward pass; None for a default that suits the device.
        device: None uses a GPU if there is one.
        label: text of the progress bar.
        cache: folder; default: `features` in `$SSL_AUDIO_CACHE` or `~/.cache/ssl_audio`.

    Raises:
        InputError: no file can be embedded.
    """
    folder = cache or cache_path(".").parent.parent / "features"
    output = folder / f"{_key(model, paths, seconds, hop_seconds)}.parquet"
    before = folder / f"{_key_in_0_1(model, paths, seconds, hop_seconds)}.parquet"
    level = level_of(model)
    if before.is_file() and not output.is_file() and (found := _whole(before, "none")) is not None:
        if level != "none":
            logger.warning(
                f"{label}: takes features of 0.1, which had no level rule, from the cache; to follow it delete {before}"
            )
        return found
    if output.is_file() and (found := _whole(output, level)) is not None:
        return found
    if not output.is_file():
        _check_writable(folder)
        files = [SourceFile(path, str(i), "") for i, path in enumerate(paths)]
        settings = {"window_seconds": seconds, "hop_seconds": hop_seconds, "aggregate": None}
        table = EmbeddingTable(AnyLength(model), files, output, settings)  # type: ignore[arg-type]
        with tqdm(total=len(paths), desc=label, unit="file", leave=False, delay=1) as bar:
            seen = -1

            def count(result: FileEmbedding) -> None:
                nonlocal seen
                bar.update(result.index != seen)
                seen = result.index

            table.write_shards(table.missing(), count, batch_size=batch_size, device=best_device(device))
        table.assemble()
    return _read(output, level)


class AnyLength(nn.Module):
    """Wraps a model so that it accepts clips of any length: a clip that is too short is repeated.

    Args:
        model: `(batch, samples)` -> `(batch, dim)` with `.sample_rate`, `.minimum_samples`, `.dim`.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.sample_rate, self.dim, self.minimum_samples = model.sample_rate, model.dim, 1
        self.level, self.level_in_forward = level_of(model), getattr(model, "level_in_forward", True)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`."""
        needed, there = self.model.minimum_samples, waveforms.shape[1]
        if there < needed:
            waveforms = waveforms.repeat(1, -(-needed // there))[:, :needed]
        return self.model(waveforms)


def _key(model: Any, paths: Sequence[Path], seconds: float, hop_seconds: float | None) -> str:
    """A name that depends on the model, the clip settings and all files."""
    return _name([fingerprint(model), level_name(level_of(model)), seconds, hop_seconds], paths, entry_times=True)


def _key_in_0_1(model: Any, paths: Sequence[Path], seconds: float, hop_seconds: float | None) -> str:
    """The name that 0.1.0 gave, whose features are still valid; "" for models that 0.1.0 could not distinguish."""
    try:
        built: Any = description_in_0_1(model)
    except InputError:  # TorchScript
        built = str(model)
    mark = fingerprint_in_0_1(model)
    return _name([built, mark, seconds, hop_seconds], paths) if mark else ""


def _name(what: list[Any], paths: Sequence[Path], entry_times: bool = False) -> str:
    digest = hashlib.sha256(json.dumps(what, default=str).encode())
    for path in paths:
        try:
            status = os.stat(path)
            changed = f"\0{status.st_ctime_ns}" if entry_times else ""  # files of one size may have equal times
            facts = f"{os.path.abspath(path)}\0{status.st_size}\0{status.st_mtime_ns}{changed}\n"
        except OSError:
            facts = f"{os.path.abspath(path)}\0\n"
        digest.update(facts.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()[:32]


def _whole(path: Path, level: Level) -> Features | None:
    """The features in a file; None if it is damaged, after removing it."""
    try:
        return _read(path, level)
    except InputError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:  # pyarrow's errors are of these classes
        logger.warning(f"{path} is damaged and is made anew: {first_line(error)}")
        path.unlink(missing_ok=True)
        path.with_suffix(".unreadable.csv").unlink(missing_ok=True)
        return None


def _check_writable(folder: Path) -> None:
    """Raise InputError, with a remedy, if the cache folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); name another cache folder: SSL_AUDIO_CACHE=FOLDER"
        ) from error


def _read(path: Path, level: Level) -> Features:
    import csv

    import pyarrow.parquet as pq

    unreadable: dict[int, str] = {}
    listed = path.with_suffix(".unreadable.csv")
    if listed.is_file():
        with open(listed, newline="", encoding="utf-8") as handle:
            unreadable = {int(row["path"]): row["reason"] for row in csv.DictReader(handle)}
    table = pq.read_table(path, columns=["path", "embedding"])
    file_of = np.array(table["path"].to_pylist(), dtype=np.int64)
    if not len(file_of):
        raise InputError(f"none of the {len(unreadable)} files can be used, the first: {unreadable[min(unreadable)]}")
    values = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(file_of), -1)
    return Features(values.astype(np.float32), file_of, unreadable, level)
