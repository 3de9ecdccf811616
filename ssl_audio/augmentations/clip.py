"""Augmentation of one clip on the CPU: what the data loader's workers run.

A transform is a callable `(audio (samples,) float32, sample_rate, rng) -> (samples,) float32`; everything random in it
comes from `rng`, so a clip's result depends on its own seed and not on the number of workers.
"""

import numpy as np
import torch
from numpy.random import Generator

from ssl_audio.augmentations import batch
from ssl_audio.augmentations.base import Audio, ClipTransform, FromAudiomentations
from ssl_audio.augmentations.batch import BatchTransform
from ssl_audio.augmentations.praat import FormantShift, PitchShift

__all__ = [
    "ClipTransform",
    "Compose",
    "FormantShift",
    "FromBatch",
    "Gain",
    "GaussianNoise",
    "ImpulseResponse",
    "PitchShift",
    "SevenBandEQ",
    "Shift",
    "TanhDistortion",
    "TimeMask",
    "TimeStretch",
]


class Compose(ClipTransform):
    """One transform after the other, each with its own probability.

    Args:
        transforms: applied in this order.
        p: probability that the chain runs at all.
    """

    def __init__(self, transforms: list[ClipTransform], p: float = 1.0) -> None:
        super().__init__(p)
        self.transforms = transforms

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        for transform in self.transforms:
            audio = transform(audio, sample_rate, rng)
        return audio


class GaussianNoise(FromAudiomentations):
    """Add white noise whose standard deviation is uniform in [min_amplitude, max_amplitude] (full scale is 1)."""

    def __init__(self, min_amplitude: float = 0.001, max_amplitude: float = 0.05, p: float = 0.5) -> None:
        super().__init__(p, "AddGaussianNoise", min_amplitude=min_amplitude, max_amplitude=max_amplitude)


class TimeStretch(FromAudiomentations):
    """Play at a rate uniform in [min_rate, max_rate] without changing the pitch; cut or zero-padded to its length."""

    def __init__(self, min_rate: float = 0.8, max_rate: float = 1.2, p: float = 0.5) -> None:
        super().__init__(p, "TimeStretch", min_rate=min_rate, max_rate=max_rate)


class Gain(FromAudiomentations):
    """Multiply by a gain uniform in [min_gain_db, max_gain_db] decibels.

    Args:
        clamp: clip the result to [-1, 1].
    """

    def __init__(
        self, min_gain_db: float = -6.0, max_gain_db: float = 0.0, p: float = 0.5, clamp: bool = False
    ) -> None:
        super().__init__(p, "Gain", min_gain_db=min_gain_db, max_gain_db=max_gain_db)
        self.clamp = clamp

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        audio = super().apply(audio, sample_rate, rng)
        return audio.clip(-1, 1) if self.clamp else audio


class SevenBandEQ(FromAudiomentations):
    """Low shelf, five peaks and high shelf, each gain uniform in [min_gain_db, max_gain_db] decibels."""

    def __init__(self, min_gain_db: float = -2.0, max_gain_db: float = 1.0, p: float = 0.5) -> None:
        super().__init__(p, "SevenBandParametricEQ", min_gain_db=min_gain_db, max_gain_db=max_gain_db)


class TanhDistortion(FromAudiomentations):
    """Soft clipping at the loudness of the input; the amount is uniform in [min_distortion, max_distortion]."""

    def __init__(self, min_distortion: float = 0.1, max_distortion: float = 0.2, p: float = 0.5) -> None:
        super().__init__(p, "TanhDistortion", min_distortion=min_distortion, max_distortion=max_distortion)


class TimeMask(FromAudiomentations):
    """Silence one span, its length uniform in [min_fraction, max_fraction] of the clip, anywhere in it."""

    def __init__(self, min_fraction: float = 0.0, max_fraction: float = 0.125, p: float = 0.5) -> None:
        super().__init__(
            p, "TimeMask", min_band_part=min_fraction, max_band_part=max_fraction, fade_duration=0.0
        )  # hard edges, as published


class Shift(ClipTransform):
    """Roll the clip by a share of its length uniform in [min_fraction, max_fraction]; the end comes in at the start.

    audiomentations refuses shares above 1, which the published range (-.05 to 2) has; rolled over they are harmless.
    """

    def __init__(self, min_fraction: float = -0.05, max_fraction: float = 2.0, p: float = 0.5) -> None:
        super().__init__(p)
        self.min_fraction, self.max_fraction = min_fraction, max_fraction

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        return np.roll(audio, round(rng.uniform(self.min_fraction, self.max_fraction) * len(audio)))


class FromBatch(ClipTransform):
    """Any batched transform, one clip at a time: for chains that run in the loader's workers.

    Args:
        transform: with its own probability.
        p: probability that it is asked at all.
    """

    def __init__(self, transform: BatchTransform, p: float = 1.0) -> None:
        super().__init__(p)
        self.transform = transform

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        generator = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
        return self.transform(torch.from_numpy(audio)[None], sample_rate, generator)[0].numpy()


class ImpulseResponse(FromBatch):
    """Convolve with a recorded impulse response of `folder`, any of them equally likely, at the clip's own loudness.

    Args:
        folder: recordings of impulse responses, decoded once.
        max_seconds: longer responses are cut.
    """

    def __init__(self, folder: str, max_seconds: float = 2.0, p: float = 0.5) -> None:
        super().__init__(batch.ImpulseResponse(folder, max_seconds, p=1.0), p)
