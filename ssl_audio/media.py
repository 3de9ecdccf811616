"""Sound that libsndfile cannot decode: AAC, ALAC, WMA, ..., in m4a, mp4, mov, mkv, webm, also the sound of videos.

FFmpeg decodes it, through PyAV (the extra `media`). `audio.AudioFile` opens such files; no other module does.

A part of a file equals the same part of the whole file as exactly as the codec permits:

- ALAC, FLAC, PCM, APE, WavPack and TTA: bit by bit;
- AAC: to 5e-3 of full scale, because the decoder fills some bands with noise of its own;
- Opus: to 1e-2 of full scale, because the decoder remembers what came before;
- other codecs, and files whose packets have several lengths without exact times: bit by bit, because the file is then
  decoded from its beginning.
"""

import os
from collections.abc import Iterator
from fractions import Fraction
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, BinaryIO, NamedTuple

import numpy as np

EXTENSIONS = (
    *(".m4a", ".m4b", ".m4r", ".mp4", ".mov", ".3gp", ".3g2", ".mka", ".mkv", ".webm", ".weba", ".aac", ".avi", ".flv"),
    *(".wma", ".asf", ".wmv", ".ape", ".wv", ".tta", ".tak", ".mpc", ".amr", ".ac3", ".eac3", ".dts", ".spx", ".dsf"),
)
"""Suffixes, in lower case, of files that are opened here."""

AVAILABLE = find_spec("av") is not None
"""Whether PyAV is installed."""

# Demuxers that read one file and nothing that it names: playlists, for example, are not among them.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,aac,avi,flv,asf,ape,wv,tta,tak,mpc,mpc8,amr,ac3,eac3,dts,ogg,dsf,"
    "mp3,wav,flac"
)
_MAGIC = (b"\x1aE\xdf\xa3", b"0&\xb2u\x8ef\xcf\x11", b"MAC ", b"wvpk", b"TTA1", b"tBaK", b"#!AMR", b"\x0bw", b"DSD ")

# Samples that are decoded before a part and dropped. Codecs that are not named here are decoded from the beginning.
_EXACT = ("alac", "flac", "ape", "wavpack", "tta")
_LEAD = {"aac": 8192, "opus": 48000, **dict.fromkeys(_EXACT, 0)}


class _Layout(NamedTuple):
    """What only decoding tells: the samples of a file, and of its first and of every middle frame (0: unequal)."""

    samples: int
    first: int
    middle: int


