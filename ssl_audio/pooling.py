"""Frames `(batch, frames, dim)` -> one vector a clip. Any encoder with frames can use any of these.

Each is made with the frames' size and has `.dim`, the size of its vector. An encoder takes the class:
`pooling: Callable[[int], nn.Module]`.
"""

import torch
from torch import Tensor, nn

VARIANCE_FLOOR = 1e-8  # under the root of a variance: its derivative at zero is infinite


class MeanPooling(nn.Module):
    """Mean over the frames: `(batch, frames, in_dim)` -> `(batch, in_dim)`."""

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = in_dim

    def forward(self, frames: Tensor) -> Tensor:
        return frames.mean(dim=1)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over the frames (x-vectors, Snyder 2018): -> `(batch, 2 * in_dim)`."""

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = 2 * in_dim

    def forward(self, frames: Tensor) -> Tensor:
        weights = torch.full_like(frames[..., :1], 1.0) / frames.shape[1]
        return _weighted_statistics(frames, weights)


class AttentiveStatisticsPooling(nn.Module):
    """Mean and standard deviation weighted by attention: -> `(batch, 2 * in_dim)`.

    Okabe 2018 (https://arxiv.org/abs/1803.10963), with one weight for each frame and channel and with the clip's plain
    mean and deviation as context for the attention, as in ECAPA-TDNN (Desplanques 2020, https://arxiv.org/abs/2005.07143).

    Args:
        in_dim: size of a frame.
        attention_dim: size of the hidden layer of the attention.
        context: let the attention see the plain statistics of the clip.
    """

    def __init__(self, in_dim: int, attention_dim: int = 128, context: bool = True) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.attention_dim = attention_dim
        self.context = context
        self.dim = 2 * in_dim
        self.attention = nn.Sequential(
            nn.Linear(in_dim * (3 if context else 1), attention_dim), nn.Tanh(), nn.Linear(attention_dim, in_dim)
        )

    def forward(self, frames: Tensor) -> Tensor:
        seen = frames
        if self.context:
            plain = _weighted_statistics(frames, torch.full_like(frames[..., :1], 1.0) / frames.shape[1])
            seen = torch.cat([frames, plain.unsqueeze(1).expand(-1, frames.shape[1], -1)], dim=-1)
        return _weighted_statistics(frames, self.attention(seen).softmax(dim=1))


def _weighted_statistics(frames: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean and deviation over dimension 1, side by side; the weights sum to 1 there."""
    mean = (frames * weights).sum(dim=1)
    variance = ((frames - mean.unsqueeze(1)).square() * weights).sum(dim=1)
    return torch.cat([mean, (variance + VARIANCE_FLOOR).sqrt()], dim=-1)
