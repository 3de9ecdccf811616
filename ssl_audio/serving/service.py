"""The computations of the server, independent of HTTP: embed files, compare embeddings, find similar recordings."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ssl_audio import audio
from ssl_audio.embedding import embed_files
from ssl_audio.errors import InputError
from ssl_audio.provenance import fingerprint
from ssl_audio.serving.limits import MAX_SAMPLE_RATE
from ssl_audio.utils.device import best_device

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel
    from ssl_audio.retrieval import Index


@dataclass(frozen=True)
class Embedded:
    """The result for an uploaded file.

    Attributes:
        seconds: length of the audio.
        embedding: `(dim,)` float32; None if the file cannot be embedded.
        error: the reason why there is no embedding.
    """

    seconds: float
    embedding: np.ndarray | None
    error: str = ""


class Service:
    """A model, and optionally the index of a library.

    Args:
        model: the model. It runs in `embed_files`, so an answer equals a row of `ssl-audio embed`.
        name: name of the model in answers.
        index: index for `similar`, which the same model must have made.
        window_seconds, hop_seconds: embed each file as the mean over windows, see `embed_files`; None embeds it whole.
        device: device of the model; None: a GPU if there is one.

    Raises:
        InputError: another model made the index, or the windows are too short.
    """

    def __init__(
        self,
        model: "EmbeddingModel",
        name: str,
        index: "Index | None" = None,
        window_seconds: float | None = None,
        hop_seconds: float | None = None,
        device: str | None = None,
    ) -> None:
        self.model, self.name, self.index = model, name, index
        aggregate = None if window_seconds is None else "mean"
        windows = {"window_seconds": window_seconds, "hop_seconds": hop_seconds, "aggregate": aggregate}
        self._options: dict[str, Any] = {**windows, "device": best_device(device)}
        embed_files(model, [], **self._options)  # refuses impossible windows
        self.fingerprint = fingerprint(model)
        if index is not None:
            index.use(model)

    def embed(self, requests: Sequence[Sequence[Path]]) -> list[list[Embedded]]:
        """Embed the files of several requests in one call. Returns one list per request, in order."""
        paths = [path for request in requests for path in request]
        results = iter(
            [_embedded(result) for result in embed_files(self.model, paths, on_error="report", **self._options)]
        )
        return [[next(results) for _ in request] for request in requests]

    def compare(self, one: np.ndarray, other: np.ndarray) -> dict[str, Any]:
        """The cosine of two embeddings `(dim,)`, in [-1, 1]."""
        norms = float(np.linalg.norm(one) * np.linalg.norm(other))
        return {"score": float(np.dot(one, other) / norms) if norms > 0 else 0.0, "metric": "cosine"}

    def similar(self, path: Path, n: int, per_group: int | None) -> list[dict[str, Any]]:
        """The `n` recordings of the index most similar to a file, best first.

        Args:
            path: the file.
            n: number of recordings.
            per_group: largest number of recordings of one group; None for no limit.

        Returns:
            `[{"path", "group", "score"}]`, with paths relative to the folder of the library.

        Raises:
            InputError: there is no index, or the file cannot be embedded.
        """
        if self.index is None:
            raise InputError("this server has no index; start it with --index")
        root = self.index.settings["root"]
        hits = self.index.recommend(path, n, per_group=per_group, on_missing=lambda gone: None)
        return [
            {
                "path": os.path.relpath(hit.path, root) if root else hit.path,
                "group": hit.group,
                "score": float(hit.score),
            }
            for hit in hits
        ]


def problem_of(path: Path, max_seconds: float) -> tuple[int, str] | None:
    """Check the header of an uploaded file. Returns HTTP status and reason if it is refused, otherwise None."""
    try:
        info = audio.info(path)
    except InputError as error:
        return 422, reason(error, path)
    if info.seconds > max_seconds:
        return 413, f"has {info.seconds:.1f} s of audio; this server takes up to {max_seconds:g} s"
    if info.sample_rate > MAX_SAMPLE_RATE:
        return 413, f"has a sample rate of {info.sample_rate} Hz; this server takes up to {MAX_SAMPLE_RATE} Hz"
    return None


def reason(error: Exception | str, path: Path) -> str:
    """The text of an error without the path where the server stores the file."""
    return str(error).removeprefix(f"{path}: ").replace(str(path), "the file")


def _embedded(result: Any) -> Embedded:
    if result.error is not None:
        return Embedded(0.0, None, reason(result.error, result.path))
    return Embedded(result.end - result.start, result.embedding)
