"""What encoders share that call something outside of the package, and what is tried once when they are loaded."""

import hashlib
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

TOLERANCE = 1e-4  # of the largest value: two passes that should be equal
_TRIALS = (1.0, 3.0, 10.0, 30.0)  # seconds of the first clip that a model is given

logger = logging.getLogger("ssl_audio.hub.foreign")


class External(Outside, ClipEncoder):
    """Waveforms -> vectors by a function of others. A subclass defines `call`.

    Args:
        short, batched: see `ClipEncoder`.
        locked: one call at a time, whichever thread it comes from, with all of torch's threads.
    """

    def __init__(self, short: str = "refuse", batched: bool = True, locked: bool = True) -> None:
        super().__init__(short, batched)
        self.dim = 0  # until it is tried
        self._turn = Turn() if locked else None

    def call(self, clips: Tensor) -> Any:
        """`(batch, samples)` -> `(batch, dim)`, or frames `(batch, time, dim)`, as a tensor or an array."""
        raise NotImplementedError

    def vectors(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`.

        Raises:
            InputError: the function gives another shape or no numbers.
        """
        with self._turn.taken() if self._turn is not None else torch.no_grad(), torch.no_grad():
            found = torch.as_tensor(self.call(clips))
        if not found.is_floating_point():
            raise InputError(f"{self.origin} gives {found.dtype}; an embedding is made of floats")
        if found.ndim == 3:
            found = found.mean(dim=1)
        if found.ndim != 2 or len(found) != len(clips):
            raise InputError(
                f"{self.origin} gives the shape {tuple(found.shape)} for {len(clips)} clips; an embedding is "
                "(clips, dim), or (clips, time, dim)"
            )
        return found.float().to(clips.device)


class Turn:
    """A lock under which torch has all the threads that it had at first; copies are locks of their own."""

    def __init__(self) -> None:
        self.lock, self.threads = threading.Lock(), torch.get_num_threads()

    def __reduce__(self) -> tuple:
        return Turn, ()

    @contextmanager
    def taken(self) -> Iterator[None]:
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
    """The model around an encoder that was made but not tried: its size, shortest clip and independence are found out.

    Args:
        encoder: see `External`.
        sample_rate: in Hz.
        licence: of the weights.
        shortest: samples that it needs, where something tells.
        dim: what something tells of its size, to be compared.

    Raises:
        InputError: it fails on noise, draws random numbers, keeps a state, or has another size.
    """
    samples, vector = _first_clip(encoder, sample_rate, shortest)
    encoder.dim = vector.shape[1]
    if dim is not None and dim != encoder.dim:
        raise InputError(f"{encoder.origin} says that its size is {dim} and gives {encoder.dim} numbers")
    if shortest is None:
        shortest = shortest_clip(lambda length: encoder.vectors(noise(1, length)), samples)
    encoder.shortest = shortest
    encoder.batched = encoder.batched and independent(encoder, encoder.origin, samples)
    model = EmbeddingModel(Waveform(), encoder, sample_rate).eval()
    model.licence = licence or model.licence
    return model


def independent(encoder: ClipEncoder, origin: str, samples: int) -> bool:
    """Whether a clip has the same vector alone and in a batch; says so where it has not.

    Raises:
        InputError: it has another vector each time.
    """
    clips = noise(2, min(samples, encoder.window or samples))
    with torch.no_grad():
        alone, batch = encoder.vectors(clips[:1]), _try_batch(encoder, clips)
        if batch is not None and _close(batch[:1], alone):
            return True
        again = encoder.vectors(clips[:1])
    if not _close(again, alone):
        raise InputError(
            f"{origin} gives one clip another embedding each time: it draws random numbers or keeps a state between "
            "calls, so that nothing can be compared with it"
        )
    logger.warning(f"{origin}: a clip's embedding depends on its batch, so that clips pass one at a time")
    return False


def _close(vector: Tensor, other: Tensor) -> bool:
    return float((vector - other).abs().max()) <= TOLERANCE * max(float(other.abs().max()), 1e-12)


def _try_batch(encoder: ClipEncoder, clips: Tensor) -> Tensor | None:
    try:
        return encoder.vectors(clips)
    except Exception:  # whatever the code of others raises for more than one clip
        return None


def _first_clip(encoder: External, sample_rate: int, shortest: int | None) -> tuple[int, Tensor]:
    """The length of a clip that works and its vector."""
    problem: Exception | None = None
    tried = [encoder.window] if encoder.window else [round(seconds * sample_rate) for seconds in _TRIALS]
    for samples in tried:
        samples = max(samples, shortest or 0)
        try:
            with torch.no_grad():
                vector = encoder.vectors(noise(1, samples))
        except InputError:
            raise
        except Exception as error:  # whatever the code of others raises
            problem = error
            continue
        if not vector.isfinite().all():
            raise InputError(f"{encoder.origin} gives NaN or infinite values for noise of {samples} samples")
        return samples, vector
    assert problem is not None
    raise InputError(
        f"{encoder.origin} fails on {samples} samples of noise at {sample_rate} Hz: {first_line(problem)}"
    ) from problem


def shortest_clip(run: Callable[[int], Tensor], works: int) -> int:
    """The least number of samples for which `run(samples)` gives finite values, by bisection below one that works."""
    fails = 0
    while works - fails > 1:
        middle = (works + fails) // 2
        try:
            with torch.no_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fine = bool(run(middle).isfinite().all())
        except Exception:  # whatever a network raises for a clip that is too short
            fine = False
        works, fails = (middle, fails) if fine else (works, middle)
    return works


def noise(batch: int, samples: int) -> Tensor:
    """`(batch, samples)`, the same each time, softer from clip to clip."""
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
    """The file of an address.

    Raises:
        InputError: there is none.
    """
    found = Path(path).expanduser()
    if not found.is_file():
        raise InputError(f"{origin}: {found}: no such file")
    return found


def needs_trust(origin: str, trusted: bool) -> None:
    """Raise InputError where code of others would run and nobody has allowed it."""
    if not trusted:
        raise InputError(
            f"{origin} runs code that is not part of ssl_audio; if you know where it comes from, add --trusted, or "
            "trusted=True in Python"
        )
