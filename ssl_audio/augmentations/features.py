"""Transforms of features `(batch, bands, frames)` after the frontend, in training, on the device of the batch.

Parameters are drawn for each clip, from torch's global generator, which a method seeds for every step.
"""

import math

import torch
from torch import Tensor, nn

from ssl_audio.errors import InputError


class Compose(nn.Module):
    """Applies transforms in order.

    Args:
        transforms: transforms in the order of their application.
    """

    def __init__(self, transforms: list[nn.Module]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> the same shape."""
        for transform in self.transforms:
            features = transform(features)
        return features


class SpectralTilt(nn.Module):
    """Add a smooth random curve over the bands, constant in time, like another microphone, room or distance.

    The curve is a sum of `order` cosines over the bands. The amplitude of the k-th has standard deviation
    `std / sqrt(k)`.

    Args:
        std: standard deviation of the first cosine's amplitude, in units of the features (for log-mel features, natural
            logarithm of power).
        order: number of cosines. A larger number gives finer curves.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(self, std: float = 0.6, order: int = 4) -> None:
        super().__init__()
        if std < 0 or order < 1:
            raise InputError(f"SpectralTilt needs std >= 0 and order >= 1, got {std} and {order}")
        self.std, self.order = std, order

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> the same shape."""
        bands = features.shape[1]
        k = torch.arange(1, self.order + 1, device=features.device)
        position = (torch.arange(bands, device=features.device) + 0.5) / bands
        cosines = torch.cos(math.pi * k[:, None] * position)
        weights = torch.randn(len(features), self.order, device=features.device) * self.std / k.sqrt()
        return features + (weights @ cosines)[:, :, None].to(features.dtype)


class BandMask(nn.Module):
    """Replace adjacent bands by the clip's mean (SpecAugment, Park et al., 2019, https://arxiv.org/abs/1904.08779).

    Args:
        max_bands: the number of bands is uniform from 0 to this.
    """

    def __init__(self, max_bands: int = 8) -> None:
        super().__init__()
        self.max_bands = max_bands

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> the same shape."""
        width = torch.rand(len(features), 1, device=features.device) * self.max_bands
        return _masked(features, width, dim=1)


class FrameMask(nn.Module):
    """Replace adjacent frames by the clip's mean (SpecAugment, Park et al., 2019, https://arxiv.org/abs/1904.08779).

    Args:
        max_fraction: the number of frames is uniform from 0 to this fraction of all.

    Raises:
        InputError: the fraction is not in [0, 1].
    """

    def __init__(self, max_fraction: float = 0.15) -> None:
        super().__init__()
        if not 0 <= max_fraction <= 1:
            raise InputError(f"FrameMask.max_fraction is {max_fraction}; it must be from 0 to 1")
        self.max_fraction = max_fraction

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> the same shape."""
        width = torch.rand(len(features), 1, device=features.device) * self.max_fraction * features.shape[2]
        return _masked(features, width, dim=2)


class RandomErasing(nn.Module):
    """Fill a rectangle with a value (Zhong et al., 2020, https://arxiv.org/abs/1708.04896).

    The defaults are those of kornia, which wav2rec uses.

    Args:
        p: probability for each clip.
        min_area, max_area: the area is uniform between these fractions of the image.
        min_ratio, max_ratio: the ratio of bands to frames is log-uniform between these.
        value: the value; 0 is the floor of `DecibelMelSpectrogram`.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        p: float = 0.25,
        min_area: float = 0.02,
        max_area: float = 0.33,
        min_ratio: float = 0.3,
        max_ratio: float = 3.3,
        value: float = 0.0,
    ) -> None:
        super().__init__()
        if not (0 <= p <= 1 and 0 <= min_area <= max_area <= 1 and 0 < min_ratio <= max_ratio):
            raise InputError("RandomErasing needs p and areas from 0 to 1, and positive ratios, each minimum first")
        self.p, self.value = p, value
        self.min_area, self.max_area = min_area, max_area
        self.min_ratio, self.max_ratio = min_ratio, max_ratio

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> the same shape."""
        batch, bands, frames = features.shape
        u = torch.rand(5, batch, 1, device=features.device)
        area = (self.min_area + u[0] * (self.max_area - self.min_area)) * bands * frames
        low, high = math.log(self.min_ratio), math.log(self.max_ratio)
        ratio = torch.exp(low + u[1] * (high - low))
        height = (area * ratio).sqrt().clamp(max=bands)
        width = (area / ratio).sqrt().clamp(max=frames)
        inside = (
            _run(u[2] * (bands - height), height, bands)[:, :, None]
            & _run(u[3] * (frames - width), width, frames)[:, None, :]
            & (u[4] < self.p)[:, :, None]
        )
        return features.masked_fill(inside, self.value)


def _masked(features: Tensor, width: Tensor, dim: int) -> Tensor:
    """Along `dim` (1 or 2), replace a span of `(batch, 1)` width, at a uniform position, by the clip's mean."""
    size = features.shape[dim]
    start = torch.rand(len(features), 1, device=features.device) * (size - width)
    inside = _run(start, width, size).unsqueeze(3 - dim)
    return torch.where(inside, features.mean((1, 2), keepdim=True), features)


def _run(start: Tensor, width: Tensor, size: int) -> Tensor:
    """`(batch, 1)` starts and widths of spans -> `(batch, size)`, true inside the span."""
    place = torch.arange(size, device=start.device)
    return (place >= start) & (place < start + width)
