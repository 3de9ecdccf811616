"""The only room that opens audio files: what is in one, a part of it, mono, at any rate, without decoding the rest.

Everything that comes out is float32, mono (the mean of all channels) and as long as what is really in the file: headers
are not believed, no memory is taken on their word, and audio that cannot be decoded is an `AudioError`, never silence.
Samples lie in [-1, 1], except those of float files that go beyond it, which are kept as they are.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile
import soxr

from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_atomically

EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".w64", ".au", ".caf")
"""Suffixes, in lower case, that count as audio when a folder is searched. An opened file is judged by its content."""

UNSUPPORTED_EXTENSIONS = (".m4a", ".mp4", ".aac", ".wma", ".ape", ".wv")
"""Suffixes of audio that libsndfile cannot decode; they are reported rather than overlooked."""

_BLOCK = 1 << 20  # samples over all channels that one decoding call may return
_UNKNOWN_FRAMES = 1 << 62  # libsndfile says 2**63 - 1 for streams of unknown length
_RESAMPLER_MARGIN = 256  # samples, at the lower rate, after which soxr's filter no longer hears the edge (1e-7)
# Samples before a part that are decoded with it, because after a seek the first ones may be wrong: half a block of
# Vorbis (of 8192 at the most); MP3 frames, which take bits from those before (up to 255 bytes, at 8 kbit/s from 23
# frames of 576 samples; up to 511 bytes, at 32 kbit/s from 8 frames of 1152).
_LEAD_IN = {"VORBIS": 8192, "MPEG_LAYER_I": 4608, "MPEG_LAYER_II": 4608, "MPEG_LAYER_III": 24 * 576}


_DATA_SIZES = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_PIPED_SIZES = 0x7FFF0000  # what programs that cannot seek back write as the size begins about here


class _SoundFile(soundfile.SoundFile):
    """A file that says it cannot seek, because soundfile then takes our word for where we are.

    Otherwise it seeks after every call of `read`, which fails at the end of streams of unknown length and makes
    compressed formats decode twice. `seek` itself works as ever.
    """

    def seekable(self) -> bool:
        return False


class AudioError(InputError):
    """One audio file cannot be used.

    Attributes:
        path: the file, as it was given.
        reason: why, without the path.
    """

    def __init__(self, path: str | os.PathLike, reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple:  # travels from worker processes whole
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a file says. `frames` (samples a channel, at `sample_rate`) may exceed what can be decoded."""

    path: str
    frames: int
    sample_rate: int
    channels: int
    format: str

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


