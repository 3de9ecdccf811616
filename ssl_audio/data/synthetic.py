"""Synthetic singers: source-filter voices for demonstrations and tests, written as `dataset/singer/song.wav`.

A **singer** has, drawn once from the seed and the singer's number:

- vocal-tract length, a deviation of each formant, formant bandwidths;
- glottal source (spectral tilt, open quotient), breath, jitter;
- vibrato (rate, depth) and register.

Between recordings of one singer these change, so that they do not identify the singer: song, vowels, loudness (which
tilts the source, as in a real voice), room and microphone. The vowels are Peterson and Barney's (1952).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.random import Generator
from scipy.signal import fftconvolve, lfilter

from ssl_audio import audio

# F1 to F3 in Hz of a male vocal tract (Peterson & Barney 1952); F4 and F5 hardly depend on the vowel.
VOWELS = {
    "i": (270, 2290, 3010),
    "e": (530, 1840, 2480),
    "a": (730, 1090, 2440),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
_UPPER_FORMANTS = (3500, 4500)
_SCALE = np.array([0, 2, 4, 5, 7, 9, 11, 12])


@dataclass(frozen=True)
class Singer:
    """One voice. Frequencies in Hz, levels in dB, vibrato depth in cents.

    `formant_scale` is 1 for a 17.5 cm vocal tract and larger for shorter ones.
    """

    name: str
    formant_scale: float
    formant_deviation: tuple[float, ...]
    bandwidths: tuple[float, ...]
    lowest_note: float
    tilt: float
    open_quotient: float
    vibrato_rate: float
    vibrato_depth: float
    breath: float
    jitter: float


def make_singer(number: int, seed: int = 0) -> Singer:
    """The voice with this number; the same for the same seed on every machine."""
    rng = np.random.default_rng([seed, 1, number])
    high = number % 2 == 1  # half the voices are high ones
    return Singer(
        name=f"{'high' if high else 'low'}-{number:03d}",
        formant_scale=float(rng.uniform(1.08, 1.28) if high else rng.uniform(0.88, 1.08)),
        formant_deviation=tuple(rng.normal(1, 0.08, 5)),
        bandwidths=tuple(np.array([70, 90, 130, 180, 250]) * rng.uniform(0.7, 1.5)),
        lowest_note=float(rng.uniform(53, 60) if high else rng.uniform(41, 50)),
        tilt=float(rng.uniform(-14, -5)),
        open_quotient=float(rng.uniform(0.4, 0.8)),
        vibrato_rate=float(rng.uniform(4.5, 7.0)),
        vibrato_depth=float(rng.uniform(10, 90)),
        breath=float(rng.uniform(-50, -26)),
        jitter=float(rng.uniform(0.001, 0.006)),
    )


def sing(singer: Singer, song: int, seconds: float = 6.0, sample_rate: int = 22050, seed: int = 0) -> np.ndarray:
    """One song by one singer, `(samples,)` float32 in [-1, 1].

    The melody and the words depend on `song` alone, so that every singer sings the same songs.
    """
    melody = np.random.default_rng([seed, 2, song])
    take = np.random.default_rng([seed, 3, song, *singer.name.encode()])
    samples = round(seconds * sample_rate)
    lengths = melody.uniform(0.25, 0.7, size=int(seconds / 0.25) + 1)
    bounds = np.minimum(np.round(np.cumsum(lengths) * sample_rate).astype(int), samples)
    starts = np.concatenate([[0], bounds[:-1]])
    degrees = np.clip(np.cumsum(melody.integers(-2, 3, size=len(lengths))) + 3, 0, len(_SCALE) - 1)
    vowels = [list(VOWELS)[v] for v in melody.integers(0, len(VOWELS), size=len(lengths))]
    loudness = take.uniform(-8, 0)
    key = singer.lowest_note + take.uniform(-1, 3)

    notes = np.zeros(samples)
    out = np.zeros(samples)
    for start, end, degree in zip(starts, bounds, degrees, strict=True):
        notes[start:end] = key + _SCALE[degree]
    source = _glottal_source(singer, notes, loudness, sample_rate, take)
    for start, end, vowel in zip(starts, bounds, vowels, strict=True):
        if end - start < sample_rate // 50:
            continue
        out[start:end] = _vocal_tract(singer, source[start:end], vowel, sample_rate) * _fade(end - start, sample_rate)
    out = _room(out, sample_rate, take)
    peak = np.abs(out).max()
    return (out / peak * 10 ** ((loudness - 1) / 20)).astype(np.float32)


def _glottal_source(singer: Singer, notes: np.ndarray, loudness: float, sample_rate: int, rng: Generator) -> np.ndarray:
    """`(samples,)` Rosenberg-like flow derivative at the pitch of `notes` (MIDI), with vibrato, jitter and breath."""
    time = np.arange(len(notes)) / sample_rate
    glide = np.exp(-1 / (0.03 * sample_rate))  # singers glide between notes within some 30 ms
    notes = lfilter([1 - glide], [1, -glide], notes - notes[0]) + notes[0]
    vibrato = singer.vibrato_depth / 100 * np.sin(2 * np.pi * singer.vibrato_rate * time + rng.uniform(0, 2 * np.pi))
    wander = np.cumsum(rng.normal(0, 1, len(notes)))
    wander = singer.jitter * 10 * np.sin(wander / np.sqrt(sample_rate))
    f0 = 440 * 2 ** ((notes + vibrato + wander - 69) / 12)
    phase = np.cumsum(f0) / sample_rate % 1.0
    opening = phase / singer.open_quotient
    flow = np.where(opening < 1, opening**2 * (1 - opening), 0.0)
    pulse = np.diff(flow, prepend=0.0)
    # A first-order low-pass whose corner follows tilt and loudness: a louder voice is a brighter one.
    corner = 900 * 2 ** ((singer.tilt + 10 + loudness / 3) / 3)
    pole = np.exp(-2 * np.pi * corner / sample_rate)
    pulse = lfilter([1 - pole], [1, -pole], pulse)
    pulse /= np.sqrt(np.mean(pulse**2)) + 1e-12
    noise = rng.normal(0, 10 ** (singer.breath / 20), len(notes)) * (0.3 + (opening < 1))
    return pulse + noise


def _vocal_tract(singer: Singer, source: np.ndarray, vowel: str, sample_rate: int) -> np.ndarray:
    """Cascade of two-pole resonators (Klatt 1980), formants above Nyquist left out."""
    formants = (*VOWELS[vowel], *_UPPER_FORMANTS)
    out = source
    for formant, deviation, bandwidth in zip(formants, singer.formant_deviation, singer.bandwidths, strict=True):
        frequency = formant * singer.formant_scale * deviation
        if frequency > 0.45 * sample_rate:
            continue
        radius = np.exp(-np.pi * bandwidth / sample_rate)
        a = [1, -2 * radius * np.cos(2 * np.pi * frequency / sample_rate), radius**2]
        out = lfilter([sum(a)], a, out)
    return np.diff(out, prepend=0.0)  # radiation at the lips


def _fade(samples: int, sample_rate: int) -> np.ndarray:
    """`(samples,)` envelope that rises and falls within 20 ms."""
    ramp = min(samples // 2, sample_rate // 50)
    envelope = np.ones(samples)
    envelope[:ramp] = np.sin(np.linspace(0, np.pi / 2, ramp)) ** 2
    envelope[-ramp:] = envelope[:ramp][::-1]
    return envelope


def _room(dry: np.ndarray, sample_rate: int, rng: Generator) -> np.ndarray:
    """Adds a room (exponentially decaying noise, Polack's model), a microphone's tilt and a noise floor."""
    decay = rng.uniform(0.1, 0.4)
    length = int(decay * sample_rate)
    response = rng.normal(0, 1, length) * 10 ** (-3 * np.arange(length) / length)
    response *= 10 ** (rng.uniform(-30, -16) / 20) / np.sqrt(np.sum(response**2))
    response[0] += 1
    wet = fftconvolve(dry, response)[: len(dry)]
    wet = lfilter([1, rng.uniform(-0.25, 0.25)], [1], wet)
    return wet + rng.normal(0, 10 ** (rng.uniform(-65, -50) / 20), len(dry)) * np.sqrt(np.mean(wet**2))


def write_dataset(
    folder: str | Path,
    n_singers: int,
    n_songs: int,
    seconds: float = 6.0,
    sample_rate: int = 22050,
    first_singer: int = 0,
    seed: int = 0,
) -> Iterator[Path]:
    """Write `folder/singer/song-NN.wav` and yield each path, so that a caller can show progress.

    Files that exist are kept, so an interrupted call can be repeated.
    """
    for number in range(first_singer, first_singer + n_singers):
        singer = make_singer(number, seed)
        for song in range(n_songs):
            path = Path(folder) / singer.name / f"song-{song:02d}.wav"
            if not path.exists():
                audio.write(path, sing(singer, song, seconds, sample_rate, seed), sample_rate)
            yield path
