"""Audio files: information, reading of a part at any rate without decoding the rest, writing, search in folders.

No other module opens audio files. What this one returns:

- is float32 and mono (the mean of all channels), in [-1, 1]; samples of float files beyond that range are kept;
- is as long as the audio in the file, whatever its header says; no memory is allocated by the header's length;
- never contains silence in place of audio that cannot be decoded, which is an `AudioError`.

libsndfile decodes; what it does not know, PyAV does where it is installed (`media.py`).
"""

import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import soundfile
import soxr

from ssl_audio import media
from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_atomically

_FORMATS = {  # suffix -> libsndfile's name of the format; without headerless ones, and .mat, which is seldom audio
    **dict.fromkeys((".wav", ".wave", ".bwf"), "WAV"),
    **dict.fromkeys((".mp3", ".mp2", ".mp1", ".mpga"), "MP3"),
    **dict.fromkeys((".ogg", ".oga", ".opus"), "OGG"),
    **dict.fromkeys((".aif", ".aiff", ".aifc"), "AIFF"),
    **dict.fromkeys((".au", ".snd"), "AU"),
    **dict.fromkeys((".sph", ".nist"), "NIST"),
    **dict.fromkeys((".iff", ".svx", ".8svx"), "SVX"),
    **dict.fromkeys((".sf", ".ircam"), "IRCAM"),
    **{f".{name.lower()}": name for name in ("FLAC", "W64", "CAF", "RF64", "VOC", "PAF", "AVR", "PVF", "SDS", "HTK")},
    **{f".{name.lower()}": name for name in ("WVE",)},
}

EXTENSIONS = tuple(_FORMATS) + (media.EXTENSIONS if media.AVAILABLE else ())
"""Suffixes, in lower case, of audio files in a folder. When a file is opened, its content decides, not its suffix.
Those of `media.EXTENSIONS` are among them where PyAV is installed (the extra `media`)."""

UNSUPPORTED_EXTENSIONS = tuple(
    suffix for suffix in (*media.EXTENSIONS, ".awb", ".dff", ".ra", ".shn") if suffix not in EXTENSIONS
)
"""Suffixes of audio that cannot be decoded here. Such files are reported, not ignored."""

UNDECODABLE = "needs PyAV to be decoded; pip install 'ssl_audio[media]', or convert it to FLAC or WAV"
"""The reason for which a file that libsndfile does not know is not used where PyAV is not installed."""

SILENCE_PEAK = 1e-4
"""A file whose largest magnitude is below this (-80 dBFS) is silent."""

SILENT = f"is silent (its peak is below {SILENCE_PEAK:.0e})"
"""The reason for which a silent file is not used."""

_CANCELLED = 1e-3  # of the loudest channel's peak: a mean below it is silence that comes from mixing

_BLOCK = 1 << 20  # largest number of samples, over all channels, that one decoding call returns
_UNKNOWN_FRAMES = 1 << 62  # libsndfile gives 2**63 - 1 for streams of unknown length
_RESAMPLER_MARGIN = 256  # samples at the lower rate beyond which an edge has no effect on soxr's output (1e-7)
# Samples that are decoded before a part and dropped, because the first ones after a seek may be wrong:
# - Vorbis: half a block, of at most 8192 samples;
# - MP3: frames use bits of earlier frames: up to 255 bytes, which at 8 kbit/s are 23 frames of 576 samples, or up to
#   511 bytes, which at 32 kbit/s are 8 frames of 1152 samples.
_LEAD_IN = {"VORBIS": 8192, "MPEG_LAYER_I": 4608, "MPEG_LAYER_II": 4608, "MPEG_LAYER_III": 24 * 576}

_DATA_SIZES = re.compile(r"^data : (\d+) \(should be (\d+)\)", re.MULTILINE)
_PIPED_SIZES = 0x7FFF0000  # programs that write to a pipe give a size of at least this much


