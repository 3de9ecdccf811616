"""The CPC encoder: strided convolutions to one frame every 10 ms, and a context of everything before it.

Oord et al., 2018, https://arxiv.org/abs/1807.03748, in the form of Rivière et al., 2020
(https://arxiv.org/abs/2002.02848): normalisation over channels, and a transformer or recurrent context.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, layer_norm

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.causal import CausalTransformerLayer, sinusoidal_positions
from ssl_audio.encoders.sinc_net import SincConv1d
from ssl_audio.errors import InputError

# kernel, stride, padding of the five convolutions: 160 samples a frame
LAYERS = ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1))
RECURRENT: dict[str, Any] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
_SILENCE = 1e-4  # deviation, 80 dB below full scale, that is not made louder much
State = Any  # of the recurrent context: a tensor, a pair of them (LSTM), or None


class ChannelNorm(nn.Module):
    """Zero mean and unit variance over the channels of each frame, then a gain and a bias a channel.

    Unlike batch norm it looks at no other clip, and unlike layer norm over time at no other frame, so that a context
    cannot read the future from it.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, frames) -> the same shape, with the channels of a frame side by side in memory."""
        # The variance is the unbiased one, that of `layer_norm` is not: so much smaller, and so much the gain.
        smaller = (self.channels - 1) / self.channels
        gain = self.weight.squeeze(1) * smaller**0.5
        normed = layer_norm(x.transpose(1, 2), (self.channels,), gain, self.bias.squeeze(1), self.eps * smaller)
        return normed.transpose(1, 2)


class BatchNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm1d` as a picture of one row, see `Convolution`."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, frames) -> the same shape."""
        return super().forward(x.unsqueeze(2)).squeeze(2)


class Convolution(nn.Conv1d):
    """`torch.nn.Conv1d` as a picture of one row: after `ChannelNorm` half a step's time, in bfloat16 on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, frames) -> (batch, out channels, frames)."""
        weight, stride, padding = self.weight.unsqueeze(2), (1, *self.stride), (0, *self.padding)
        return conv2d(x.unsqueeze(2), weight, self.bias, stride, padding).squeeze(2)  # type: ignore[arg-type]


class CPC(Encoder):
    """Raw waveform -> `latents` (what is heard in a frame) -> `frames` (the context: what has been heard so far).

    Args:
        channels: of the convolutions.
        first_layer: "conv", or "sinc" for band-pass filters with learned edges (of 11 instead of 10 taps).
        context: "transformer" (causal), "gru", "lstm", "rnn", or "none" for the latents themselves.
        context_dim: size of a context frame; None: `channels`, which the transformer and "none" require.
        context_layers: layers of the context network.
        positions: of the transformer: "relative" learns a key for every distance back up to `max_distance`, and gives
            greater distances the farthest key, so that any length goes; "sinusoidal" adds fixed codes to the latents.
        max_distance: see `positions`, in frames.
        heads, feedforward, dropout: of the transformer.
        reverse: run the context from the end to the beginning, to predict the past.
        sample_rate: of the input, Hz; for the sinc layer.
        norm: "channel", or "batch", with which latents cannot become all alike, where small encoders normalised over
            channels often go in the first steps and stay.
        normalize: bring each clip to zero mean and unit deviation first, as wav2vec 2.0 does.
    """

    def __init__(
        self,
        channels: int = 512,
        first_layer: Literal["conv", "sinc"] = "conv",
        context: Literal["transformer", "gru", "lstm", "rnn", "none"] = "transformer",
        context_dim: int | None = None,
        context_layers: int = 1,
        positions: Literal["relative", "sinusoidal"] = "relative",
        max_distance: int = 128,
        heads: int = 8,
        feedforward: int = 2048,
        dropout: float = 0.1,
        reverse: bool = False,
        sample_rate: int = 16000,
        norm: Literal["channel", "batch"] = "channel",
        normalize: bool = False,
    ) -> None:
        super().__init__()
        _check("first_layer", first_layer, ("conv", "sinc"))
        _check("context", context, ("transformer", *RECURRENT, "none"))
        _check("norm", norm, ("channel", "batch"))
        _check("positions", positions, ("relative", "sinusoidal"))
        if context not in RECURRENT and context_dim not in (None, channels):
            raise InputError(
                f"context {context!r} keeps the {channels} channels; leave context_dim out, not {context_dim}"
            )
        if context == "transformer" and (heads < 1 or channels % heads):
            raise InputError(f"heads is {heads}; it must divide the {channels} channels")
        self.channels, self.first_layer, self.context = channels, first_layer, context
        self.context_dim, self.context_layers = context_dim, context_layers
        self.positions, self.max_distance, self.heads = positions, max_distance, heads
        self.feedforward, self.dropout, self.reverse, self.sample_rate = feedforward, dropout, reverse, sample_rate
        self.norm, self.normalize = norm, normalize

        self.dim = self.frame_dim = context_dim or channels
        self.convolutions = _convolutions(channels, first_layer, sample_rate, norm)
        self.network: nn.Module | None = None
        if context in RECURRENT:
            self.network = RECURRENT[context](channels, self.dim, context_layers, batch_first=True)
        elif context == "transformer":
            distance = max_distance if positions == "relative" else None
            self.network = nn.Sequential(
                *(
                    CausalTransformerLayer(channels, heads, feedforward, dropout, distance)
                    for _ in range(context_layers)
                )
            )
        self.minimum_frames = 1
        for kernel, stride, padding in reversed(LAYERS):
            self.minimum_frames = (self.minimum_frames - 1) * stride + kernel - 2 * padding
        self.minimum_frames += first_layer == "sinc"

    def latents(self, features: Tensor) -> Tensor:
        """(batch, samples) -> (batch, samples / 160, channels)."""
        if self.normalize:
            deviation, mean = torch.std_mean(features, dim=1, keepdim=True)
            features = (features - mean) / (deviation + _SILENCE)
        return self.convolutions(features.unsqueeze(1)).transpose(1, 2)

    def contextualize(self, latents: Tensor, state: State = None) -> tuple[Tensor, State]:
        """(batch, frames, channels) -> (batch, frames, dim) and the recurrent state at the end (None without one).

        Args:
            latents: of a clip.
            state: what this method returned for the clip that ended where this one begins; None begins anew.
        """
        x = latents.flip(1) if self.reverse else latents
        if isinstance(self.network, nn.RNNBase):
            x, state = self.network(x, state)
        elif self.network is not None:
            if self.positions == "sinusoidal":
                x = x + sinusoidal_positions(x.shape[1], self.channels, x.device).to(x.dtype)
            x = self.network(x)
        return (x.flip(1) if self.reverse else x), state

    def frames(self, features: Tensor) -> Tensor:
        """(batch, samples) -> (batch, samples / 160, dim), the context of every frame."""
        return self.contextualize(self.latents(features))[0]

    def forward(self, features: Tensor) -> Tensor:
        """(batch, samples) -> (batch, dim), the mean context."""
        return self.frames(features).mean(dim=1)


def _convolutions(channels: int, first_layer: str, sample_rate: int, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (kernel, stride, padding) in enumerate(LAYERS):
        if i == 0 and first_layer == "sinc":
            layers.append(SincConv1d(channels, kernel, stride, padding, sample_rate))
        else:
            layers.append(Convolution(1 if i == 0 else channels, channels, kernel, stride, padding))
        layers += [
            ChannelNorm(channels) if norm == "channel" else BatchNorm(channels),
            nn.ReLU(),
        ]  # in place it would copy: the norm gives a view
    return nn.Sequential(*layers)


def _check(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
