"""Embeddings of files that a table holds already, in the form that `embed_files` gives them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from ssl_audio.encoders.outside import PathEncoder, Rows
from ssl_audio.errors import InputError

_TOLERANCE = 2e-3  # seconds: a window's length and start are whole samples at the rate of the model that made it


@dataclass(frozen=True, eq=False)
class FileEmbedding:
    """The embedding of a file or of one of its windows, or the reason why there is none.

    Attributes:
        index: position of the file in the given paths.
        path: the file.
        start, end: of the window, in seconds.
        embedding: (dim,) float32; None for a file that could not be embedded.
        error: the reason; None if there is an embedding.
    """

    index: int
    path: Path
    start: float
    end: float
    embedding: np.ndarray | None
    error: str | None = None


def path_encoder(model: nn.Module) -> PathEncoder | None:
    """The encoder in a model, or in what is wrapped around it, that looks embeddings up by path; None in others."""
    return next((part for part in model.modules() if isinstance(part, PathEncoder)), None)


def looked_up(
    table: PathEncoder, paths: Sequence[Path], window_seconds: float | None, hop_seconds: float | None, aggregate: bool
) -> list[FileEmbedding]:
    """What `embed_files` gives for these arguments.

    Raises:
        InputError: the table lacks files, or windows are asked for and its rows are others.
    """
    results = []
    for index, (path, rows) in enumerate(zip(paths, table.look_up(paths), strict=True)):
        if window_seconds is None or aggregate:
            start, end = (0.0, 0.0) if rows.start is None or rows.end is None else (rows.start.min(), rows.end.max())
            results.append(FileEmbedding(index, path, float(start), float(end), rows.mean()))
            continue
        hop = window_seconds if hop_seconds is None else hop_seconds
        if rows.start is None or rows.end is None or not _are_windows(rows, window_seconds, hop):
            raise InputError(
                f"{table.origin} holds no windows of {window_seconds:g} s every {hop:g} s of {path}; make it with "
                f"ssl-audio embed --window {window_seconds:g} --hop {hop:g}, or ask for whole files"
            )
        for start, end, value in zip(rows.start, rows.end, rows.values, strict=True):
            results.append(FileEmbedding(index, path, float(start), float(end), value))
    return results


def _are_windows(rows: Rows, window: float, hop: float) -> bool:
    """Whether the rows start every `hop` and are `window` long, the last one moved back to end with the file."""
    assert rows.start is not None and rows.end is not None
    if len(rows.start) == 1:
        return bool(rows.end[0] <= window + _TOLERANCE)
    steps = np.diff(rows.start)
    return bool(
        np.allclose(rows.end - rows.start, window, atol=_TOLERANCE, rtol=0)
        and np.allclose([rows.start[0], *(steps[:-1] - hop)], 0, atol=_TOLERANCE)
        and steps[-1] <= hop + _TOLERANCE
    )


def window_starts(total: int, window: int, hop: int) -> list[int]:
    """Starts of the windows that cover a file.

    Args:
        total: length of the file in samples, at least `window`.
        window: length of a window in samples.
        hop: from the start of one window to the start of the next, in samples.

    Returns:
        Multiples of `hop`; if the last of these windows ends before the file, one more that ends with the file.
    """
    starts = list(range(0, total - window + 1, hop))
    if starts[-1] + window < total:
        starts.append(total - window)
    return starts
