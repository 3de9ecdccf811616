"""Transforms of one clip on the CPU, which run in the data loader's workers.

A transform is called with `audio` (`(samples,)` float32), `sample_rate` and `rng`, and returns `(samples,)` float32. It
draws only from `rng`, so the result depends on the clip's seed, not on the number of workers.

Example:
    >>> import numpy as np
    >>> noise = GaussianNoise(min_amplitude=0.01, max_amplitude=0.02, p=1.0)
    >>> noise(np.zeros(16000, np.float32), 16000, np.random.default_rng(0)).shape
    (16000,)
"""

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
    """Applies transforms in order, each with its own probability.

    Args:
        transforms: transforms in the order of their application.
        p: probability that the chain is applied at all.
    """

    def __init__(self, transforms: list[ClipTransform], p: float = 1.0) -> None:
        super().__init__(p)
        self.transforms = transforms

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        for transform in self.transforms:
            audio = transform(audio, sample_rate, rng)
        return audio


class GaussianNoise(FromAudiomentations):
    """Add white noise with a standard deviation uniform in [min_amplitude, max_amplitude]; full scale is 1."""

    def __init__(self, min_amplitude: float = 0.001, max_amplitude: float = 0.05, p: float = 0.5) -> None:
        super().__init__(p, "AddGaussianNoise", min_amplitude=min_amplitude, max_amplitude=max_amplitude)


class TimeStretch(FromAudiomentations):
    """Change the speed by a factor uniform in [min_rate, max_rate], keep the pitch, then cut or zero-pad the clip."""

    def __init__(self, min_rate: float = 0.8, max_rate: float = 1.2, p: float = 0.5) -> None:
        super().__init__(p, "TimeStretch", min_rate=min_rate, max_rate=max_rate)


class Gain(FromAudiomentations):
    """Apply a gain uniform in [min_gain_db, max_gain_db] decibels.

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
    """Apply a low shelf, five peaks and a high shelf, each with a gain uniform in [min_gain_db, max_gain_db] dB."""

    def __init__(self, min_gain_db: float = -2.0, max_gain_db: float = 1.0, p: float = 0.5) -> None:
        super().__init__(p, "SevenBandParametricEQ", min_gain_db=min_gain_db, max_gain_db=max_gain_db)


class TanhDistortion(FromAudiomentations):
    """Clip softly and keep the loudness; the amount is uniform in [min_distortion, max_distortion]."""

    def __init__(self, min_distortion: float = 0.1, max_distortion: float = 0.2, p: float = 0.5) -> None:
        super().__init__(p, "TanhDistortion", min_distortion=min_distortion, max_distortion=max_distortion)


class TimeMask(FromAudiomentations):
    """Silence a span anywhere in the clip. Its length is uniform in [min_fraction, max_fraction] of the clip's."""

    def __init__(self, min_fraction: float = 0.0, max_fraction: float = 0.125, p: float = 0.5) -> None:
        super().__init__(
            p, "TimeMask", min_band_part=min_fraction, max_band_part=max_fraction, fade_duration=0.0
        )  # without fades, as published


class FromBatch(ClipTransform):
    """Applies a batch transform to one clip, so that it can be part of a chain in the data loader's workers.

    Args:
        transform: a transform of `ssl_audio.augmentations.batch`, with its own probability.
        p: probability that it is used at all.
    """

    def __init__(self, transform: BatchTransform, p: float = 1.0) -> None:
        super().__init__(p)
        self.transform = transform

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        generator = torch.Generator().manual_seed(int(rng.integers(2**63 - 1)))
        return self.transform(torch.from_numpy(audio)[None], sample_rate, generator)[0].numpy()


class ImpulseResponse(FromBatch):
    """Convolve with an impulse response, drawn uniformly from the recordings of a folder, and keep the loudness.

    Args:
        folder: recordings of impulse responses; decoded once.
        max_seconds: longer responses are cut.
        p: probability.
    """

    def __init__(self, folder: str, max_seconds: float = 2.0, p: float = 0.5) -> None:
        super().__init__(batch.ImpulseResponse(folder, max_seconds, p=1.0), p)


class Shift(FromBatch):
    """Rotate the clip by a fraction of its length, with a fade at the seam; see `batch.Shift`."""

    def __init__(
        self, min_fraction: float = -0.05, max_fraction: float = 0.2, p: float = 0.5, fade_seconds: float = 0.01
    ) -> None:
        super().__init__(batch.Shift(min_fraction, max_fraction, p=1.0, fade_seconds=fade_seconds), p)
        self.min_fraction, self.max_fraction, self.fade_seconds = min_fraction, max_fraction, fade_seconds
