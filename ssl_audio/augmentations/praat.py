"""Pitch and formant shift of one clip by Praat (Boersma and Weenink, https://praat.org), as in the published recipe.

The Python interface, parselmouth, is GPL-3. It belongs to the training extra and is imported with the first clip.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.random import Generator

from ssl_audio.augmentations.base import Audio, ClipTransform, check_range

# Arguments of Praat's "To Pitch", as published: a value every 0.8 / 75 s, between 75 and 600 Hz.
MINIMUM_PITCH = 75.0
MAXIMUM_PITCH = 600.0
TIME_STEP = 0.8 / MINIMUM_PITCH
# The pitch analysis needs three periods of the lowest pitch. Shorter clips are not shifted.
SHORTEST = 3.2 / MINIMUM_PITCH


def draw_ratio(low: float, high: float, rng: Generator) -> float:
    """A ratio uniform in [low, high], inverted with probability one half, so that up and down are equally likely."""
    ratio = rng.uniform(low, high)
    return 1 / ratio if rng.random() < 0.5 else ratio


@contextmanager
def praat_seed(seed: int) -> Iterator[None]:
    """Inside, Praat's random numbers are seeded; they decide what it copies in voiceless parts."""
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
    """Praat's "Change gender": change pitch and formants independently by pitch-synchronous overlap-add.

    Args:
        audio: `(samples,)` float32.
        sample_rate: in Hz.
        formant_ratio: factor for the formant frequencies.
        pitch_ratio: factor for the median pitch.
        range_ratio: factor for the distance of each pitch value from the median.
        seed: seed of the random numbers that Praat uses in voiceless parts.

    Returns:
        `(samples,)`. The pitch is not changed if Praat finds none (silence, noise), or if the new range would take the
        lowest pitch below zero.
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
        new_median, range_ratio = 0.0, 1.0  # for Praat, a median of 0 means "no change"
    if formant_ratio == 1 and new_median in (0.0, median) and range_ratio == 1:
        return audio
    with praat_seed(seed):
        changed = call((sound, pitch), "Change gender", formant_ratio, new_median, range_ratio, 1.0)
    return fit_length(changed.values[0].astype(np.float32), len(audio))


def fit_length(audio: Audio, samples: int) -> Audio:
    """Cut or zero-pad the end, so that the length is `samples`."""
    return np.pad(audio[:samples], (0, max(0, samples - len(audio))))


class PitchShift(ClipTransform):
    """Change the pitch and its range, and keep the formants.

    Args:
        min_ratio, max_ratio: the median pitch is multiplied by a ratio uniform in this range; with probability one
            half, it is divided by it.
        min_range_ratio, max_range_ratio: the same for the pitch range around the median.
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
    """Change the formant frequencies, and keep the pitch.

    Args:
        min_ratio, max_ratio: the formant frequencies are multiplied by a ratio uniform in this range; with probability
            one half, they are divided by it.
        p: probability.
    """

    def __init__(self, min_ratio: float = 1.0, max_ratio: float = 1.4, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("FormantShift ratio", min_ratio, max_ratio, at_least=0.1, at_most=10)
        self.min_ratio, self.max_ratio = min_ratio, max_ratio

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        ratio = draw_ratio(self.min_ratio, self.max_ratio, rng)
        return change_gender(audio, sample_rate, formant_ratio=ratio, seed=int(rng.integers(2**31)))
