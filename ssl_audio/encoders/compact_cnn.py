"""A small convolutional network for mel images, for those who have hours of recordings and two CPU cores."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.pooling import StatisticsPooling


class CompactCNN(Encoder):
    """Stages of two 3x3 convolutions, each stage halving bands and frames; statistics over time make the vector.

    The mean over the remaining bands makes the network independent of the number of mel bands. The convolutions have
    2.6 million parameters by default, half of EfficientNet-B0, and learn far faster a minute on a CPU.

    Args:
        channels: output channels of the stages; `[8, 8]` is enough for a test.
        embedding_dim: size of a linear layer after the pooling; None gives the pooled statistics themselves.
        pooling: how frames become one vector: a class of `ssl_audio.pooling`.
        momentum: of the batch normalisations' running statistics.
        dropout: share of the pooled values set to zero while training.
    """

    def __init__(
        self,
        channels: Sequence[int] = (48, 96, 192, 384),
        embedding_dim: int | None = 512,
        pooling: Callable[[int], nn.Module] = StatisticsPooling,
        momentum: float = 0.1,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.channels, self.embedding_dim = list(channels), embedding_dim
        self.momentum, self.dropout = momentum, dropout
        sizes = [1, *channels]
        self.stages = nn.Sequential(*(_stage(a, b, momentum) for a, b in pairwise(sizes)))
        self.frame_dim = sizes[-1]
        # A saved encoder is rebuilt with the pooling that it had, already made.
        self.pooling = pooling if isinstance(pooling, nn.Module) else pooling(self.frame_dim)
        pooled: int = self.pooling.dim  # type: ignore[assignment]
        self.drop = nn.Dropout(dropout)
        self.projection = nn.Identity() if embedding_dim is None else nn.Linear(pooled, embedding_dim)
        self.dim = embedding_dim or pooled

    def frames(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> (batch, frames / 2^stages, frame_dim)."""
        return self.stages(features.unsqueeze(1)).mean(dim=2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, bands, frames) -> (batch, dim)."""
        return self.projection(self.drop(self.pooling(self.frames(features))))


def _stage(in_channels: int, out_channels: int, momentum: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in (in_channels, out_channels):
        layers += [
            nn.Conv2d(size, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels, momentum=momentum),
            nn.ReLU(inplace=True),
        ]
    # ceil_mode keeps a single remaining band or frame, so small mel images survive four stages.
    return nn.Sequential(*layers, nn.MaxPool2d(2, ceil_mode=True))
