"""WaveBYOL's encoder: 1-D convolutions on the raw waveform, then a VGG-like network on their channels as an image.

Following https://github.com/waverDeep/WaveBYOL: five 1-D convolutions give 513 channels. They are split into three
groups of 171, which become the colours of an image of 171 rows with a column per frame. Stacked 3x3 convolutions and
pooling give the vector.
"""

from typing import NamedTuple

from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.scaling import check_scaling, scaled
from ssl_audio.errors import InputError

COLOURS = 3
PADDINGS = (2, 2, 2, 2, 1)


class Layout(NamedTuple):
    """The layers of a named variant.

    Attributes:
        layers: output channels of the 3x3 convolutions, in order. "M" is max pooling of size 2 and stride 2, "M4" max
            pooling of size 4 and stride 2.
        kernels, strides: of the five 1-D convolutions, in samples of their input.
    """

    layers: str
    kernels: tuple[int, ...] = (10, 8, 4, 2, 2)
    strides: tuple[int, ...] = (5, 4, 2, 2, 2)


LAYOUTS = {
    "h1": Layout("64 M 128 M 256 M 256 M"),
    "h2": Layout("64 128 M 256 512 M 512 512 M 1024 1024 M"),
    "h3": Layout("16 16 32 M 32 64 M 64 128 M 128 512 M 512 1024 M"),
    "h4": Layout("64 128 M 256 512 M 512 1024 M 1024 2048 M"),
    "h5": Layout("64 64 128 M 256 256 512 M 512 512 1024 M 1024 1024 1024 M"),
    "l2": Layout("64 128 M4 256 512 M4 512 1024 M4", (10, 8, 6, 4, 2), (5, 4, 3, 2, 2)),
    "l3": Layout("64 128 M 256 M 512 M 1024 M", (10, 8, 6, 4, 2), (5, 4, 3, 2, 2)),
}
POOLS = {"M": (2, 2), "M4": (4, 2)}  # size, stride


class WaveBYOL(Encoder):
    """`(batch, samples)` at 16 kHz -> `(batch, dim)`, for any length from `minimum_frames` samples up.

    The vector is maximum plus mean of the feature map, scaled to unit length. `feature_map` is the map itself, `frames`
    the map pooled over rows only.

    Args:
        layout: one of `LAYOUTS`; "h2" is the published one.
        channels: channels of the 1-D convolutions, a multiple of 3; 513 in the original.
        input_norm: scaling of the waveform. "rms": unit root mean square, at any length. "l2": unit Euclidean length,
            as the original, which makes a sound weaker in a longer clip. "none": no scaling.
        image_norm: the same scaling for each row of the image, along time.

    Raises:
        InputError: the layout or normalisation is unknown, or `channels` does not suit the layout.
    """

    def __init__(
        self, layout: str = "h2", channels: int = 513, input_norm: str = "rms", image_norm: str = "rms"
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise InputError(f"layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}")
        for name, value in (("input_norm", input_norm), ("image_norm", image_norm)):
            check_scaling(name, value)
        if channels < COLOURS or channels % COLOURS:
            raise InputError(f"channels is {channels}; it must be a multiple of {COLOURS}, one group for each colour")
        self.layout, self.channels, self.input_norm, self.image_norm = layout, channels, input_norm, image_norm
        self.waveform_layers = _waveform_layers(LAYOUTS[layout], channels)
        self.image_layers, self.dim = _image_layers(LAYOUTS[layout].layers)
        self.frame_dim = self.dim
        self.minimum_frames = _minimum_samples(LAYOUTS[layout])
        rows_needed = _minimum_image(LAYOUTS[layout].layers)
        if channels // COLOURS < rows_needed:
            raise InputError(f"channels is {channels}; layout {layout} needs at least {COLOURS * rows_needed}")

    def feature_map(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim, rows, columns)`; `(batch, 1024, 10, 8)` for h2 and 20,480 samples."""
        x = self.waveform_layers(scaled(features, self.input_norm).unsqueeze(1))
        image = scaled(x.unflatten(1, (COLOURS, -1)), self.image_norm)
        return self.image_layers(image)

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, columns, dim)`: maximum plus mean over the rows of the feature map."""
        x = self.feature_map(features)
        return (x.amax(dim=2) + x.mean(dim=2)).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)` of unit length."""
        x = self.feature_map(features)
        return nn.functional.normalize((x.amax(dim=(2, 3)) + x.mean(dim=(2, 3))).float(), dim=1)


def _waveform_layers(layout: Layout, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    size = 1
    for kernel, stride, padding in zip(layout.kernels, layout.strides, PADDINGS, strict=True):
        layers += [nn.Conv1d(size, channels, kernel, stride, padding), nn.BatchNorm1d(channels), nn.ReLU(inplace=True)]
        size = channels
    return nn.Sequential(*layers)


def _image_layers(layers: str) -> tuple[nn.Sequential, int]:
    """The 2-D network, and its number of output channels."""
    modules: list[nn.Module] = []
    size = COLOURS
    for token in layers.split():
        if token in POOLS:
            modules.append(nn.MaxPool2d(*POOLS[token]))
            continue
        modules += [nn.Conv2d(size, int(token), 3, padding=1), nn.BatchNorm2d(int(token)), nn.ReLU(inplace=True)]
        size = int(token)
    return nn.Sequential(*modules), size


def _minimum_image(layers: str) -> int:
    """The smallest image side of which one pixel remains; computed from the last pooling back to the first."""
    side = 1
    for token in reversed(layers.split()):
        if token in POOLS:
            size, stride = POOLS[token]
            side = (side - 1) * stride + size
    return side


def _minimum_samples(layout: Layout) -> int:
    length = _minimum_image(layout.layers)
    for kernel, stride, padding in reversed(list(zip(layout.kernels, layout.strides, PADDINGS, strict=True))):
        length = (length - 1) * stride + kernel - 2 * padding
    return length