class AudioFile:
    """An opened audio file, from which several parts can be read; a context manager.

        with AudioFile("song.flac") as file:
            clip = file.read(start=44100, samples=176000, sample_rate=44100)

    Raises:
        AudioError: the file is missing, is not audio, or holds no samples.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = os.fspath(path)
        try:
            self._file = _SoundFile(self.path)
        except (soundfile.SoundFileError, OSError, ValueError) as error:
            raise AudioError(self.path, _reason(self.path, error)) from error
        file = self._file
        self.info = AudioInfo(self.path, file.frames, file.samplerate, file.channels, f"{file.format}/{file.subtype}")
        if file.frames <= 0:
            self.close()
            raise AudioError(self.path, "holds no audio samples, or its header says so")
        if file.frames >= _UNKNOWN_FRAMES:  # such FLAC streams may change their rate midway, which libsndfile hides
            self.close()
            raise AudioError(self.path, "is a stream of undeclared length; encode it again to a file")

    @property
    def missing_bytes(self) -> int:
        """How many bytes of audio a WAV's header promises beyond the end of the file, as of a broken-off copy.

        0 where nothing is missing or nothing was promised: who writes to a pipe leaves 0 or the largest number there.
        """
        sizes = _DATA_SIZES.search(self._file.extra_info)  # libsndfile's log is the only place that has them
        declared, there = map(int, sizes.groups()) if sizes else (0, 0)
        return declared - there if there < declared < _PIPED_SIZES else 0

    def read(self, start: int = 0, samples: int | None = None, sample_rate: int | None = None) -> np.ndarray:
        """Decode one part; only it and a short margin for the resampler are read where the format can seek.

        Args:
            start: first sample, counted at `sample_rate`.
            samples: how many, counted at `sample_rate`; all that follow if None.
            sample_rate: rate of the result in Hz; the file's own if None. A part agrees with the same part of the
                whole file resampled.

        Returns:
            `(samples,)` float32 mono; fewer at the end of the file, none past it.

        Raises:
            AudioError: decoding failed, or gave NaN or infinite samples.
        """
        if start < 0 or (samples is not None and samples < 0):
            raise ValueError(f"start and samples must not be negative: {start}, {samples}")
        rate = self._file.samplerate
        target = rate if sample_rate is None else sample_rate
        if target == rate:
            return self._decode(start, samples)
        if target <= 0:
            raise ValueError(f"sample_rate must be positive, got {target}")
        # Start where a source sample and a target sample coincide, so that the part has the phase of the whole.
        up, down = target // gcd(rate, target), rate // gcd(rate, target)
        margin = _RESAMPLER_MARGIN * max(1, -(-rate // target))
        periods = max(0, (start * down // up - margin) // down)
        first, skipped = periods * down, start - periods * up
        frames = None if samples is None else -(-(start + samples) * rate // target) + margin - first
        source = self._decode(first, frames)
        return resample(source, rate, target)[skipped:][:samples]

    def _decode(self, start: int, frames: int | None) -> np.ndarray:
        """`(frames,)` mono at the file's own rate, as many as there are."""
        available = max(0, self.info.frames - start)
        frames = available if frames is None else min(frames, available)
        if frames == 0:
            return np.empty(0, np.float32)
        lead_in = min(start, _LEAD_IN.get(self._file.subtype, 0))
        blocks = list(self._blocks(start - lead_in, frames + lead_in))
        audio = (blocks[0] if len(blocks) == 1 else np.concatenate(blocks or [np.empty(0, np.float32)]))[lead_in:]
        if not np.isfinite(audio).all():
            raise AudioError(self.path, "holds NaN or infinite samples")
        return audio

    def _blocks(self, start: int, frames: int) -> Iterator[np.ndarray]:
        """Mono blocks from `start` until `frames` or the end, whatever the header promised."""
        file, channels = self._file, self._file.channels
        block = max(1, _BLOCK // channels)
        weights = np.full(channels, 1 / channels, np.float32)
        try:
            if start != file.tell():
                file.seek(start)
            while frames > 0:
                # `out` keeps soundfile from sizing the array by the declared length
                part = file.read(
                    dtype="float32", always_2d=True, out=np.empty((min(block, frames), channels), np.float32)
                )
                if not len(part):
                    return
                yield part[:, 0].copy() if channels == 1 else part @ weights
                frames -= len(part)
        except (soundfile.SoundFileError, OSError, ValueError) as error:
            raise AudioError(self.path, f"cannot be decoded: {_message(error)}") from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "AudioFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def info(path: str | os.PathLike) -> AudioInfo:
    """Length, rate, channels and format of a file. Raises AudioError if it is not audio or holds no samples."""
    with AudioFile(path) as file:
        return file.info


def read(
    path: str | os.PathLike, sample_rate: int | None = None, start: int = 0, samples: int | None = None
) -> np.ndarray:
    """`(samples,)` float32 mono of one file, or a part of it.

    Args:
        path: any format of `EXTENSIONS`, judged by content.
        sample_rate: rate of the result in Hz; the file's own if None.
        start: first sample, counted at `sample_rate`.
        samples: how many at `sample_rate`; all that follow if None. Fewer come if the file ends before.

    Raises:
        AudioError: missing, not audio, undecodable, NaN or infinite, or nothing there from `start` on.
    """
    with AudioFile(path) as file:
        audio = file.read(start, samples, sample_rate)
    if not len(audio) and samples != 0:
        raise AudioError(path, f"holds no audio from sample {start} on")
    return audio


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """`(samples,)` float32 at another rate by soxr (high quality, linear phase); `samples * to / from`, rounded."""
    if from_rate == to_rate:
        return audio
    return soxr.resample(np.ascontiguousarray(audio, np.float32), from_rate, to_rate, quality="HQ")


def peak_normalize(audio: np.ndarray) -> np.ndarray:
    """Scale so that the largest magnitude is 1; audio that is all zeros stays as it is."""
    peak = float(np.abs(audio).max(initial=0))
    return audio / np.float32(peak) if peak > 0 else audio


def write(path: str | os.PathLike, audio: np.ndarray, sample_rate: int, subtype: str | None = None) -> None:
    """Write `(samples,)` or `(samples, channels)` in [-1, 1]; the suffix chooses the format. Atomic.

    Args:
        subtype: libsndfile's name of the sample format; its default for the file's format (16 bit for WAV and FLAC) if
            None. Samples beyond [-1, 1] are clipped in integer formats.

    Raises:
        InputError: the format cannot hold this; nothing is left behind.
        OSError: the disk is full or may not be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in EXTENSIONS:
        raise InputError(f"{os.fspath(path)}: cannot write {suffix or 'a file without suffix'}; use .wav or .flac")
    kind = {".oga": "OGG", ".opus": "OGG", ".aif": "AIFF", ".aifc": "AIFF"}.get(suffix, suffix[1:].upper())
    subtype = subtype or ("OPUS" if suffix == ".opus" else None)
    try:
        with write_atomically(path) as temporary:
            soundfile.write(temporary, audio, sample_rate, subtype, format=kind)
    except (soundfile.SoundFileError, ValueError) as error:
        raise InputError(f"{os.fspath(path)}: cannot be written: {_message(error)}") from error


def find_audio_files(folder: str | os.PathLike) -> list[Path]:
    """All audio files under a folder by suffix, sorted by path; hidden files and folders are skipped.

    Symbolic links are followed, but a folder already seen on the way down is not entered again.

    Raises:
        InputError: the folder is missing or is not a folder.
    """
    return [Path(entry.path) for entry in walk_files(folder) if os.path.splitext(entry.name)[1].lower() in EXTENSIONS]


def walk_files(folder: str | os.PathLike) -> Iterator[os.DirEntry]:
    """All files that are not hidden under a folder, depth first, each folder sorted by name, as directory entries.

    Raises:
        InputError: the folder is missing, is not a folder, or cannot be listed.
    """
    yield from _walk(os.fspath(folder), ())


def _walk(folder: str, parents: tuple[str, ...]) -> Iterator[os.DirEntry]:
    try:
        with os.scandir(folder) as listing:
            entries = sorted((entry for entry in listing if not entry.name.startswith(".")), key=lambda e: e.name)
    except FileNotFoundError:
        raise InputError(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise InputError(f"{folder}: is a file where a folder is needed") from None
    except OSError as error:
        raise InputError(f"{folder}: cannot be listed: {error.strerror}") from error
    real = os.path.realpath(folder)
    for entry in entries:
        if entry.is_dir():
            if not (entry.is_symlink() and os.path.realpath(entry.path) in (*parents, real)):
                yield from _walk(entry.path, (*parents, real))
        elif entry.is_file():
            yield entry


def _reason(path: str, error: Exception) -> str:
    if not os.path.exists(path):
        return "no such file"
    if os.path.isdir(path):
        return "is a folder, not an audio file"
    if not os.access(path, os.R_OK):
        return "may not be read (permission denied)"
    if os.path.getsize(path) == 0:
        return "is empty (0 bytes)"
    if isinstance(error, UnicodeEncodeError):
        return "has a name that is not UTF-8; rename it"
    reason = _message(error)
    if reason.startswith("File does not exist"):  # libsndfile's words for an MP3 without a frame
        reason = "there is no audio of a known format in it"
    return f"cannot be opened as audio: {reason}"


def _message(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)  # error_string is libsndfile's own, without the path
    return " ".join(text.split()).rstrip(".") or type(error).__name__
