"""The CPC encoder: strided convolutions to one frame every 10 ms, and a context of everything before it.

Oord et al., 2018, https://arxiv.org/abs/1807.03748, in the form of Rivière et al., 2020
(https://arxiv.org/abs/2002.02848): normalisation over channels, and a transformer or recurrent context.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.causal import CausalTransformerLayer, sinusoidal_positions
from ssl_audio.encoders.sinc_net import SincConv1d
from ssl_audio.errors import InputError

# kernel, stride, padding of the five convolutions: 160 samples a frame
LAYERS = ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1))
RECURRENT: dict[str, Any] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
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
        """(batch, channels, frames) -> the same shape, in float32 as torch's own norms under autocast."""
        x = x.float()
        x = x - x.mean(dim=1, keepdim=True)
        variance = x.square().sum(dim=1, keepdim=True) / (self.channels - 1)
        return x * torch.rsqrt(variance + self.eps) * self.weight + self.bias


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
    ) -> None:
        super().__init__()
        _check("first_layer", first_layer, ("conv", "sinc"))
        _check("context", context, ("transformer", *RECURRENT, "none"))
        _check("positions", positions, ("relative", "sinusoidal"))
        if context not in RECURRENT and context_dim not in (None, channels):
            raise InputError(
                f"context {context!r} keeps the {channels} channels; leave context_dim out, not {context_dim}"
            )
        self.channels, self.first_layer, self.context = channels, first_layer, context
        self.context_dim, self.context_layers = context_dim, context_layers
        self.positions, self.max_distance, self.heads = positions, max_distance, heads
        self.feedforward, self.dropout, self.reverse, self.sample_rate = feedforward, dropout, reverse, sample_rate

        self.dim = self.frame_dim = context_dim or channels
        self.convolutions = _convolutions(channels, first_layer, sample_rate)
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


def _convolutions(channels: int, first_layer: str, sample_rate: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i, (kernel, stride, padding) in enumerate(LAYERS):
        if i == 0 and first_layer == "sinc":
            layers.append(SincConv1d(channels, kernel, stride, padding, sample_rate))
        else:
            layers.append(nn.Conv1d(1 if i == 0 else channels, channels, kernel, stride, padding))
        layers += [ChannelNorm(channels), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def _check(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
