"""CAM++: densely joined time-delay layers with context-aware masks (Wang et al., 2023, https://arxiv.org/abs/2303.00332).

The layout is that of 3D-Speaker, which published it.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder, check_bands
from ssl_audio.encoders.resnet34 import BasicBlock
from ssl_audio.pooling import TemporalStatisticsPooling

SEGMENT = 100  # frames that share a mask's local mean


class CAMPlusPlus(Encoder):
    """A small residual network that strides along bands, then three dense blocks over time, then statistics.

    Each layer of a block adds `growth` channels to those it got; a layer of half the channels follows each block. A
    frame is 2 frames of the input. With its defaults the network has 7.18 million parameters, as published.

    Args:
        layers: of the dense blocks; their convolutions are dilated by 1 in the first block and by 2 in the others.
        growth: channels that a layer adds.
        channels: of the first time-delay layer.
        width: channels of the residual network.
        embedding_dim: size of the embedding, which ends in a batch normalisation without scale and shift.
        n_mels: bands of the features.
        pooling: how frames become one vector: a class of `ssl_audio.pooling`.
    """

    def __init__(
        self,
        layers: Sequence[int] = (12, 24, 16),
        growth: int = 32,
        channels: int = 128,
        width: int = 32,
        embedding_dim: int = 512,
        n_mels: int = 80,
        pooling: Callable[[int], nn.Module] = TemporalStatisticsPooling,
    ) -> None:
        super().__init__()
        self.layers, self.growth, self.channels, self.width = list(layers), growth, channels, width
        self.embedding_dim, self.n_mels = embedding_dim, n_mels
        self.image = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *(BasicBlock(width, width, stride) for stride in ((2, 1), 1, (2, 1), 1)),
            nn.Conv2d(width, width, 3, stride=(2, 1), padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        size = width * math.ceil(n_mels / 8)
        self.stem = nn.Sequential(
            nn.Conv1d(size, channels, 5, stride=2, padding=2, bias=False), nn.BatchNorm1d(channels), nn.ReLU()
        )
        size = channels
        self.dense = nn.Sequential()
        for i, count in enumerate(layers):
            for _ in range(count):
                self.dense.append(DenseLayer(size, growth, dilation=2 if i else 1))
                size += growth
            self.dense.append(nn.Sequential(nn.BatchNorm1d(size), nn.ReLU(), nn.Conv1d(size, size // 2, 1, bias=False)))
            size //= 2
        self.dense.extend([nn.BatchNorm1d(size), nn.ReLU()])
        self.frame_dim = size
        # A saved encoder is rebuilt with the pooling that it had, already made.
        self.pooling = pooling if isinstance(pooling, nn.Module) else pooling(size)
        self.projection = nn.Linear(self.pooling.dim, embedding_dim, bias=False)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm1d(embedding_dim, affine=False)
        self.dim = embedding_dim
        for module in self.modules():
            if isinstance(module, (nn.Conv1d, nn.Linear)):
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def frames(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> (batch, frames / 2, frame_dim), rounded up.

        Raises:
            InputError: another number of bands than `n_mels`.
        """
        check_bands(self, features, self.n_mels)
        return self.dense(self.stem(self.image(features.unsqueeze(1)).flatten(1, 2))).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> (batch, dim)."""
        return self.norm(self.projection(self.pooling(self.frames(features))))


class DenseLayer(nn.Module):
    """BN - ReLU - conv1x1 - BN - ReLU - masked convolution; its output is joined to its input.

    The mask of a frame follows from the mean over the clip plus the mean over the frame's own segment.
    """

    def __init__(self, size_in: int, growth: int, dilation: int) -> None:
        super().__init__()
        hidden = 4 * growth
        self.bottleneck = nn.Sequential(
            nn.BatchNorm1d(size_in),
            nn.ReLU(),
            nn.Conv1d(size_in, hidden, 1, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
        )
        self.conv = nn.Conv1d(hidden, growth, 3, padding=dilation, dilation=dilation, bias=False)
        self.mask = nn.Sequential(
            nn.Conv1d(hidden, hidden // 2, 1), nn.ReLU(), nn.Conv1d(hidden // 2, growth, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(batch, size_in, frames) -> (batch, size_in + growth, frames)."""
        y = self.bottleneck(x)
        context = y.mean(dim=2, keepdim=True) + segment_means(y)
        return torch.cat([x, self.conv(y) * self.mask(context)], dim=1)


def segment_means(x: Tensor, length: int = SEGMENT) -> Tensor:
    """(batch, channels, frames) -> the same shape: each frame's mean over its segment; the last may be shorter."""
    # Not by a pooling and a repetition, of which an exporter cannot tell that the result is as long as `x`; and with a
    # segment of zeros at the end, because it would take a single segment for a case of its own.
    segments = F.pad(x, (0, 2 * length - 1)).unfold(2, length, length).sum(dim=3)
    frames = x.shape[2] - length * torch.arange(segments.shape[2], device=x.device)
    segment = torch.arange(x.shape[2], device=x.device) // length
    return (segments / frames.clamp(1, length)).index_select(2, segment)
