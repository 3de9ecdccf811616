"""Base of encoders that call code outside of the package, and the trial passes that measure such an encoder."""

import hashlib
import json
import logging
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_audio.encoders.clips import ClipEncoder
from ssl_audio.encoders.outside import Outside
from ssl_audio.errors import InputError, first_line
from ssl_audio.frontends import Waveform
from ssl_audio.model import EmbeddingModel

TOLERANCE = 1e-4  # largest difference of two equal passes, relative to the largest value
_TRIALS = (1.0, 3.0, 10.0, 30.0)  # lengths in seconds of the clip that a model is tried with, until one works

logger = logging.getLogger("ssl_audio.hub.foreign")


class External(Outside, ClipEncoder):
    """An encoder of waveforms that calls a foreign function. A subclass defines `call`.

    Args:
        short, batched: see `ClipEncoder`.
        locked: run one call at a time, whichever thread makes it, and let the call use all threads of torch.
    """

    def __init__(self, short: str = "refuse", batched: bool = True, locked: bool = True) -> None:
        super().__init__(short, batched)
        self.dim = 0  # `finished` measures it
        self._turn = Turn() if locked else None

    def call(self, clips: Tensor) -> Any:
        """`(batch, samples)` -> `(batch, dim)`, or frames `(batch, time, dim)`, as a tensor or an array."""
        raise NotImplementedError

    def vectors(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`.

        Raises:
            InputError: the function returns another shape, or values that are not floats.
        """
        with self._turn.taken() if self._turn is not None else torch.no_grad(), torch.no_grad():
            found = torch.as_tensor(self.call(clips))
        if not found.is_floating_point():
            raise InputError(f"{self.origin} returns {found.dtype}; an embedding must have floats")
        if found.ndim == 3:
            found = found.mean(dim=1)
        if found.ndim != 2 or len(found) != len(clips):
            raise InputError(
                f"{self.origin} returns the shape {tuple(found.shape)} for {len(clips)} clips; it must return "
                "(clips, dim) or (clips, time, dim)"
            )
        return found.float().to(clips.device)


class Turn:
    """A lock. Its holder computes with as many torch threads as there were when the lock was made.

    A copy is a new lock, because locks cannot be copied.
    """

    def __init__(self) -> None:
        self.lock, self.threads = threading.Lock(), torch.get_num_threads()

    def __reduce__(self) -> tuple:
        return Turn, ()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold the lock."""
        with self.lock:
            before = torch.get_num_threads()
            if before != self.threads:
                torch.set_num_threads(self.threads)
            try:
                yield
            finally:
                if before != self.threads:
                    torch.set_num_threads(before)


def finished(
    encoder: External,
    sample_rate: int,
    licence: str | None = None,
    shortest: int | None = None,
    dim: int | None = None,
) -> EmbeddingModel:
    """Make a model of a new encoder. Trial passes measure its size, shortest clip and dependence on the batch.

    Args:
        encoder: the encoder, see `External`.
        sample_rate: sample rate in Hz.
        licence: licence of the weights.
        shortest: samples of the shortest clip; None if unknown, then it is measured.
        dim: size of the embedding that the model states, to compare with the measured one; None if it states none.

    Raises:
        InputError: the encoder fails on noise, draws random numbers, keeps a state, or has another size than stated.
    """
    samples, vector = _first_clip(encoder, sample_rate, shortest)
    encoder.dim = vector.shape[1]
    if dim is not None and dim != encoder.dim:
        raise InputError(f"{encoder.origin} states the size {dim} but returns {encoder.dim} numbers; correct its dim")
    if shortest is None:
        shortest = shortest_clip(lambda length: encoder.vectors(noise(1, length)), samples)
    encoder.shortest = shortest
    encoder.batched = encoder.batched and independent(encoder, encoder.origin, samples)
    model = EmbeddingModel(Waveform(), encoder, sample_rate).eval()
    model.licence = licence or model.licence
    return model


def independent(encoder: ClipEncoder, origin: str, samples: int) -> bool:
    """Whether a clip has the same vector alone and in a batch. If not, a warning is logged.

    Raises:
        InputError: a clip has another vector in each pass.
    """
    clips = noise(2, min(samples, encoder.window or samples))
    with torch.no_grad():
        alone, batch = encoder.vectors(clips[:1]), _try_batch(encoder, clips)
        if batch is not None and _close(batch[:1], alone):
            return True
        again = encoder.vectors(clips[:1])
    if not _close(again, alone):
        raise InputError(
            f"{origin} returns another embedding for the same clip in each call; turn off its random numbers, or the "
            "state that it keeps between calls"
        )
    logger.warning(f"{origin}: a clip's embedding depends on its batch, so each clip gets its own forward pass")
    return False


def _close(vector: Tensor, other: Tensor) -> bool:
    return float((vector - other).abs().max()) <= TOLERANCE * max(float(other.abs().max()), 1e-12)


def _try_batch(encoder: ClipEncoder, clips: Tensor) -> Tensor | None:
    try:
        return encoder.vectors(clips)
    except Exception:  # foreign code can raise anything for more than one clip
        return None


def _first_clip(encoder: External, sample_rate: int, shortest: int | None) -> tuple[int, Tensor]:
    """The length in samples of a clip on which the encoder works, and the vector of this clip."""
    problem: Exception | None = None
    tried = [encoder.window] if encoder.window else [round(seconds * sample_rate) for seconds in _TRIALS]
    for samples in tried:
        samples = max(samples, shortest or 0)
        try:
            with torch.no_grad():
                vector = encoder.vectors(noise(1, samples))
        except InputError:
            raise
        except Exception as error:  # foreign code can raise anything
            problem = error
            continue
        if not vector.isfinite().all():
            raise InputError(f"{encoder.origin} returns NaN or infinite values for {samples} samples of noise")
        return samples, vector
    assert problem is not None
    raise InputError(
        f"{encoder.origin} fails on {samples} samples of noise at {sample_rate} Hz: {first_line(problem)}"
    ) from problem


def shortest_clip(run: Callable[[int], Tensor], works: int) -> int:
    """The least number of samples for which `run(samples)` returns finite values.

    Bisection finds it. It assumes that every longer clip works, too.

    Args:
        run: function of the number of samples.
        works: a number of samples for which it works.
    """
    fails = 0
    while works - fails > 1:
        middle = (works + fails) // 2
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fine = bool(run(middle).isfinite().all())
        except Exception:  # a network can raise anything for a clip that is too short
            fine = False
        works, fails = (middle, fails) if fine else (works, middle)
    return works


def noise(batch: int, samples: int) -> Tensor:
    """`(batch, samples)` noise, the same in each call. Each clip is softer than the one before it."""
    clips = torch.rand(batch, samples, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return clips * 0.3 / torch.arange(1, batch + 1).unsqueeze(1)


def file_sha256(path: str | os.PathLike) -> str:
    """Hexadecimal SHA-256 of a file."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(2**20):
            digest.update(piece)
    return digest.hexdigest()


def existing(origin: str, path: str) -> Path:
    """The file that an address names.

    Raises:
        InputError: there is no such file.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise InputError(f"{origin}: {found}: no such file")
    return found


def needs_trust(origin: str, trusted: bool) -> None:
    """Raise InputError if foreign code would run and the user has not allowed it."""
    if not trusted:
        raise InputError(
            f"{origin} runs code that is not part of ssl_audio; if you trust its source, add --trusted, or "
            "trusted=True in Python"
        )


def described_beside(path: Path) -> dict[str, Any]:
    """The content of the JSON file that `export.describe_onnx` wrote beside a file; empty without one."""
    described = path.with_suffix(".json")
    if not described.is_file():
        return {}
    try:
        found = json.loads(described.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.get("model") == os.path.basename(path) else {}
