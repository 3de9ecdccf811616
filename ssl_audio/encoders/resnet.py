"""Residual networks for one-channel mel spectrograms (He et al., 2016, https://arxiv.org/abs/1512.03385)."""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from ssl_audio.encoders.base import Encoder

EXPANSION = 4


class ResNet50(Encoder):
    """Batch normalisation of the image, then ResNet-50 with one input channel. The vector is the mean over the map.

    The layers have the usual names (`conv1`, `layer1.0.conv1`, ...), so that common ResNet-50 weights load by name.

    Args:
        blocks: number of bottleneck blocks in the four layers; `[1, 1, 1, 1]` is enough for a test.
        width: channels of the stem. The embedding has 32 times as many dimensions.
        resize: resize the image to a square of this size by nearest neighbour; wav2rec uses 224. None keeps the image,
            which is faster for short clips and loses no detail of long ones.
    """

    def __init__(self, blocks: Sequence[int] = (3, 4, 6, 3), width: int = 64, resize: int | None = None) -> None:
        super().__init__()
        self.blocks, self.width, self.resize = list(blocks), width, resize
        self.norm = nn.BatchNorm2d(1)
        self.conv1 = nn.Conv2d(1, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        size = width
        for i, count in enumerate(blocks):
            middle = width * 2**i
            layer = nn.Sequential()
            for j in range(count):
                layer.append(Bottleneck(size, middle, stride=2 if i and not j else 1))
                size = middle * EXPANSION
            setattr(self, f"layer{i + 1}", layer)
        self.dim = self.frame_dim = size
        self.minimum_frames = 1
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def feature_map(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim, ceil(bands / 32), ceil(frames / 32))`."""
        x = self.norm(square(features.unsqueeze(1), self.resize))
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for i in range(len(self.blocks)):
            x = getattr(self, f"layer{i + 1}")(x)
        return x

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, ceil(frames / 32), frame_dim)`: the feature map's mean over bands."""
        return self.feature_map(features).mean(dim=2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`."""
        return self.feature_map(features).mean(dim=(2, 3))


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 (with the stride) and 1x1, and a shortcut around them."""

    def __init__(self, size_in: int, middle: int, stride: int) -> None:
        super().__init__()
        size_out = middle * EXPANSION
        self.conv1 = nn.Conv2d(size_in, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, size_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(size_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or size_in != size_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(size_in, size_out, 1, stride=stride, bias=False), nn.BatchNorm2d(size_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, size_in, height, width)` -> `(batch, 4 * middle, height / stride, width / stride)`."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.downsample(x))


def square(images: Tensor, size: int | None) -> Tensor:
    """`(batch, 1, bands, frames)` -> `(batch, 1, size, size)` by nearest neighbour; unchanged if `size` is None."""
    return images if size is None else interpolate(images, size=(size, size), mode="nearest")
