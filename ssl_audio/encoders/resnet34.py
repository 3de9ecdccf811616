"""ResNet34 and ResNet18 for voices, in the layout of wespeaker: basic blocks, then statistics over time.

He et al., 2016, https://arxiv.org/abs/1512.03385; wespeaker: Wang et al., 2022, https://arxiv.org/abs/2210.17016.
"""

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder, check_bands
from ssl_audio.pooling import TemporalStatisticsPooling


class ResNet34(Encoder):
    """A 3x3 stem without pooling, four layers of basic blocks, then a linear layer on the pooled statistics.

    The layers have the strides 1, 2, 2, 2 and double the channels. So 10 of 80 bands remain, and a frame is 8 frames of
    the input. A frame holds all channels of all remaining bands.

    Args:
        blocks: number of blocks in the four layers.
        width: channels of the stem and of the first layer.
        embedding_dim: size of the linear layer after the pooling.
        n_mels: number of mel bands.
        pooling: class of `ssl_audio.pooling` that turns frames into one vector.
        normalize: apply batch normalisation to the embedding, as wespeaker does in self-supervised training.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 6, 3),
        width: int = 32,
        embedding_dim: int = 256,
        n_mels: int = 80,
        pooling: Callable[[int], nn.Module] = TemporalStatisticsPooling,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.blocks, self.width, self.embedding_dim = list(blocks), width, embedding_dim
        self.n_mels, self.normalize = n_mels, normalize
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layers = nn.Sequential()
        size, bands = width, n_mels
        for i, count in enumerate(blocks):
            stride = 2 if i else 1
            for j in range(count):
                self.layers.append(BasicBlock(size, width * 2**i, 1 if j else stride))
                size = width * 2**i
            bands = math.ceil(bands / stride)
        self.frame_dim = size * bands
        # When a saved encoder is rebuilt, its pooling is already an instance.
        self.pooling = pooling if isinstance(pooling, nn.Module) else pooling(self.frame_dim)
        self.projection = nn.Linear(self.pooling.dim, embedding_dim)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm1d(embedding_dim) if normalize else nn.Identity()
        self.dim = embedding_dim

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, ceil(frames / 8), frame_dim)`.

        Raises:
            InputError: the number of bands is not `n_mels`.
        """
        check_bands(self, features, self.n_mels)
        maps = self.layers(self.bn1(self.conv1(features.unsqueeze(1))).relu())
        return maps.flatten(1, 2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`."""
        return self.norm(self.projection(self.pooling(self.frames(features))))


class ResNet18(ResNet34):
    """ResNet34 with two blocks in each layer and 4.1 million parameters; ResNet34 has 6.6 million."""

    def __init__(
        self,
        blocks: Sequence[int] = (2, 2, 2, 2),
        width: int = 32,
        embedding_dim: int = 256,
        n_mels: int = 80,
        pooling: Callable[[int], nn.Module] = TemporalStatisticsPooling,
        normalize: bool = False,
    ) -> None:
        super().__init__(blocks, width, embedding_dim, n_mels, pooling, normalize)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, and a shortcut around them.

    Args:
        size_in: channels of the input.
        size_out: channels of the output.
        stride: stride along bands and frames; a pair for different ones.
    """

    def __init__(self, size_in: int, size_out: int, stride: int | tuple[int, int] = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(size_in, size_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(size_out)
        self.conv2 = nn.Conv2d(size_out, size_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(size_out)
        self.shortcut = shortcut(size_in, size_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, size_in, bands, frames)` -> `(batch, size_out, bands / stride, frames / stride)`."""
        y = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(y)) + self.shortcut(x)).relu()


def shortcut(size_in: int, size_out: int, stride: int | tuple[int, int]) -> nn.Module:
    """The identity if the block keeps the shape; otherwise a 1x1 convolution with batch normalisation."""
    if stride in (1, (1, 1)) and size_in == size_out:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(size_in, size_out, 1, stride=stride, bias=False), nn.BatchNorm2d(size_out))
