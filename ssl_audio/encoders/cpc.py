"""The CPC encoder: strided convolutions give a frame every 10 ms, and a context network summarises earlier frames.

Van den Oord et al., 2018, https://arxiv.org/abs/1807.03748, as changed by Rivière et al., 2020,
https://arxiv.org/abs/2002.02848: normalisation over channels, and a transformer or recurrent context.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, layer_norm

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.causal import CausalTransformerLayer, sinusoidal_positions
from ssl_audio.encoders.sinc_net import SincConv1d
from ssl_audio.errors import InputError

# kernel, stride, padding of the five convolutions: 160 samples per frame
LAYERS = ((10, 5, 3), (8, 4, 2), (4, 2, 1), (4, 2, 1), (4, 2, 1))
RECURRENT: dict[str, Any] = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}
_SILENCE = 1e-4  # added to the standard deviation, so that clips below -80 dB are amplified little
State = Any  # state of the recurrent context: a tensor, a pair of tensors (LSTM), or None


class ChannelNorm(nn.Module):
    """Zero mean and unit variance over the channels of each frame, then a gain and a bias per channel.

    It uses no other clip (unlike batch normalisation) and no other frame (unlike layer normalisation over time), so the
    context network cannot read the future from it.
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels, self.eps = channels, eps
        self.weight = nn.Parameter(torch.ones(channels, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, frames)` -> the same shape; the channels of a frame are adjacent in memory."""
        # The variance here is unbiased. `layer_norm` uses the biased one, so gain and eps are scaled to match.
        ratio = (self.channels - 1) / self.channels
        gain = self.weight.squeeze(1) * ratio**0.5
        normed = layer_norm(x.transpose(1, 2), (self.channels,), gain, self.bias.squeeze(1), self.eps * ratio)
        return normed.transpose(1, 2)


class BatchNorm(nn.BatchNorm2d):
    """`torch.nn.BatchNorm1d`, computed in two dimensions; see `Convolution`."""

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, frames)` -> the same shape."""
        return super().forward(x.unsqueeze(2)).squeeze(2)


class Convolution(nn.Conv1d):
    """`torch.nn.Conv1d`, computed in two dimensions: after `ChannelNorm` that halves a bfloat16 step on a CPU."""

    def forward(self, x: Tensor) -> Tensor:
        """`(batch, channels, frames)` -> `(batch, out channels, frames)`."""
        weight, stride, padding = self.weight.unsqueeze(2), (1, *self.stride), (0, *self.padding)
        return conv2d(x.unsqueeze(2), weight, self.bias, stride, padding).squeeze(2)  # type: ignore[arg-type]


class CPC(Encoder):
    """Raw waveform -> `latents` (content of each frame) -> `frames` (context: everything up to each frame).

    Args:
        channels: channels of the convolutions.
        first_layer: "conv", or "sinc" for band-pass filters with learned edges (11 taps instead of 10).
        context: "transformer" (causal), "gru", "lstm", "rnn", or "none", with which the latents are the frames.
        context_dim: size of a context frame. None: `channels`, which the transformer and "none" require.
        context_layers: number of layers of the context network.
        positions: positions of the transformer. "relative": a learned key for each distance back, up to `max_distance`
            and the same beyond, so any length is accepted. "sinusoidal": fixed codes added to the latents.
        max_distance: see `positions`; in frames.
        heads, feedforward, dropout: see `ssl_audio.encoders.causal.CausalTransformerLayer`.
        reverse: run the context network backwards in time, to predict the past.
        sample_rate: sample rate of the input in Hz; used by the sinc layer.
        norm: "channel" or "batch". With "channel", the latents of small encoders often become equal in the first steps
            and stay so; batch normalisation prevents that.
        normalize: first scale each clip to zero mean and unit deviation, as wav2vec 2.0 does.
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
                f"context_dim is {context_dim}, but context {context!r} needs {channels}, as channels; leave it out"
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
        """`(batch, samples)` -> `(batch, samples / 160, channels)`."""
        if self.normalize:
            deviation, mean = torch.std_mean(features, dim=1, keepdim=True)
            features = (features - mean) / (deviation + _SILENCE)
        return self.convolutions(features.unsqueeze(1)).transpose(1, 2)

    def contextualize(self, latents: Tensor, state: State = None) -> tuple[Tensor, State]:
        """`(batch, frames, channels)` -> `(batch, frames, dim)`, and the state of a recurrent context at the end.

        Args:
            latents: latents of the clips.
            state: state that this method returned for the clips directly before these; None starts without history.
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
        """`(batch, samples)` -> `(batch, samples / 160, dim)`, the context of every frame."""
        return self.contextualize(self.latents(features))[0]

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`, the mean over the context frames."""
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
            nn.ReLU(),  # not in place: the norm returns a view, which an in-place operation would copy
        ]
    return nn.Sequential(*layers)


def _check(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; it must be one of {', '.join(choices)}")
