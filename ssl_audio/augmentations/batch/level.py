"""Noise, gain, polarity and distortion: transforms of sample values."""

import torch
from torch import Generator, Tensor

from ssl_audio.augmentations.base import check_range
from ssl_audio.augmentations.batch.base import BatchTransform, uniform


def normal_like(clips: Tensor, generator: Generator | None) -> Tensor:
    """Standard normal numbers of the shape of the clips."""
    return torch.randn(clips.shape, device=clips.device, generator=generator)


def root_mean_square(clips: Tensor) -> Tensor:
    """`(batch, samples)` -> `(batch, 1)`."""
    return clips.square().mean(1, keepdim=True).sqrt()


class GaussianNoise(BatchTransform):
    """Add white noise with a standard deviation uniform in [min_amplitude, max_amplitude]; full scale is 1."""

    def __init__(self, min_amplitude: float = 0.001, max_amplitude: float = 0.05, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("GaussianNoise amplitude", min_amplitude, max_amplitude, at_least=0)
        self.min_amplitude, self.max_amplitude = min_amplitude, max_amplitude

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        amplitude = uniform(clips, self.min_amplitude, self.max_amplitude, generator)
        return torch.addcmul(clips, amplitude, normal_like(clips, generator))


class RelativeNoise(BatchTransform):
    """Add white noise. Its standard deviation, as a fraction of the clip's, is uniform in [min_share, max_share]."""

    def __init__(self, min_share: float = 1e-4, max_share: float = 1e-2, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("RelativeNoise share", min_share, max_share, at_least=0)
        self.min_share, self.max_share = min_share, max_share

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        fraction = uniform(clips, self.min_share, self.max_share, generator)
        return torch.addcmul(clips, fraction * clips.std(1, keepdim=True, correction=0), normal_like(clips, generator))


class UniformNoise(BatchTransform):
    """Add noise uniform in [0, w) with w uniform in [min_weight, max_weight], as wav2rec does. Its mean is not 0."""

    def __init__(self, min_weight: float = 0.01, max_weight: float = 0.1, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("UniformNoise weight", min_weight, max_weight, at_least=0)
        self.min_weight, self.max_weight = min_weight, max_weight

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        noise = torch.rand(clips.shape, device=clips.device, generator=generator)
        return torch.addcmul(clips, uniform(clips, self.min_weight, self.max_weight, generator), noise)


class Gain(BatchTransform):
    """Apply a gain uniform in [min_gain_db, max_gain_db] decibels.

    Args:
        min_gain_db, max_gain_db: in decibels.
        p: probability.
        clamp: clip the result to [-1, 1].
    """

    def __init__(
        self, min_gain_db: float = -6.0, max_gain_db: float = 0.0, p: float = 0.5, clamp: bool = False
    ) -> None:
        super().__init__(p)
        check_range("Gain decibels", min_gain_db, max_gain_db)
        self.min_gain_db, self.max_gain_db, self.clamp = min_gain_db, max_gain_db, clamp

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        clips = clips * 10 ** (uniform(clips, self.min_gain_db, self.max_gain_db, generator) / 20)
        return clips.clamp(-1, 1) if self.clamp else clips


class Polarity(BatchTransform):
    """Invert the sign of all samples."""

    def where(self, chosen: Tensor, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        return clips.mul_(1 - 2 * chosen[:, None].to(clips.dtype))

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        return -clips


class Clipping(BatchTransform):
    """Clip samples at a fraction, uniform in [min_factor, max_factor], of the clip's smallest and largest value."""

    def __init__(self, min_factor: float = 0.1, max_factor: float = 1.0, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("Clipping factor", min_factor, max_factor, at_least=0, at_most=1)
        self.min_factor, self.max_factor = min_factor, max_factor

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        factor = uniform(clips, self.min_factor, self.max_factor, generator)
        low, high = clips.amin(1, keepdim=True).clamp_max(0), clips.amax(1, keepdim=True).clamp_min(0)
        return clips.clamp(factor * low, factor * high)


class TanhDistortion(BatchTransform):
    """Clip softly with tanh and keep the loudness; the amount is uniform in [min_distortion, max_distortion].

    As in audiomentations, the gain before tanh takes a certain level to 0.5: the level that a fraction of `0.99 *
    amount` of the samples exceeds.
    """

    def __init__(self, min_distortion: float = 0.1, max_distortion: float = 0.2, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("TanhDistortion distortion", min_distortion, max_distortion, at_least=0, at_most=1)
        self.min_distortion, self.max_distortion = min_distortion, max_distortion

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        amount = uniform(clips, self.min_distortion, self.max_distortion, generator)
        step = max(1, clips.shape[1] // 2**12)  # a part of the samples is enough for the quantile
        ordered = clips[:, ::step].abs().sort(dim=1).values
        place = ((1 - 0.99 * amount) * (ordered.shape[1] - 1)).round().long()
        distorted = torch.tanh(clips * (0.5 / (ordered.gather(1, place) + 1e-6)))
        before, after = root_mean_square(clips), root_mean_square(distorted)
        return distorted * torch.where(before > 1e-9, before / after.clamp_min(1e-9), 1.0)
