"""Conditions: what a test recording goes through before it is embedded.

A condition changes the decoded file at its own sample rate, so that every model hears the same recording, whatever rate
it works at. Random parts follow from the samples alone: a recording is changed in the same way in every run.
"""

import inspect
import io
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soundfile
from scipy.signal import butter, sosfiltfilt

from ssl_audio import audio
from ssl_audio.errors import InputError

CLEAN = "clean"  # the name of no condition
DIRECT_TO_REVERB_DB = (0.0, 10.0)
_OPUS_RATE, _MP3_RATES = 48000, (8000, 16000, 22050, 24000, 32000, 44100, 48000)
_MP3_LEAD = 576 + 529  # samples: the encoder's and the decoder's
_TELEPHONE_RATE, _TELEPHONE_BAND = 8000, (300.0, 3400.0)
_MU = 255.0


@dataclass(frozen=True)
class Condition:
    """One condition.

    Attributes:
        name: as `parse_condition` takes it, such as `noise:10`.
        value: the number after the colon; 0 if the kind has none.
        change: `(samples (n,), sample rate, value) -> (m,)`, float32; `m` is `n` except for `cut`.

    Example:
        >>> parse_condition("cut:2")(np.ones(48000, np.float32), 16000).shape
        (32000,)
    """

    name: str
    value: float
    change: Callable[[np.ndarray, int, float], np.ndarray]

    def __call__(self, samples: np.ndarray, sample_rate: int) -> np.ndarray:
        """`(samples,)` at `sample_rate` Hz, changed, float32 at the same rate."""
        return np.ascontiguousarray(self.change(samples, sample_rate, self.value), dtype=np.float32)


def parse_condition(text: str) -> Condition:
    """The condition of this name: `telephone`, or `kind:number` with the kinds of `KINDS`.

    Raises:
        InputError: an unknown kind, or a number that is missing or out of range; or a codec, and soundfile is too old.
    """
    kind, colon, number = text.strip().partition(":")
    if kind not in KINDS:
        raise InputError(f"condition {text!r} is unknown; there are {', '.join(map(_form, KINDS))}")
    change, unit, low, high, _ = KINDS[kind]
    if change in (_opus, _mp3) and "compression_level" not in inspect.signature(soundfile.write).parameters:
        raise InputError(f"condition {text!r} needs soundfile 0.13 or newer; pip install --upgrade soundfile")
    if not unit:
        if colon:
            raise InputError(f"condition {text!r}: {kind} takes no number; give {kind}")
        return Condition(kind, 0.0, change)
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise InputError(f"condition {text!r}: give {kind}:NUMBER with a number of {unit} from {low:g} to {high:g}")
    return Condition(f"{kind}:{value:g}", value, change)


def room(rng: np.random.Generator, sample_rate: int, seconds: float, direct_to_reverb_db: float) -> np.ndarray:
    """`(samples,)` float32 impulse response of a room: direct sound, then noise that decays by 60 dB in `seconds`."""
    time = np.arange(1, int(seconds * sample_rate)) / sample_rate
    tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
    tail *= 10 ** (-direct_to_reverb_db / 20) / np.sqrt(np.sum(tail**2))
    return np.r_[1.0, tail].astype(np.float32)


def generator(samples: np.ndarray, seed: int = 0) -> np.random.Generator:
    """Random numbers that follow from the samples of a clip, rounded to 16 bits, and a seed."""
    rounded = np.round(samples * 32767).astype(np.int16)
    return np.random.default_rng([seed, zlib.crc32(rounded.tobytes())])


def mu_law(samples: np.ndarray) -> np.ndarray:
    """Samples in [-1, 1] through 8 bits of mu-law: F(x) = sign(x) ln(1 + 255 |x|) / ln 256 (ITU-T G.711)."""
    coded = np.sign(samples) * np.log1p(_MU * np.abs(samples)) / np.log1p(_MU)
    coded = np.round(coded * 127) / 127
    return np.sign(coded) * np.expm1(np.abs(coded) * np.log1p(_MU)) / _MU


def _opus(samples: np.ndarray, sample_rate: int, kbits: float) -> np.ndarray:
    level = 1 - (kbits * 1000 - 6000) / 250000  # libsndfile: from 256 kbit/s at level 0 to 6 kbit/s at level 1
    return _through_codec(samples, sample_rate, _OPUS_RATE, "OGG", "OPUS", level)


