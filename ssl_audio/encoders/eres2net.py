"""ERes2Net: Res2Net blocks, with attentive fusion inside of the blocks and between the stages.

Chen et al., "An enhanced Res2Net with local and global feature fusion for speaker verification", Interspeech 2023,
https://arxiv.org/abs/2305.12838. The form with five stages is a student of S-SONDO (ICASSP 2026).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder, check_bands
from ssl_audio.encoders.resnet34 import shortcut
from ssl_audio.errors import InputError
from ssl_audio.pooling import TemporalStatisticsPooling

_GROWTH = (1, 2, 4, 8, 2)  # channels of a stage, in units of the width; the last stage narrows
_FUSED_FROM = 2  # stages from this one on have attention inside of their blocks
_CEILING = 20.0  # of the activation


class ERes2Net(Encoder):
    """Stages of Res2Net blocks, each fused with the ones before; mean and deviation over time give the vector.

    Each stage but the first halves bands and frames. The channels of the stages are 2, 4, 8, 16 and 4 times the width.

    | | parameters | embedding |
    |---|---|---|
    | `ERes2Net()`, the student of S-SONDO | 1.4 million | 1,024 |
    | `ERes2Net([3, 4, 6, 3], 32, 80, 192)`, of the paper | 6.6 million | 192 |

    Args:
        blocks: number of blocks in each stage, two to five of them.
        width: channels of the stem.
        n_mels: number of mel bands.
        embedding_dim: size of a linear layer after the pooling; None: the pooled statistics are the embedding.
        pooling: class of `ssl_audio.pooling` that turns frames into one vector.

    Raises:
        InputError: another number of stages.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 6, 3, 3),
        width: int = 16,
        n_mels: int = 128,
        embedding_dim: int | None = None,
        pooling: Callable[[int], nn.Module] = TemporalStatisticsPooling,
    ) -> None:
        super().__init__()
        if not 2 <= len(blocks) <= len(_GROWTH):
            raise InputError(f"ERes2Net.blocks has {len(blocks)} stages; give two to {len(_GROWTH)}")
        self.blocks, self.width, self.n_mels, self.embedding_dim = list(blocks), width, n_mels, embedding_dim
        self.stem = nn.Sequential(nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.stages, self.down, self.fusions = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        size, bands = width, n_mels
        for i, count in enumerate(blocks):
            before, planes, stride = size, width * _GROWTH[i], 2 if i else 1
            stage = nn.Sequential()
            for j in range(count):
                stage.append(Res2Block(size, planes, 1 if j else stride, i >= _FUSED_FROM))
                size = 2 * planes
            self.stages.append(stage)
            bands = math.ceil(bands / stride)
            if i:
                self.down.append(nn.Conv2d(before, size, 3, stride=2, padding=1, bias=False))
                self.fusions.append(AttentiveFusion(size))
        self.frame_dim = size * bands
        # When a saved encoder is rebuilt, its pooling is already an instance.
        self.pooling = pooling if isinstance(pooling, nn.Module) else pooling(self.frame_dim)
        pooled: int = self.pooling.dim  # type: ignore[assignment]
        self.projection = nn.Identity() if embedding_dim is None else nn.Linear(pooled, embedding_dim)
        self.dim = embedding_dim or pooled

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, frames / 2^(stages - 1), frame_dim)`, rounded up.

        Raises:
            InputError: the number of bands is not `n_mels`.
        """
        check_bands(self, features, self.n_mels)
        first, *others = self.stages
        x = fused = first(self.stem(features.unsqueeze(1)))
        for stage, down, fusion in zip(others, self.down, self.fusions, strict=True):
            x = stage(x)
            fused = fusion(x, down(fused))
        return fused.flatten(1, 2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`."""
        return self.projection(self.pooling(self.frames(features)))


class Res2Block(nn.Module):
    """1x1 convolution, two 3x3 convolutions on its halves, 1x1 convolution, and a shortcut around them.

    The second half is joined with the result of the first before its convolution: added, or fused by attention.

    Args:
        size_in: channels of the input.
        planes: half of the channels of the output.
        stride: along bands and frames.
        fused: join the halves by attention.
    """

    def __init__(self, size_in: int, planes: int, stride: int, fused: bool) -> None:
        super().__init__()
        half = planes // 2
        self.conv1 = nn.Sequential(
            nn.Conv2d(size_in, 2 * half, 1, stride=stride, bias=False), nn.BatchNorm2d(2 * half), _clipped()
        )
        self.first, self.second = (
            nn.Sequential(nn.Conv2d(half, half, 3, padding=1, bias=False), nn.BatchNorm2d(half), _clipped())
            for _ in range(2)
        )
        self.fusion = AttentiveFusion(half) if fused else None
        self.conv3 = nn.Sequential(nn.Conv2d(2 * half, 2 * planes, 1, bias=False), nn.BatchNorm2d(2 * planes))
        self.shortcut = shortcut(size_in, 2 * planes, stride)
        self.activation = _clipped()

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, size_in, bands, frames)` -> `(batch, 2 * planes, bands / stride, frames / stride)`."""
        a, b = self.conv1(x).chunk(2, dim=1)
        a = self.first(a)
        b = self.second(a + b if self.fusion is None else self.fusion(a, b))
        return self.activation(self.conv3(torch.cat([a, b], dim=1)) + self.shortcut(x))


class AttentiveFusion(nn.Module):
    """A sum of two maps with factors in (0, 2) that add up to 2, from both maps at the same place."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = max(1, channels // 4)
        self.attention = nn.Sequential(
            nn.Conv2d(2 * channels, inner, 1),
            nn.BatchNorm2d(inner),
            nn.SiLU(),
            nn.Conv2d(inner, channels, 1),
            nn.BatchNorm2d(channels),
            nn.Tanh(),
        )

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Two maps `(batch, channels, bands, frames)` -> one."""
        factor = 1 + self.attention(torch.cat([x, y], dim=1))
        return x * factor + y * (2 - factor)


def _clipped() -> nn.Module:
    return nn.Hardtanh(0.0, _CEILING)
