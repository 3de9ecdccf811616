"""MobileNetV3 for mel spectrograms: inverted residuals with squeeze and excitation, for small devices.

Howard et al., "Searching for MobileNetV3", ICCV 2019, https://arxiv.org/abs/1905.02244. As a student of audio models:
Schmid et al., ICASSP 2023, https://arxiv.org/abs/2211.04772.
"""

from typing import NamedTuple

from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError


class _Row(NamedTuple):
    """A block of the paper's tables 1 and 2: sizes at width 1."""

    kernel: int
    expanded: int
    out: int
    excited: bool
    activation: type[nn.Module]
    stride: int


_R, _H = nn.ReLU, nn.Hardswish
LAYOUTS: dict[str, tuple[list[_Row], int]] = {  # blocks, channels of the last convolution
    "large": (
        [
            _Row(3, 16, 16, False, _R, 1),
            _Row(3, 64, 24, False, _R, 2),
            _Row(3, 72, 24, False, _R, 1),
            _Row(5, 72, 40, True, _R, 2),
            _Row(5, 120, 40, True, _R, 1),
            _Row(5, 120, 40, True, _R, 1),
            _Row(3, 240, 80, False, _H, 2),
            _Row(3, 200, 80, False, _H, 1),
            _Row(3, 184, 80, False, _H, 1),
            _Row(3, 184, 80, False, _H, 1),
            _Row(3, 480, 112, True, _H, 1),
            _Row(3, 672, 112, True, _H, 1),
            _Row(5, 672, 160, True, _H, 2),
            _Row(5, 960, 160, True, _H, 1),
            _Row(5, 960, 160, True, _H, 1),
        ],
        960,
    ),
    "small": (
        [
            _Row(3, 16, 16, True, _R, 2),
            _Row(3, 72, 24, False, _R, 2),
            _Row(3, 88, 24, False, _R, 1),
            _Row(5, 96, 40, True, _H, 2),
            _Row(5, 240, 40, True, _H, 1),
            _Row(5, 240, 40, True, _H, 1),
            _Row(5, 120, 48, True, _H, 1),
            _Row(5, 144, 48, True, _H, 1),
            _Row(5, 288, 96, True, _H, 2),
            _Row(5, 576, 96, True, _H, 1),
            _Row(5, 576, 96, True, _H, 1),
        ],
        576,
    ),
}
_STEM = 16


class MobileNetV3(Encoder):
    """`(batch, bands, frames)` -> the mean of the last map over bands and frames, for any number of both.

    The large layout has 3.0 million parameters and an embedding of 960 at width 1; the small one 0.9 million and 576.
    A frame is 32 frames of the input, averaged over the remaining bands.

    Args:
        layout: large or small.
        width: factor of all channels, which stay multiples of 8.
        embedding_dim: size of a linear layer after the mean; None: the mean is the embedding.
        momentum: of the running statistics in batch normalisation.

    Raises:
        InputError: the layout is unknown, or the width is not above 0.
    """

    def __init__(
        self, layout: str = "large", width: float = 1.0, embedding_dim: int | None = None, momentum: float = 0.1
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise InputError(f"layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}")
        if not width > 0:
            raise InputError(f"MobileNetV3.width is {width}; it must be above 0")
        self.layout, self.width, self.embedding_dim, self.momentum = layout, width, embedding_dim, momentum
        rows, last = LAYOUTS[layout]
        size = multiple_of_8(_STEM * width)
        layers: list[nn.Module] = [_convolution(1, size, 3, 2, 1, _H)]
        for row in rows:
            out = multiple_of_8(row.out * width)
            layers.append(InvertedResidual(size, multiple_of_8(row.expanded * width), out, row))
            size = out
        self.frame_dim = multiple_of_8(last * width)
        self.net = nn.Sequential(*layers, _convolution(size, self.frame_dim, 1, 1, 1, _H))
        for module in self.net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = momentum
        self.projection = nn.Identity() if embedding_dim is None else nn.Linear(self.frame_dim, embedding_dim)
        self.dim = embedding_dim or self.frame_dim

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, ceil(frames / 32), frame_dim)`: the mean over bands."""
        return self.net(features.unsqueeze(1)).mean(dim=2).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, dim)`."""
        return self.projection(self.frames(features).mean(dim=1))


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, squeeze and excitation, 1x1 projection; a shortcut where shapes agree.

    Args:
        size_in, expanded, size_out: channels.
        row: kernel, excitation, activation and stride.
    """

    def __init__(self, size_in: int, expanded: int, size_out: int, row: _Row) -> None:
        super().__init__()
        self.shortcut = row.stride == 1 and size_in == size_out
        layers: list[nn.Module] = []
        if expanded != size_in:
            layers.append(_convolution(size_in, expanded, 1, 1, 1, row.activation))
        layers.append(_convolution(expanded, expanded, row.kernel, row.stride, expanded, row.activation))
        if row.excited:
            layers.append(Excitation(expanded))
        self.layers = nn.Sequential(*layers, _convolution(expanded, size_out, 1, 1, 1, nn.Identity))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, size_in, bands, frames)` -> `(batch, size_out, bands / stride, frames / stride)`."""
        y = self.layers(x)
        return x + y if self.shortcut else y


class Excitation(nn.Module):
    """Factors in [0, 1] for the channels, from their means: a quarter of the channels, ReLU, a hard sigmoid."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = multiple_of_8(channels // 4)
        self.factors = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1), nn.Hardsigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, bands, frames)` -> the same shape."""
        return x * self.factors(x.mean(dim=(2, 3), keepdim=True))


def multiple_of_8(channels: float) -> int:
    """The nearest multiple of 8, at least 8 and not below nine tenths of `channels`."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


def _convolution(
    size_in: int, size_out: int, kernel: int, stride: int, groups: int, activation: type[nn.Module]
) -> nn.Sequential:
    """Convolution, batch normalisation with the paper's epsilon, activation."""
    convolution = nn.Conv2d(size_in, size_out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(size_out, eps=1e-3), activation())