class _SoundFile(soundfile.SoundFile):
    """A file that claims not to be seekable, so that soundfile does not seek by itself; `seek` still works.

    soundfile otherwise seeks after every `read`. That fails at the end of streams of unknown length, and makes
    compressed formats decode twice.

    libsndfile gets a descriptor and no name: names may be in any encoding, and it would read the `._name` that macOS
    leaves beside a file.
    """

    _descriptor = -1

    def __init__(self, path: str) -> None:
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe must not make it wait
        try:
            super().__init__(self._descriptor, closefd=False)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        super().close()
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def seekable(self) -> bool:
        return False


class AudioError(InputError):
    """An audio file cannot be used.

    Attributes:
        path: the file, as it was given.
        reason: the reason, without the path.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[str, str]]:  # so that worker processes can pass it on
        return type(self), (self.path, self.reason)


@dataclass(frozen=True)
class AudioInfo:
    """What the header of a file says.

    Attributes:
        path: the file.
        frames: samples per channel, at `sample_rate`; possibly more than can be decoded.
        sample_rate: in Hz.
        channels: number of channels.
        format: libsndfile's or FFmpeg's names of format and sample format or codec, such as WAV/PCM_16 or MOV/AAC.
    """

    path: str
    frames: int
    sample_rate: int
    channels: int
    format: str

    @property
    def seconds(self) -> float:
        """Duration by the header."""
        return self.frames / self.sample_rate


class AudioFile:
    """An open audio file, from which several parts can be read. It is a context manager.

        with AudioFile("song.flac") as file:
            clip = file.read(start=44100, samples=176000, sample_rate=44100)

    Args:
        path: the file.

    Attributes:
        info: what its header says.

    Raises:
        AudioError: the file is missing, is not audio, or holds no samples.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._file: Any = _open(self.path)
        file = self._file
        self.info = AudioInfo(self.path, file.frames, file.samplerate, file.channels, f"{file.format}/{file.subtype}")
        if file.frames <= 0:
            self.close()
            raise AudioError(self.path, "holds no audio samples, according to its header")
        if file.frames >= _UNKNOWN_FRAMES:  # such FLAC streams may change their sample rate, which libsndfile hides
            self.close()
            raise AudioError(self.path, "is a stream of unknown length; encode it again to a file")

    @property
    def missing_bytes(self) -> int:
        """Bytes of audio that a WAV header declares beyond the end of the file, as in an incomplete copy.

        It is 0 if nothing is missing, and for files that were written to a pipe, whose header declares no real size.
        """
        sizes = _DATA_SIZES.search(self._file.extra_info)  # only libsndfile's log has them
        declared, actual = map(int, sizes.groups()) if sizes else (0, 0)
        return declared - actual if actual < declared < _PIPED_SIZES else 0

    def read(self, start: int = 0, samples: int | None = None, sample_rate: int | None = None) -> np.ndarray:
        """Decode a part. If the format can seek, only the part and a short margin for the resampler are read.

        Args:
            start: first sample, counted at `sample_rate`.
            samples: number of samples, counted at `sample_rate`. None: all from `start` on.
            sample_rate: sample rate of the result in Hz. None: that of the file. A part is equal to the same part of
                the whole file after resampling.

        Returns:
            `(samples,)` float32 mono; fewer at the end of the file, none beyond it.

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
        # Start where a source sample and a target sample coincide, so that part and whole file have the same phase.
        up, down = target // gcd(rate, target), rate // gcd(rate, target)
        margin = _RESAMPLER_MARGIN * max(1, -(-rate // target))
        periods = max(0, (start * down // up - margin) // down)
        first, skipped = periods * down, start - periods * up
        frames = None if samples is None else -(-(start + samples) * rate // target) + margin - first
        source = self._decode(first, frames)
        return resample(source, rate, target)[skipped:][:samples]

    def _decode(self, start: int, frames: int | None) -> np.ndarray:
        """`(frames,)` mono at the sample rate of the file; fewer at its end."""
        available = max(0, self.info.frames - start)
        frames = available if frames is None else min(frames, available)
        if frames == 0:
            return np.empty(0, np.float32)
        self._cancelled, self._heard = True, False
        lead_in = min(start, _LEAD_IN.get(self._file.subtype, 0))
        blocks = list(self._blocks(start - lead_in, frames + lead_in))
        audio = (blocks[0] if len(blocks) == 1 else np.concatenate(blocks or [np.empty(0, np.float32)]))[lead_in:]
        if not np.isfinite(audio).all():
            raise AudioError(self.path, "holds NaN or infinite samples")
        if frames == self.info.frames and self._cancelled and self._heard:
            raise AudioError(self.path, "is silent: its channels cancel each other out in their mean; keep one channel")
        return audio

    def _blocks(self, start: int, frames: int) -> Iterator[np.ndarray]:
        """Mono blocks from `start` on: `frames` samples, or those up to the end of the file."""
        file, channels = self._file, self._file.channels
        block = max(1, _BLOCK // channels)
        weights = np.full(channels, 1 / channels, np.float32)
        try:
            if start != file.tell():
                file.seek(start)
            while frames > 0:
                # With `out`, soundfile does not allocate an array of the declared length.
                part = file.read(
                    dtype="float32", always_2d=True, out=np.empty((min(block, frames), channels), np.float32)
                )
                if not len(part):
                    return
                mixed = part[:, 0].copy() if channels == 1 else part @ weights
                if channels > 1 and self._cancelled:
                    peak = float(np.abs(part).max())
                    self._cancelled = not peak > 0 or float(np.abs(mixed).max()) < _CANCELLED * peak
                    self._heard = self._heard or peak > 0
                yield mixed
                frames -= len(part)
        except (soundfile.SoundFileError, OSError, ValueError) as error:
            raise AudioError(self.path, f"cannot be decoded: {_message(error)}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> "AudioFile":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def info(path: str | os.PathLike[str]) -> AudioInfo:
    """Length, sample rate, channels and format of a file.

    Raises:
        AudioError: the file is missing, is not audio, or holds no samples.
    """
    with AudioFile(path) as file:
        return file.info


def read(
    path: str | os.PathLike[str], sample_rate: int | None = None, start: int = 0, samples: int | None = None
) -> np.ndarray:
    """Read a file, or a part of it.

    Args:
        path: a file of any format of `EXTENSIONS`; its content decides, not its suffix.
        sample_rate: sample rate of the result in Hz. None: that of the file.
        start: first sample, counted at `sample_rate`.
        samples: number of samples, counted at `sample_rate`. None: all from `start` on.

    Returns:
        `(samples,)` float32 mono; fewer if the file ends before.

    Raises:
        AudioError: the file is missing, is not audio, cannot be decoded, has NaN or infinite samples, or has no samples
            from `start` on.
    """
    with AudioFile(path) as file:
        audio = file.read(start, samples, sample_rate)
    if not len(audio) and samples != 0:
        raise AudioError(path, f"holds no audio from sample {start} on")
    return audio


def resample(audio: np.ndarray, from_rate: int, to_rate: int) -> np.ndarray:
    """Resample `(samples,)` with soxr (high quality, linear phase).

    Returns:
        float32, `samples * to_rate / from_rate` samples, rounded.
    """
    if from_rate == to_rate:
        return audio
    return soxr.resample(np.ascontiguousarray(audio, np.float32), from_rate, to_rate, quality="HQ")


def is_silent(audio: np.ndarray) -> bool:
    """Whether no sample reaches `SILENCE_PEAK`."""
    return float(max(audio.max(initial=0), -audio.min(initial=0))) < SILENCE_PEAK


def peak_normalize(audio: np.ndarray) -> np.ndarray:
    """Scale `(samples,)` so that the largest magnitude is 1. Digital silence is returned unchanged."""
    peak = float(np.abs(audio).max(initial=0))
    return audio / np.float32(peak) if peak > 0 else audio


def write(path: str | os.PathLike[str], audio: np.ndarray, sample_rate: int, subtype: str | None = None) -> None:
    """Write an audio file, or nothing if that fails.

    Args:
        path: the file; its suffix decides the format.
        audio: `(samples,)` or `(samples, channels)` in [-1, 1]. Integer formats clip samples beyond.
        sample_rate: in Hz.
        subtype: libsndfile's name of the sample format. None: its default for the format (16 bit for WAV and FLAC).

    Raises:
        InputError: the format is unknown, or cannot hold this audio.
        WriteError: the disk is full, or writing is not permitted.
    """
    suffix = Path(path).suffix.lower()
    kind = _FORMATS.get(suffix)
    if kind is None:
        raise InputError(f"{os.fspath(path)}: cannot write {suffix or 'a file without a suffix'}; use .wav or .flac")
    subtype = subtype or ("OPUS" if suffix == ".opus" else None)
    content = io.BytesIO()  # libsndfile does not say why a disk cannot be written; the system does
    try:
        soundfile.write(content, audio, sample_rate, subtype, format=kind)
    except (soundfile.SoundFileError, ValueError) as error:
        raise InputError(f"{os.fspath(path)}: cannot be written: {_message(error)}") from error
    with write_atomically(path) as temporary:
        temporary.write_bytes(content.getbuffer())


def find_audio_files(folder: str | os.PathLike[str]) -> list[Path]:
    """All files in a folder and its sub-folders that have a suffix of `EXTENSIONS`, sorted by path.

    Hidden files and folders are skipped. Symbolic links are followed, except to what is in the folder itself or was
    reached by another link, so that each file is listed once.

    Raises:
        InputError: the folder is missing, is not a folder, or cannot be listed.
    """
    return [Path(entry.path) for entry in walk_files(folder) if os.path.splitext(entry.name)[1].lower() in EXTENSIONS]


def walk_files(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """The directory entries of all files in a folder and its sub-folders: depth first, each folder sorted by name.

    Hidden files and folders are skipped, and links as `find_audio_files` says.

    Raises:
        InputError: the folder is missing, is not a folder, or cannot be listed.
    """
    yield from _walk(os.fspath(folder), os.path.realpath(folder), (), set())


def _walk(folder: str, root: str, parents: tuple[str, ...], linked: set[str]) -> Iterator[os.DirEntry[str]]:
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
        target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
        if entry.is_symlink() and (target in (*parents, real) or _listed_anyway(entry, target, root)):
            continue
        if entry.is_symlink() or not target.startswith(os.path.join(root, "")):  # reached through a link
            if target in linked:
                continue
            linked.add(target)
        if entry.is_dir():
            yield from _walk(entry.path, root, (*parents, real), linked)
        elif entry.is_file():
            yield entry


def _listed_anyway(link: os.DirEntry[str], target: str, root: str) -> bool:
    """Whether the target of a link is in the walked folder, where it is not hidden and has the suffix of the link."""
    start = os.path.join(root, "")
    if not target.startswith(start) or any(part.startswith(".") for part in target[len(start) :].split(os.sep)):
        return False
    suffixes = [os.path.splitext(name)[1].lower() for name in (link.name, target)]
    return link.is_dir() or suffixes[0] == suffixes[1]


def _open(path: str) -> Any:
    """What decodes the file: libsndfile, or PyAV for what libsndfile does not know. Both have the same members."""
    try:
        return _SoundFile(path)
    except (soundfile.SoundFileError, OSError, ValueError) as error:
        readable = os.path.isfile(path) and os.access(path, os.R_OK) and os.path.getsize(path) > 0
        if not readable or not media.is_media(path):
            raise AudioError(path, _reason(path, error)) from error
        if not media.AVAILABLE:
            raise AudioError(path, UNDECODABLE) from error
    try:
        return media.MediaFile(path)
    except (OSError, ValueError) as error:
        raise AudioError(path, _reason(path, error)) from error


def _reason(path: str, error: Exception) -> str:
    if not os.path.exists(path):
        return "no such file"
    if os.path.isdir(path):
        return "is a folder, not an audio file"
    if not os.access(path, os.R_OK):
        return "cannot be read (permission denied)"
    if not os.path.isfile(path):
        return "is not a regular file; copy its content to one"
    if os.path.getsize(path) == 0:
        return "is empty (0 bytes)"
    reason = _message(error)
    if reason.startswith("File does not exist"):  # libsndfile's message for an MP3 without a frame
        reason = "it holds no audio of a known format"
    return f"cannot be opened as audio: {reason}"


def _message(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error)  # error_string is libsndfile's own, without the path
    return " ".join(text.split()).rstrip(".") or type(error).__name__
