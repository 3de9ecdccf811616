"""The augmentation of BYOL-A (Niizumi et al., 2022, https://arxiv.org/abs/2204.07402), for mel encoders.

Its four parts act on logarithmic features `(batch, bands, frames)` in training, on the device of the batch. Parameters
are drawn for each clip, from torch's global generator, which a method seeds for every step.
`train_configs/augmentation/byol_a` has them with the paper's values.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.errors import InputError


class Mixup(nn.Module):
    """Mix a clip with one of earlier batches, in the linear domain: `log((1 - a) exp(x) + a exp(other))`.

    `a` is uniform from 0 to `ratio`. The first batch is mixed with itself. What is mixed in is part of a checkpoint, so
    that a run that is resumed continues as it would have: 4 bytes for each of `memory` x bands x frames values.

    Args:
        ratio: largest share of the other clip; the paper has 0.2.
        memory: how many earlier clips are kept; the paper has 2048. Fewer make smaller checkpoints.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(self, ratio: float = 0.2, memory: int = 2048) -> None:
        super().__init__()
        if not 0 <= ratio <= 1 or memory < 1:
            raise InputError(f"Mixup needs a ratio from 0 to 1 and a memory of at least 1, got {ratio} and {memory}")
        self.ratio, self.memory = ratio, memory
        self.kept: Tensor | None = None

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> the same shape."""
        now = features.detach()
        fits = self.kept is not None and self.kept.shape[1:] == now.shape[1:]  # not where clips have another length
        kept = self.kept.to(now) if self.kept is not None and fits else now
        other = kept[torch.randint(len(kept), (len(features),), device=features.device)]
        share = torch.rand(len(features), 1, 1, device=features.device) * self.ratio
        self.kept = (torch.cat([kept, now]) if fits else now)[-self.memory :]
        return torch.logaddexp(features + torch.log1p(-share), other + torch.log(share))

    def get_extra_state(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.kept = state["kept"]


class RandomResizeCrop(nn.Module):
    """Cut out a random rectangle and stretch it to the size of the features: a shift and a stretch of bands and frames.

    The rectangle lies in an area around the features, `area` times as large and filled with the mean of the clip. The
    rectangle is interpolated bicubically.

    Args:
        area: (bands, frames) of the area, as factors of at least 1; the paper has (1.0, 1.5).
        bands, frames: the size of the rectangle is uniform between these factors, and at most the area.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        area: tuple[float, float] = (1.0, 1.5),
        bands: tuple[float, float] = (0.6, 1.5),
        frames: tuple[float, float] = (0.6, 1.5),
    ) -> None:
        super().__init__()
        if min(area) < 1 or not (0 < bands[0] <= bands[1] and 0 < frames[0] <= frames[1]):
            raise InputError("RandomResizeCrop needs an area of at least 1, and positive ranges, each minimum first")
        self.area, self.bands, self.frames = tuple(area), tuple(bands), tuple(frames)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> the same shape."""
        mean = features.mean((1, 2), keepdim=True)
        axes = [
            self._places(len(features), size, area, scale, features.device)
            for size, area, scale in zip(features.shape[1:], self.area, (self.bands, self.frames), strict=True)
        ]
        rows, columns = axes[0][:, :, None], axes[1][:, None, :]
        grid = torch.stack(torch.broadcast_tensors(columns, rows), dim=-1)  # grid_sample takes (x, y)
        centred = (features - mean).float()[:, None]
        cut = F.grid_sample(centred, grid, mode="bicubic", padding_mode="zeros", align_corners=True)
        return cut[:, 0].to(features.dtype) + mean

    def _places(self, batch: int, size: int, area: float, scale: tuple[float, ...], device: torch.device) -> Tensor:
        """(batch, size): where each row (or column) is read, from -1 at the first of the features to 1 at the last."""
        u = torch.rand(2, batch, 1, device=device)
        length = ((scale[0] + u[0] * (scale[1] - scale[0])) * size).clamp(1, area * size)
        first = u[1] * (area * size - length) - (area - 1) * size / 2
        steps = torch.linspace(0, 1, size, device=device) if size > 1 else torch.full((1,), 0.5, device=device)
        return 2 * (first + steps * (length - 1)) / max(size - 1, 1) - 1


class RandomLinearFader(nn.Module):
    """Add a straight line over the frames, as a sound that comes nearer or goes away.

    Args:
        gain: the line begins and ends at values uniform from -gain to gain, in units of the features; the paper has 1.
    """

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> the same shape."""
        ends = (2 * torch.rand(2, len(features), 1, 1, device=features.device) - 1) * self.gain
        way = torch.linspace(0, 1, features.shape[2], device=features.device)
        return features + (ends[0] + (ends[1] - ends[0]) * way).to(features.dtype)


class PostNorm(nn.Module):
    """Apply transforms, then give the batch the mean and deviation that it had before them.

    The paper normalises features before and after its transforms. Here the frontend says whether they are normalised
    before, and what the transforms change is undone: the network sees in training what it sees afterwards.

    Args:
        transforms: transforms in the order of their application.
    """

    def __init__(self, transforms: list[nn.Module]) -> None:
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> the same shape."""
        deviation, mean = torch.std_mean(features.float(), correction=0)
        for transform in self.transforms:
            features = transform(features)
        changed, changed_mean = torch.std_mean(features.float(), correction=0)
        return (features - changed_mean) / changed.clamp_min(1e-6) * deviation + mean
