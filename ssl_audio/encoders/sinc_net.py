"""SincNet: band-pass filters with learned edges on the raw waveform.

Ravanelli and Bengio, "Speaker recognition from raw waveform with SincNet", 2018, https://arxiv.org/abs/1808.00158.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv1d

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.pooling import StatisticsPooling

NORMS = ("layer", "batch")


class SincConv1d(nn.Module):
    """A convolution whose kernels are windowed band-pass filters. Each filter has two learned parameters, in Hz.

    The edges are `low = minimum_low + |low_hz|` and `high = low + minimum_band + |band_hz|`, at most half the sample
    rate. They start evenly spaced in mel from 30 Hz. The kernel is the difference of two sinc low-pass filters under a
    Hamming window, divided by twice the bandwidth; its central value is therefore 1.

    Args:
        out_channels: number of filters.
        kernel_size: in samples. An even number is raised by one, so that the filter has a centre.
        stride, padding: see `torch.nn.Conv1d`.
        sample_rate: sample rate of the input in Hz.
        minimum_low, minimum_band: in Hz.
    """

    def __init__(
        self,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        sample_rate: int = 16000,
        minimum_low: float = 50.0,
        minimum_band: float = 50.0,
    ) -> None:
        super().__init__()
        self.out_channels, self.kernel_size = out_channels, kernel_size + 1 - kernel_size % 2
        self.stride, self.padding, self.sample_rate = stride, padding, sample_rate
        self.minimum_low, self.minimum_band = minimum_low, minimum_band
        top = _hz_to_mel(sample_rate / 2 - minimum_low - minimum_band)
        edges = _mel_to_hz(torch.linspace(_hz_to_mel(30.0), top, out_channels + 1))
        self.low_hz = nn.Parameter(edges[:-1])
        self.band_hz = nn.Parameter(edges.diff())
        half = self.kernel_size // 2
        steps = torch.linspace(0, self.kernel_size / 2 - 1, half)
        self.register_buffer(
            "window", 0.54 - 0.46 * torch.cos(2 * math.pi * steps / self.kernel_size), persistent=False
        )
        self.register_buffer("radians", 2 * math.pi * torch.arange(-half, 0) / sample_rate, persistent=False)
        self.window: Tensor
        self.radians: Tensor

    def edges(self) -> tuple[Tensor, Tensor]:
        """Lower and upper edges of the filters in Hz, `(out_channels,)` each."""
        low = self.minimum_low + self.low_hz.abs()
        high = (low + self.minimum_band + self.band_hz.abs()).clamp(max=self.sample_rate / 2)
        return low.clamp(max=self.sample_rate / 2 - 1), high

    def filters(self) -> Tensor:
        """The present kernels, `(out_channels, kernel_size)`; they are symmetric."""
        low, high = (edge.unsqueeze(1) for edge in self.edges())
        band = 2 * (high - low)
        left = (torch.sin(high * self.radians) - torch.sin(low * self.radians)) / (self.radians / 2) * self.window
        return torch.cat([left, band, left.flip(1)], dim=1) / band

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, 1, samples)` -> `(batch, out_channels, frames)`."""
        return conv1d(
            waveforms, self.filters().unsqueeze(1).to(waveforms.dtype), stride=self.stride, padding=self.padding
        )


class SincNet(Encoder):
    """A sinc layer and convolutions, each followed by max pooling, normalisation, leaky ReLU and dropout.

    The original normalises over channels and a fixed number of frames, and flattens its output. Here, layer
    normalisation covers all frames of the clip, with a gain per channel, and the frames are pooled. So any length is
    accepted.

    Args:
        channels: number of filters in each layer; the first is the sinc layer.
        kernel_sizes, pool_sizes: of the same layers, in samples of their input.
        embedding_dim: size of the embedding.
        sample_rate: sample rate of the input in Hz.
        norm: "layer" or "batch".
        dropout: probability after every layer, in training.
        pooling: class of `ssl_audio.pooling` that turns frames into one vector.

    Raises:
        InputError: the layers' lists differ in length, or the norm is unknown.
    """

    def __init__(
        self,
        channels: Sequence[int] = (80, 60, 60),
        kernel_sizes: Sequence[int] = (251, 5, 5),
        pool_sizes: Sequence[int] = (3, 3, 3),
        embedding_dim: int = 512,
        sample_rate: int = 22050,
        norm: str = "layer",
        dropout: float = 0.0,
        pooling: Callable[[int], nn.Module] = StatisticsPooling,
    ) -> None:
        super().__init__()
        if not len(channels) == len(kernel_sizes) == len(pool_sizes):
            raise InputError(
                "channels, kernel_sizes and pool_sizes must have the same length, "
                f"got {len(channels)}, {len(kernel_sizes)} and {len(pool_sizes)}"
            )
        if norm not in NORMS:
            raise InputError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
        self.channels, self.kernel_sizes, self.pool_sizes = list(channels), list(kernel_sizes), list(pool_sizes)
        self.embedding_dim, self.sample_rate, self.norm = embedding_dim, sample_rate, norm
        self.dropout = dropout
        self.input_norm = _norm(norm, 1)
        self.sinc = SincConv1d(channels[0], kernel_sizes[0], sample_rate=sample_rate)
        layers: list[nn.Module] = [_after(channels[0], pool_sizes[0], norm, dropout)]
        for i in range(1, len(channels)):
            layers += [
                nn.Conv1d(channels[i - 1], channels[i], kernel_sizes[i]),
                _after(channels[i], pool_sizes[i], norm, dropout),
            ]
        self.layers = nn.Sequential(*layers)
        self.frame_dim, self.dim = channels[-1], embedding_dim
        self.pooling = pooling if isinstance(pooling, nn.Module) else pooling(self.frame_dim)
        self.projection = nn.Linear(self.pooling.dim, embedding_dim)  # type: ignore[arg-type]
        self.minimum_frames = 1
        for kernel, pool in zip(
            reversed([self.sinc.kernel_size, *kernel_sizes[1:]]), reversed(pool_sizes), strict=True
        ):
            self.minimum_frames = self.minimum_frames * pool + kernel - 1

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, about samples / 27, frame_dim)`."""
        # As in the original, only the sinc layer's output is rectified before its pooling.
        return self.layers(self.sinc(self.input_norm(features.unsqueeze(1))).abs()).transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`."""
        return self.projection(self.pooling(self.frames(features)))


def _after(size: int, pool: int, norm: str, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.MaxPool1d(pool), _norm(norm, size), nn.LeakyReLU(), nn.Dropout(dropout))


def _norm(kind: str, size: int) -> nn.Module:
    return nn.GroupNorm(1, size) if kind == "layer" else nn.BatchNorm1d(size)


def _hz_to_mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


def _mel_to_hz(mel: Tensor) -> Tensor:
    return 700 * (10 ** (mel / 2595) - 1)
