"""Augmentation of batches in torch, on the device that holds them (see `base.BatchTransform`).

The classes that `ssl_audio.augmentations.clip` has too bear the same names and take the same arguments there.
"""

from ssl_audio.augmentations.batch.base import BatchTransform, Compose, OneOf, RandomSubset
from ssl_audio.augmentations.batch.filters import BandPass, HighPass, LowPass, SevenBandEQ
from ssl_audio.augmentations.batch.level import (
    Clipping,
    Gain,
    GaussianNoise,
    Polarity,
    RelativeNoise,
    TanhDistortion,
    UniformNoise,
)
from ssl_audio.augmentations.batch.psola import FormantShift, PitchShift
from ssl_audio.augmentations.batch.room import BackgroundNoise, ImpulseResponse, Reverb
from ssl_audio.augmentations.batch.time import Delay, MeanMask, Shift, Speed, TimeDropout, TimeMask
from ssl_audio.augmentations.batch.wsola import PitchShiftPolyphonic, TimeStretch

__all__ = [
    "BackgroundNoise",
    "BandPass",
    "BatchTransform",
    "Clipping",
    "Compose",
    "Delay",
    "FormantShift",
    "Gain",
    "GaussianNoise",
    "HighPass",
    "ImpulseResponse",
    "LowPass",
    "MeanMask",
    "OneOf",
    "PitchShift",
    "PitchShiftPolyphonic",
    "Polarity",
    "RandomSubset",
    "RelativeNoise",
    "Reverb",
    "SevenBandEQ",
    "Shift",
    "Speed",
    "TanhDistortion",
    "TimeDropout",
    "TimeMask",
    "TimeStretch",
    "UniformNoise",
]
