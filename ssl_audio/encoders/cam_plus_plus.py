"""CAM++: densely connected time-delay layers with context-aware masks.

Wang et al., 2023, https://arxiv.org/abs/2303.00332. The layout is that of 3D-Speaker, whose authors published it.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder, check_bands
from ssl_audio.encoders.resnet34 import BasicBlock
from ssl_audio.pooling import TemporalStatisticsPooling

SEGMENT = 100  # frames of a segment, which share the local mean of the mask


class CAMPlusPlus(Encoder):
    """A small residual network with strides along the bands, three dense blocks over time, then statistics pooling.

    Each layer of a dense block adds `growth` channels to its input. A layer that halves the channels follows each
    block. A frame is 2 frames of the input. By default, the network has 7.18 million parameters, as published.

    Args:
        layers: number of layers in each dense block. The dilation is 1 in the first block and 2 in the others.
        growth: channels that a layer adds.
        channels: channels of the first time-delay layer.
        width: channels of the residual network.
        embedding_dim: size of the embedding. A batch normalisation without scale and shift is the last layer.
        n_mels: number of mel bands.
        pooling: class of `ssl_audio.pooling` that turns frames into one vector.
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
        # When a saved encoder is rebuilt, its pooling is already an instance.
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
        """`(batch, bands, frames)` -> `(batch, ceil(frames / 2), frame_dim)`.

        Raises:
            InputError: the number of bands is not `n_mels`.
        """
        check_bands(self, features, self.n_mels)
        return self.dense(self.stem(self.image(features.unsqueeze(1)).flatten(1, 2))).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`."""
        return self.norm(self.projection(self.pooling(self.frames(features))))


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1 convolution, batch norm, ReLU, masked convolution. The input is concatenated to the output.

    The mask of a frame depends on the mean over the clip plus the mean over the frame's segment.
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
        """`(batch, size_in, frames)` -> `(batch, size_in + growth, frames)`."""
        y = self.bottleneck(x)
        context = y.mean(dim=2, keepdim=True) + segment_means(y)
        return torch.cat([x, self.conv(y) * self.mask(context)], dim=1)


def segment_means(x: Tensor, length: int = SEGMENT) -> Tensor:
    """`(batch, channels, frames)` -> the same shape: for each frame, the mean over its segment."""
    # Two details are for torch's exporter. With pooling and repetition, it cannot see that the result is as long as
    # `x`. Without the segment of zeros at the end, it would treat a single segment as a special case.
    segments = F.pad(x, (0, 2 * length - 1)).unfold(2, length, length).sum(dim=3)
    frames = x.shape[2] - length * torch.arange(segments.shape[2], device=x.device)
    segment = torch.arange(x.shape[2], device=x.device) // length
    return (segments / frames.clamp(1, length)).index_select(2, segment)
