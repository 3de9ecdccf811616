"""The one reader of samples that lie as 16 bit integers in a file: copies in the store, and recordings in shards."""

import mmap
import os
from io import FileIO
from types import TracebackType
from typing import Protocol, TypeVar

import numpy as np

from ssl_audio.audio import AudioError

_Self = TypeVar("_Self", bound="Int16Recording")


class AudioReader(Protocol):
    """An opened recording: an `AudioFile`, or samples that were decoded before. A context manager."""

    def read(self, start: int, samples: int, sample_rate: int) -> np.ndarray:
        """`(samples,)` float32 mono, fewer at the end; start and samples are counted at `sample_rate`."""
        ...

    def __enter__(self) -> "AudioReader": ...

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Int16Recording:
    """Mono samples as little-endian 16 bit integers in a part of a file, read like an `AudioFile` at their one rate.

    Args:
        file: opened without a buffer; it is closed with this object.
        path: of the recording, for messages.
        start: the byte at which the samples begin.
        samples: how many there are.
        scale: an integer times this is the sample.
        sample_rate: Hz.
        remedy: what to do where samples are missing, for the message.
        mapped: map the file into memory: quicker for many parts, but what was read stays resident.
    """

    def __init__(
        self,
        file: FileIO,
        path: str | os.PathLike,
        start: int,
        samples: int,
        scale: float,
        sample_rate: int,
        remedy: str,
        mapped: bool = False,
    ) -> None:
        self.path = os.fspath(path)
        self.start, self.samples, self.scale = start, samples, np.float32(scale)
        self.sample_rate, self.remedy = sample_rate, remedy
        self._file = file
        self._mapped: np.ndarray | None = None
        if mapped:  # the array keeps the map, which keeps the file open on its own
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._mapped = np.frombuffer(content, "<i2", samples, start)
            file.close()

    def read(self, start: int, samples: int, sample_rate: int) -> np.ndarray:
        """`(samples,)` float32, fewer at the end. Raises AudioError where the file is cut short."""
        if sample_rate != self.sample_rate:
            raise ValueError(f"{self.path} holds audio at {self.sample_rate} Hz, not {sample_rate}")
        clip = self.integers(start, samples).astype(np.float32)
        clip *= self.scale
        return clip

    def read_into(self, start: int, into: np.ndarray) -> int:
        """Fill `into` (samples,) float32 from sample `start` on; returns how many there were."""
        part = self.integers(start, len(into))
        into[: len(part)] = part  # convert first, then scale in place: quicker than a product of two types
        into[: len(part)] *= self.scale
        return len(part)

    def integers(self, start: int, samples: int) -> np.ndarray:
        """`(samples,)` int16 as they are in the file, fewer at the end."""
        if self._mapped is not None:
            return self._mapped[start : start + samples]
        count = max(0, min(samples, self.samples - start))
        self._file.seek(self.start + 2 * start)
        content = self._file.read(2 * count)
        if len(content) < 2 * count:
            raise AudioError(self.path, f"is cut short; {self.remedy}")
        return np.frombuffer(content, "<i2")

    def close(self) -> None:
        self._mapped = None
        self._file.close()

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
