"""Fast ResNet-34 for voices, with a quarter of the usual channels (Chung et al., 2020, https://arxiv.org/abs/2003.11982)."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder, check_bands
from ssl_audio.encoders.resnet34 import shortcut
from ssl_audio.pooling import SelfAttentivePooling


class FastResNet34(Encoder):
    """A 7x7 stem, basic blocks with squeeze and excitation, then self-attentive pooling of the mean over bands.

    The strides of the stem and the four layers are 2, 1, 2, 2, 1 along bands and 1, 1, 2, 2, 1 along frames. So 10 of
    80 bands remain, and a frame is 4 frames of the input. `FastResNet34()` has 1.44 million parameters and takes any
    number of bands. `FastResNet34(n_mels=40, pooling=StatisticsPooling)` has 2.01 million; it is similar to sslsv's
    "stats" (see `TemporalStatisticsPooling`).

    Args:
        blocks: number of blocks in the four layers.
        width: channels of the stem and of the first layer. Each further layer doubles them.
        embedding_dim: size of the linear layer after the pooling.
        n_mels: number of mel bands. If given, the remaining bands stay separate, and the encoder accepts only this
            number of bands. None: the remaining bands are averaged.
        pooling: class of `ssl_audio.pooling` that turns frames into one vector.
        normalize: apply batch normalisation to the embedding.
    """

    def __init__(
        self,
        blocks: Sequence[int] = (3, 4, 6, 3),
        width: int = 16,
        embedding_dim: int = 512,
        n_mels: int | None = None,
        pooling: Callable[[int], nn.Module] = SelfAttentivePooling,
        normalize: bool = False,
    ) -> None:
        super().__init__()
        self.blocks, self.width, self.embedding_dim = list(blocks), width, embedding_dim
        self.n_mels, self.normalize = n_mels, normalize
        self.conv1 = nn.Conv2d(1, width, 7, stride=(2, 1), padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layers = nn.Sequential()
        size, bands = width, math.ceil((n_mels or 1) / 2)
        for i, count in enumerate(blocks):
            stride = 2 if i in (1, 2) else 1
            for j in range(count):
                self.layers.append(SEBasicBlock(size, width * 2**i, 1 if j else stride))
                size = width * 2**i
            bands = math.ceil(bands / stride)
        self.frame_dim = size * (1 if n_mels is None else bands)
        # When a saved encoder is rebuilt, its pooling is already an instance.
        self.pooling = pooling if isinstance(pooling, nn.Module) else pooling(self.frame_dim)
        self.projection = nn.Linear(self.pooling.dim, embedding_dim)  # type: ignore[arg-type]
        self.norm = nn.BatchNorm1d(embedding_dim) if normalize else nn.Identity()
        self.dim = embedding_dim
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, ceil(frames / 4), frame_dim)`.

        Raises:
            InputError: the number of bands is not `n_mels`.
        """
        check_bands(self, features, self.n_mels)
        maps = self.layers(self.bn1(self.conv1(features.unsqueeze(1))).relu())
        maps = maps.mean(dim=2) if self.n_mels is None else maps.flatten(1, 2)
        return maps.transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`."""
        return self.norm(self.projection(self.pooling(self.frames(features))))


class SEBasicBlock(nn.Module):
    """3x3 convolution, ReLU, BN, 3x3 convolution, BN, squeeze and excitation, plus a shortcut, then ReLU.

    The first ReLU precedes the batch normalisation, as published.

    Args:
        size_in: channels of the input.
        size_out: channels of the output.
        stride: stride along bands and frames.
        reduction: `size_out` divided by the hidden size of the squeeze.
    """

    def __init__(self, size_in: int, size_out: int, stride: int = 1, reduction: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(size_in, size_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(size_out)
        self.conv2 = nn.Conv2d(size_out, size_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(size_out)
        hidden = max(1, size_out // reduction)
        self.gate = nn.Sequential(nn.Linear(size_out, hidden), nn.ReLU(), nn.Linear(hidden, size_out), nn.Sigmoid())
        self.shortcut = shortcut(size_in, size_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, size_in, bands, frames)` -> `(batch, size_out, bands / stride, frames / stride)`."""
        y = self.bn2(self.conv2(self.bn1(self.conv1(x).relu())))
        y = y * self.gate(y.mean(dim=(2, 3)))[..., None, None]
        return (y + self.shortcut(x)).relu()
