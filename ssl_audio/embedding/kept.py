"""Embeddings of test sets that stay on disk, so that each is computed once and an interrupted report goes on.

    <folder>/<fingerprint of the model>/<condition>/<digest>.npz

Each file holds the embeddings of up to `PART` recordings, by the SHA-256 of the recordings' content: a recording that
was moved or renamed is found, one that was changed is embedded again. The folder can be removed at any time.
"""

import hashlib
import time
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from torch import nn
from tqdm import tqdm

from ssl_audio import audio
from ssl_audio.embedding.conditions import CLEAN, Condition
from ssl_audio.embedding.look_up import path_encoder
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.errors import InputError
from ssl_audio.provenance import fingerprint
from ssl_audio.utils.cpu import available_cores
from ssl_audio.utils.files import write_atomically

PART = 256  # recordings in a file
_BLOCK = 1 << 20  # bytes


class KeptEmbeddings:
    """Embeds recordings by the evaluation's protocol (`EvalProtocol`), and keeps the embeddings.

    Args:
        folder: where they are kept.
        batch_size: clips of one length in a forward pass; None for a default that suits the device.
        device: "cpu", "cuda", ...; None uses a GPU if there is one.
        crops: see `EvalProtocol`.

    Example:
        kept = KeptEmbeddings(Path("report/embeddings"))
        embeddings = kept.embed(model, paths, parse_condition("opus:16"))  # (files, dim)
    """

    def __init__(
        self,
        folder: Path,
        batch_size: int | None = None,
        device: str | None = None,
        crops: tuple[int, float] | None = None,
    ) -> None:
        self.folder = folder
        self.batch_size = batch_size
        self.device = device
        self.crops = crops
        self._digests: dict[Path, str] = {}

    def embed(
        self, model: nn.Module, paths: Sequence[Path], condition: Condition | None = None, progress: str | None = None
    ) -> np.ndarray:
        """Embed whole files; what is on disk is read.

        The embeddings of models that look them up in a table, or that have no fingerprint, are not kept.

        Args:
            model: see `embed_recordings`. Its embeddings are not standardised.
            paths: audio files.
            condition: what every file goes through first.
            progress: text of the progress bar; None for no bar.

        Returns:
            (files, dim) float32, in the order of `paths`.

        Raises:
            InputError: see `embed_recordings`.
        """
        place = self._place(model, condition)
        if place is None:
            return self._compute(model, paths, condition, progress)
        digests = self._digests_of(paths)
        found = {digest: row for part in _parts(place) for digest, row in part.rows.items()}
        todo = {digest: path for digest, path in zip(digests, paths, strict=True) if digest not in found}
        names = list(todo)
        with tqdm(total=len(names), desc=progress, unit="file", disable=progress is None, leave=False) as bar:
            for first in range(0, len(names), PART):
                part = names[first : first + PART]
                some = [todo[name] for name in part]
                started = time.perf_counter()
                rows = self._compute(model, some, condition, None)
                seconds = time.perf_counter() - started
                heard = sum(audio.info(path).seconds for path in some)
                _write(place, part, rows, seconds, heard)
                found |= dict(zip(part, rows, strict=True))
                bar.update(len(part))
        return np.stack([found[digest] for digest in digests])

    def seconds_per_hour(self, model: nn.Module) -> float | None:
        """Seconds that the model took for an hour of audio, with reading and resampling, over all recordings that are
        kept without a condition; None if there are none."""
        place = self._place(model, None)
        parts = [] if place is None else _parts(place)
        heard = sum(part.heard for part in parts)
        return 3600 * sum(part.seconds for part in parts) / heard if heard else None

    def _compute(
        self, model: nn.Module, paths: Sequence[Path], condition: Condition | None, progress: str | None
    ) -> np.ndarray:
        protocol = EvalProtocol(model, crops=self.crops)
        return embed_recordings(
            protocol, paths, self.batch_size, self.device, progress, standardize=False, condition=condition
        )

    def _place(self, model: nn.Module, condition: Condition | None) -> Path | None:
        if path_encoder(model) is not None:
            return None
        try:
            name = fingerprint(model)
        except InputError:  # a part does not store its arguments: two models could have one fingerprint
            return None
        cropped = f"-crops-{self.crops[0]}-{self.crops[1]:g}" if self.crops else ""
        return self.folder / name / ((condition.name.replace(":", "-") if condition else CLEAN) + cropped)

    def _digests_of(self, paths: Sequence[Path]) -> list[str]:
        new = [path for path in dict.fromkeys(paths) if path not in self._digests]
        with ThreadPoolExecutor(available_cores()) as pool:
            self._digests |= dict(zip(new, pool.map(_digest, new), strict=True))
        return [self._digests[path] for path in paths]


class _Part:
    """The content of a file of kept embeddings.

    Attributes:
        rows: {digest of a recording: embedding (dim,)}.
        seconds: that embedding took.
        heard: seconds of audio.
    """

    def __init__(self, path: Path) -> None:
        with np.load(path, allow_pickle=False) as arrays:
            self.rows = dict(zip(arrays["digests"].tolist(), arrays["embeddings"], strict=True))
            self.seconds, self.heard = float(arrays["seconds"]), float(arrays["heard"])


def _parts(place: Path) -> list[_Part]:
    """The parts in a folder; a damaged file is as if it were not there."""
    parts = []
    for path in sorted(place.glob("[0-9a-f]*.npz")):
        try:
            parts.append(_Part(path))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            continue
    return parts


def _write(place: Path, digests: Sequence[str], rows: np.ndarray, seconds: float, heard: float) -> None:
    name = hashlib.sha256("".join(digests).encode()).hexdigest()[:32]
    with write_atomically(place / f"{name}.npz") as temporary, open(temporary, "wb") as file:
        np.savez(file, digests=np.array(digests), embeddings=rows, seconds=seconds, heard=heard)


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except OSError as error:
        raise audio.AudioError(path, f"cannot be read: {error.strerror}") from error
    return digest.hexdigest()