def _mp3(samples: np.ndarray, sample_rate: int, kbits: float) -> np.ndarray:
    rate = min((rate for rate in _MP3_RATES if rate >= sample_rate), default=_MP3_RATES[-1])
    low, high = (32, 320) if rate >= 32000 else (8, 160) if rate >= 16000 else (8, 64)  # kbit/s of MPEG 1, 2 and 2.5
    level = 1 - (min(max(kbits, low), high) - low) / (high - low)
    return _through_codec(samples, sample_rate, rate, "MP3", "MPEG_LAYER_III", level)


def _through_codec(
    samples: np.ndarray, sample_rate: int, codec_rate: int, container: str, codec: str, level: float
) -> np.ndarray:
    """Encode and decode in memory; the length stays."""
    file = io.BytesIO()
    loud = max(1.0, float(np.abs(samples).max(initial=0)))  # a codec clips beyond 1
    given = audio.resample(samples / np.float32(loud), sample_rate, codec_rate)
    options = {"bitrate_mode": "CONSTANT"} if container == "MP3" else {}
    top = 0.999 if container == "MP3" else 1.0  # libsndfile refuses 1 for MP3
    soundfile.write(
        file, given, codec_rate, format=container, subtype=codec, compression_level=min(max(level, 0.0), top), **options
    )
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32")[0]
    if container == "MP3" and len(decoded) > len(
        given
    ):  # below 64 kbit/s LAME leaves out the frame that tells the lead
        decoded = decoded[_MP3_LEAD:]
    return _of_length(audio.resample(decoded, codec_rate, sample_rate), len(samples)) * np.float32(loud)


def _telephone(samples: np.ndarray, sample_rate: int, _: float) -> np.ndarray:
    peak = float(np.abs(samples).max(initial=0)) or 1.0
    narrow = audio.resample((samples / peak).astype(np.float32), sample_rate, _TELEPHONE_RATE)
    band = butter(4, _TELEPHONE_BAND, "bandpass", fs=_TELEPHONE_RATE, output="sos")
    if len(narrow) > 3 * (2 * len(band) + 1):  # scipy pads by this much; a shorter clip has nothing to filter
        narrow = sosfiltfilt(band, narrow)
    coded = mu_law(np.clip(narrow, -1, 1)).astype(np.float32)
    return _of_length(audio.resample(coded, _TELEPHONE_RATE, sample_rate), len(samples)) * np.float32(peak)


def _reverb(samples: np.ndarray, sample_rate: int, seconds: float) -> np.ndarray:
    rng = generator(samples)
    response = room(rng, sample_rate, seconds, rng.uniform(*DIRECT_TO_REVERB_DB))
    size = len(samples) + len(response) - 1
    return np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)[: len(samples)]


def _noise(samples: np.ndarray, sample_rate: int, decibels: float) -> np.ndarray:
    spectrum = np.fft.rfft(generator(samples).standard_normal(len(samples)))
    frequency = np.fft.rfftfreq(len(samples), 1 / sample_rate)
    noise = np.fft.irfft(spectrum / np.sqrt(np.maximum(frequency, 20.0)), len(samples))
    scale = np.sqrt(np.mean(samples**2, dtype=np.float64) / np.mean(noise**2)) * 10 ** (-decibels / 20)
    return samples + scale * noise


def _cut(samples: np.ndarray, sample_rate: int, seconds: float) -> np.ndarray:
    length = min(len(samples), max(1, round(seconds * sample_rate)))
    start = (len(samples) - length) // 2
    return samples[start : start + length]


def _of_length(samples: np.ndarray, length: int) -> np.ndarray:
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def _form(kind: str) -> str:
    return f"{kind}:{KINDS[kind][-1]}" if KINDS[kind][1] else kind


KINDS: dict[str, tuple[Callable[[np.ndarray, int, float], np.ndarray], str, float, float, str]] = {
    "opus": (_opus, "kbit/s", 6, 256, "16"),
    "mp3": (_mp3, "kbit/s", 8, 320, "32"),
    "telephone": (_telephone, "", 0, 0, ""),
    "reverb": (_reverb, "seconds (decay by 60 dB)", 0.05, 10, "0.6"),
    "noise": (_noise, "dB above the noise", -30, 60, "10"),
    "cut": (_cut, "seconds", 0.05, 3600, "2"),
}
"""kind -> (function, unit of its number or "", least, most, an example).

- `opus:KBITS`, `mp3:KBITS`: encoded and decoded (libsndfile). MP3 has other rates at each sample
  rate; the nearest is taken.
- `telephone`: 300 to 3400 Hz at a sample rate of 8 kHz, through 8 bits of mu-law.
- `reverb:SECONDS`: a room with this decay time; direct sound to reverberation is between 0 and 10 dB.
- `noise:DB`: pink noise, this much below the clip's root mean square.
- `cut:SECONDS`: the middle of the clip; a shorter clip stays as it is.
"""
