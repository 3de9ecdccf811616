"""The effect of a pitch shift on a voice, measured by Praat: pitch, formants, voicing, spectral envelope."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssl_audio.augmentations.base import Audio

STEP = 0.01  # seconds between frames
EDGE = 0.025  # seconds without frames at both ends
LIFTER = 0.0015  # seconds; the cepstrum below is the spectral envelope, above it the voice source
Array = NDArray[np.float64]


class Voice(NamedTuple):
    """The analysis of a recording, with a frame every 10 ms.

    Attributes:
        pitch: `(frames,)` in Hz; 0 where unvoiced.
        formants: `(frames, 3)` in Hz; NaN where Praat finds none.
        envelope: `(frames, coefficients)` cepstrum of the spectral envelope, without its level.
    """

    pitch: Array
    formants: Array
    envelope: Array


class Change(NamedTuple):
    """The difference between two analyses.

    Attributes:
        pitch: median pitch ratio, over frames that are voiced in both.
        formants: `(3,)` relative changes of the medians of F1 to F3.
        voicing: fraction of frames with the same voicing decision.
        envelope: mean distance of the spectral envelopes in voiced frames, in decibels.
    """

    pitch: float
    formants: Array
    voicing: float
    envelope: float


def listen_to(audio: Audio, sample_rate: int, ceiling: float = 5500.0) -> Voice:
    """Analyse `(samples,)` with Praat's defaults: pitch from 75 to 600 Hz, five formants below `ceiling` Hz."""
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
    """The low cepstral coefficients of 30 ms around each time, without the first one, which is the level."""
    width = round(0.03 * sample_rate)
    first = np.round(times * sample_rate).astype(int) - width // 2
    frames = np.pad(audio, (width, 2 * width))[(first + width)[:, None] + np.arange(width)] * np.hanning(width)
    spectrum = np.log(np.abs(np.fft.rfft(frames, 2048 * (1 + sample_rate // 30000))) ** 2 + 1e-7)
    return np.fft.irfft(spectrum)[:, 1 : round(LIFTER * sample_rate)]


def compare(before: Voice, after: Voice, agree: NDArray[np.bool_] | None = None) -> Change:
    """Compare two analyses of the same length.

    Args:
        before: analysis of a recording.
        after: analysis of the transformed recording.
        agree: frames in which voicing is compared. None: all.
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
