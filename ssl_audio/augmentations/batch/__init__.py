"""Transforms of batches in torch, on the device of the batch (see `BatchTransform`).

Classes that `ssl_audio.augmentations.clip` has too have the same arguments there.

Example:
    >>> import torch
    >>> transform = Compose([Polarity(p=0.8), Gain(min_gain_db=-20.0, max_gain_db=-1.0, p=0.3)])
    >>> transform(torch.randn(4, 16000), sample_rate=16000).shape
    torch.Size([4, 16000])
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
