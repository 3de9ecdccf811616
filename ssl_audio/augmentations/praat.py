"""Pitch and formant shift by Praat (Boersma and Weenink), through parselmouth: the published recipe, clip by clip.

parselmouth is GPL-3 and lives in the training extra; it is imported when the first clip is shifted.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.random import Generator

from ssl_audio.augmentations.base import Audio, ClipTransform, check_range

# Praat's "To Pitch" as published: a value each .8 / 75 s, between 75 and 600 Hz.
MINIMUM_PITCH = 75.0
MAXIMUM_PITCH = 600.0
TIME_STEP = 0.8 / MINIMUM_PITCH
# A pitch analysis spans three periods of the lowest pitch; a shorter clip has no pitch that could be shifted.
SHORTEST = 3.2 / MINIMUM_PITCH


def draw_ratio(low: float, high: float, rng: Generator) -> float:
    """A ratio uniform in [low, high], inverted half the time: up and down are equally likely."""
    ratio = rng.uniform(low, high)
    return 1 / ratio if rng.random() < 0.5 else ratio


@contextmanager
def praat_seed(seed: int) -> Iterator[None]:
    """Seed Praat's own random numbers, which choose what it copies in voiceless parts; unpredictable again after."""
    from parselmouth.praat import run

    run(f"random_initializeWithSeedUnsafelyButPredictably ({seed})")
    try:
        yield
    finally:
        run("random_initializeSafelyAndUnpredictably ()")


def change_gender(
    audio: Audio,
    sample_rate: int,
    formant_ratio: float = 1.0,
    pitch_ratio: float = 1.0,
    range_ratio: float = 1.0,
    seed: int = 0,
) -> Audio:
    """Praat's "Change gender": pitch-synchronous overlap-add with the formants kept or moved.

    Args:
        audio: (samples,) float32.
        formant_ratio: factor on the formant frequencies.
        pitch_ratio: factor on the median pitch.
        range_ratio: factor on the distance of each pitch value from the median.
        seed: for the random numbers that Praat uses in voiceless parts.

    Returns:
        (samples,). The pitch is left alone where none is found (silence, noise) and where the new range would take
        the lowest pitch below zero.
    """
    from parselmouth import Sound
    from parselmouth.praat import call

    if len(audio) < SHORTEST * sample_rate:
        return audio
    sound = Sound(audio.astype(np.float64), sampling_frequency=sample_rate)
    pitch = call(sound, "To Pitch", TIME_STEP, MINIMUM_PITCH, MAXIMUM_PITCH)
    median = call(pitch, "Get quantile", 0, 0, 0.5, "Hertz")
    if math.isnan(median):
        return audio
    lowest = call(pitch, "Get minimum", 0, 0, "Hertz", "Parabolic")
    new_median = median * pitch_ratio
    if new_median + (lowest * pitch_ratio - new_median) * range_ratio < 0:
        new_median, range_ratio = 0.0, 1.0  # Praat reads a median of 0 as "keep it"
    if formant_ratio == 1 and new_median in (0.0, median) and range_ratio == 1:
        return audio
    with praat_seed(seed):
        changed = call((sound, pitch), "Change gender", formant_ratio, new_median, range_ratio, 1.0)
    return fit_length(changed.values[0].astype(np.float32), len(audio))


def fit_length(audio: Audio, samples: int) -> Audio:
    """Cut the end off, or put zeros there, until there are `samples`."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio))))


class PitchShift(ClipTransform):
    """Move the pitch and stretch its range, formants kept.

    Args:
        min_ratio, max_ratio: the median pitch is multiplied by a ratio uniform in this range, inverted half the time.
        min_range_ratio, max_range_ratio: likewise for the pitch range around the median.
        p: probability.
    """

    def __init__(
        self,
        min_ratio: float = 1.0,
        max_ratio: float = 1.3,
        min_range_ratio: float = 1.0,
        max_range_ratio: float = 1.5,
        p: float = 0.5,
    ) -> None:
        super().__init__(p)
        check_range("PitchShift ratio", min_ratio, max_ratio, at_least=0.1, at_most=10)
        check_range("PitchShift range_ratio", min_range_ratio, max_range_ratio, at_least=0.1, at_most=10)
        self.min_ratio, self.max_ratio = min_ratio, max_ratio
        self.min_range_ratio, self.max_range_ratio = min_range_ratio, max_range_ratio

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        ratio = draw_ratio(self.min_ratio, self.max_ratio, rng)
        range_ratio = draw_ratio(self.min_range_ratio, self.max_range_ratio, rng)
        seed = int(rng.integers(2**31))
        return change_gender(audio, sample_rate, pitch_ratio=ratio, range_ratio=range_ratio, seed=seed)


class FormantShift(ClipTransform):
    """Move the formants, pitch kept.

    Args:
        min_ratio, max_ratio: formant frequencies are multiplied by a ratio uniform in this range, inverted half the
            time.
        p: probability.
    """

    def __init__(self, min_ratio: float = 1.0, max_ratio: float = 1.4, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("FormantShift ratio", min_ratio, max_ratio, at_least=0.1, at_most=10)
        self.min_ratio, self.max_ratio = min_ratio, max_ratio

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        ratio = draw_ratio(self.min_ratio, self.max_ratio, rng)
        return change_gender(audio, sample_rate, formant_ratio=ratio, seed=int(rng.integers(2**31)))
