"""What a pitch shift did to a voice, measured by Praat: pitch, formants, voicing, spectral envelope."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_audio.augmentations.base import Audio

STEP = 0.01  # seconds between frames
EDGE = 0.025  # seconds at both ends without frames
LIFTER = 0.0015  # seconds: cepstrum below this is the envelope, above it the voice's source
Array = NDArray[np.float64]


class Voice(NamedTuple):
    """A recording as Praat hears it, a row each 10 ms.

    pitch: (frames,) Hz, 0 where unvoiced.
    formants: (frames, 3) Hz, NaN where there is none.
    envelope: (frames, coefficients) cepstrum of the spectral envelope, without its level.
    """

    pitch: Array
    formants: Array
    envelope: Array


class Change(NamedTuple):
    """What became of a recording.

    pitch: median over frames, voiced before and after, of the pitch ratio.
    formants: (3,) shares by which the medians of F1 to F3 moved.
    voicing: share of frames whose voicing decision stayed.
    envelope: mean distance of the spectral envelope in voiced frames, decibels.
    """

    pitch: float
    formants: Array
    voicing: float
    envelope: float


def listen_to(audio: Audio, sample_rate: int, ceiling: float = 5500.0) -> Voice:
    """Analyse (samples,) audio with Praat's defaults: pitch from 75 to 600 Hz, five formants below the ceiling (Hz)."""
    from parselmouth import Sound
    from parselmouth.praat import call

    sound = Sound(audio.astype(np.float64), sample_rate)
    times = np.arange(EDGE, len(audio) / sample_rate - EDGE, STEP)
    pitch = call(sound, "To Pitch", STEP, 75, 600)
    formants = sound.to_formant_burg(time_step=STEP, maximum_formant=ceiling)
    values = [[formants.get_value_at_time(i, time) for i in (1, 2, 3)] for time in times]
    hertz = np.nan_to_num([pitch.get_value_at_time(time) for time in times])
    return Voice(hertz, np.array(values, dtype=float), envelope(audio, sample_rate, times))


def envelope(audio: Audio, sample_rate: int, times: Array) -> Array:
    """Low cepstral coefficients of 30 ms around each time, the first (the level) left out."""
    width = round(0.03 * sample_rate)
    first = np.round(times * sample_rate).astype(int) - width // 2
    frames = np.pad(audio, (width, 2 * width))[(first + width)[:, None] + np.arange(width)] * np.hanning(width)
    spectrum = np.log(np.abs(np.fft.rfft(frames, 2048 * (1 + sample_rate // 30000))) ** 2 + 1e-7)
    return np.fft.irfft(spectrum)[:, 1 : round(LIFTER * sample_rate)]


def compare(before: Voice, after: Voice, agree: NDArray[np.bool_] | None = None) -> Change:
    """How one analysis differs from another of the same length.

    Args:
        before, after: analyses of a recording and of what was made of it.
        agree: frames at which voicing is compared; all if None.
    """
    voiced = before.pitch > 0
    both = voiced & (after.pitch > 0)
    moved = np.abs(np.nanmedian(after.formants[voiced], 0) / np.nanmedian(before.formants[voiced], 0) - 1)
    same = voiced == (after.pitch > 0)
    distance = np.sqrt(2 * ((after.envelope - before.envelope)[voiced] ** 2).sum(1)) * 10 / np.log(10)
    return Change(
        pitch=float(np.median(after.pitch[both] / before.pitch[both])),
        formants=moved,
        voicing=float(same[slice(None) if agree is None else agree].mean()),
        envelope=float(distance.mean()),
    )