class MediaFile:
    """An open file, with the members of `soundfile.SoundFile` that `audio.AudioFile` uses.

    Args:
        path: the file.

    Attributes:
        frames: samples per channel. Taken from the container where it counts in samples, as mp4 does; otherwise the
            file is decoded once to count them.
        samplerate: in Hz.
        channels: number of channels.
        format, subtype: FFmpeg's names of container and codec, in capitals.

    Raises:
        OSError, ValueError: the file is missing, is not a media file, or has no sound.
    """

    extra_info = ""

    def __init__(self, path: str) -> None:
        self._path = path
        self._source, self._container = _open(path)
        try:
            stream = self._container.streams.best("audio")
            if stream is None:
                raise ValueError("it has no sound")
            self._stream: Any = stream
            self.samplerate: int = stream.codec_context.sample_rate
            self.channels: int = stream.codec_context.layout.nb_channels
            if not self.samplerate or not self.channels:
                raise ValueError("its sound has no sample rate or no channels")
            self.format = self._container.format.name.split(",")[0].upper()
            self.subtype = stream.codec_context.name.upper()
            self._exact_times = stream.time_base == Fraction(1, self.samplerate)
            counted = self._exact_times and stream.duration is not None
            self.frames: int = stream.duration if counted else self._layout().samples
        except BaseException:
            self.close()
            raise
        self._position = 0
        self._parts: Iterator[np.ndarray] = self._decode()
        self._rest = np.empty((0, self.channels), np.float32)

    def _layout(self) -> _Layout:
        state = os.stat(self._path)
        return _layout(self._path, state.st_size, state.st_mtime_ns)

    def tell(self) -> int:
        """The next sample that `read` returns."""
        return self._position

    def seek(self, start: int) -> int:
        """Go to a sample."""
        self._rest = np.empty((0, self.channels), np.float32)
        parts, at = self._from(start)
        while at < start:
            part = next(parts, None)
            if part is None:
                break
            at += len(part)
            if at > start:
                self._rest = part[len(part) - (at - start) :]
        self._parts, self._position = parts, start
        return start

    def read(self, dtype: str, always_2d: bool, out: np.ndarray) -> np.ndarray:
        """Fill `out`, `(samples, channels)` float32. Returns the part of it that was filled, none at the end."""
        filled = 0
        while filled < len(out):
            if not len(self._rest):
                part = next(self._parts, None)
                if part is None:
                    break
                self._rest = part
            taken = min(len(out) - filled, len(self._rest))
            out[filled : filled + taken] = self._rest[:taken]
            self._rest = self._rest[taken:]
            filled += taken
        self._position += filled
        return out[:filled]

    def close(self) -> None:
        """Close the file."""
        self._container.close()
        self._source.close()

    def _from(self, start: int) -> tuple[Iterator[np.ndarray], int]:
        """Decoded frames that begin at or before `start`, and the sample at which they begin."""
        codec = self._stream.codec_context.name
        lead = 0 if codec.startswith("pcm_") else _LEAD.get(codec.removesuffix("_fixed"))
        if lead is not None and start > lead:
            layout = None if self._exact_times else self._layout()
            if layout is None or layout.middle:
                self._container.seek(self._ticks(start - lead), stream=self._stream, backward=True)
                frames = self._frames()
                if lead:  # the first frame after a seek may be cut as the first of the file is
                    next(frames, None)
                frame = next(frames, None)
                at = None if frame is None or frame.pts is None else self._sample(frame.pts, layout)
                if at is not None and at <= start - lead // 2:
                    return self._arrays(frames, frame), at
        self.close()  # a new container: seeking to the beginning does not restore the state of every decoder
        self._source, self._container = _open(self._path)
        self._stream = self._container.streams.best("audio")
        return self._decode(), 0

    def _ticks(self, sample: int) -> int:
        """The time of a sample, in the units of the container."""
        ticks = Fraction(sample, self.samplerate) / self._stream.time_base
        return int(ticks) + (self._stream.start_time or 0)

    def _sample(self, pts: int, layout: _Layout | None) -> int:
        """The sample at a time. Without exact times, the nearest one at which a frame can begin."""
        at = (pts - (self._stream.start_time or 0)) * self._stream.time_base * self.samplerate
        if layout is None:
            return round(at)
        return layout.first + layout.middle * round((at - layout.first) / layout.middle)

    def _decode(self) -> Iterator[np.ndarray]:
        return self._arrays(self._frames())

    def _frames(self) -> Iterator[Any]:
        for frame in self._container.decode(self._stream):
            if frame.sample_rate != self.samplerate or frame.layout.nb_channels != self.channels:
                raise ValueError("its sample rate or number of channels changes; encode it again")
            yield frame

    def _arrays(self, frames: Iterator[Any], first: Any = None) -> Iterator[np.ndarray]:
        if first is not None:
            yield _samples(first, self.channels)
        for frame in frames:
            yield _samples(frame, self.channels)


def is_media(path: str) -> bool:
    """Whether suffix or content say that a file is for this module."""
    if os.path.splitext(path)[1].lower() in EXTENSIONS:
        return True
    try:
        with open(path, "rb") as file:
            start = file.read(16)
    except OSError:
        return False
    adts = len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0
    return adts or start[4:8] == b"ftyp" or start.startswith(_MAGIC)


def _open(path: str) -> tuple[BinaryIO, Any]:
    """The file and its container. FFmpeg gets an open file and no name, so that it opens nothing else."""
    import av

    source = open(path, "rb")  # noqa: SIM115  (closed by MediaFile.close)
    try:
        return source, av.open(source, options={"format_whitelist": _DEMUXERS, "protocol_whitelist": ""})
    except BaseException:
        source.close()
        raise


@lru_cache(maxsize=4096)
def _layout(path: str, size: int, changed: int) -> _Layout:
    """Decode a file and count. `size` and `changed` are those of the file: another content is counted again."""
    source, container = _open(path)
    with source, container:
        lengths = [frame.samples for frame in container.decode(container.streams.best("audio"))]
    middle = set(lengths[1:-1])
    return _Layout(sum(lengths), lengths[0] if lengths else 0, middle.pop() if len(middle) == 1 else 0)


def _samples(frame: Any, channels: int) -> np.ndarray:
    """`(samples, channels)` float32."""
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, channels)
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / 128
    if np.issubdtype(values.dtype, np.integer):
        return (values / float(2 ** (8 * values.dtype.itemsize - 1))).astype(np.float32)
    return values.astype(np.float32)
