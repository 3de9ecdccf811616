"""Pooling: frames `(batch, frames, in_dim)` -> one vector per clip, `(batch, dim)`.

A pooling is constructed with the size of a frame and has `dim`, the size of its vector. An encoder takes the class, as
`pooling: Callable[[int], nn.Module]`.

Example:
    >>> pooling = StatisticsPooling(256)
    >>> pooling(torch.randn(4, 100, 256)).shape
    torch.Size([4, 512])
"""

import torch
from torch import Tensor, nn

ECAPA_FORMS = ("wespeaker", "speechbrain")
VARIANCE_FLOOR = 1e-8  # added under the square root, whose gradient at 0 is infinite


class MeanPooling(nn.Module):
    """Mean over the frames; `dim` is `in_dim`.

    Args:
        in_dim: size of a frame.
    """

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = in_dim

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, in_dim)`."""
        return frames.mean(dim=1)


class StatisticsPooling(nn.Module):
    """Mean and standard deviation over the frames, as in x-vectors (Snyder et al., 2018); `dim` is `2 * in_dim`.

    Args:
        in_dim: size of a frame.
    """

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = 2 * in_dim

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, 2 * in_dim)`: means, then deviations."""
        weights = torch.full_like(frames[..., :1], 1.0) / frames.shape[1]
        return _weighted_statistics(frames, weights)


class AttentiveStatisticsPooling(nn.Module):
    """Mean and standard deviation over the frames, weighted by attention; `dim` is `2 * in_dim`.

    Okabe et al., 2018, https://arxiv.org/abs/1803.10963. As in ECAPA-TDNN (Desplanques et al., 2020,
    https://arxiv.org/abs/2005.07143), every channel has its own weights, and the attention also sees the unweighted
    mean and deviation of the clip.

    Args:
        in_dim: size of a frame.
        attention_dim: size of the attention's hidden layer.
        context: give the unweighted statistics of the clip to the attention.
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
        """`(batch, frames, in_dim)` -> `(batch, 2 * in_dim)`: means, then deviations."""
        seen = frames
        if self.context:
            plain = _weighted_statistics(frames, torch.full_like(frames[..., :1], 1.0) / frames.shape[1])
            seen = torch.cat([frames, plain.unsqueeze(1).expand(-1, frames.shape[1], -1)], dim=-1)
        return _weighted_statistics(frames, self.attention(seen).softmax(dim=1))


class TemporalStatisticsPooling(nn.Module):
    """Mean and unbiased standard deviation over the frames (TSTP of wespeaker); `dim` is `2 * in_dim`.

    The deviation is `sqrt(max(variance + added, least))`. The variance of a single frame is 0.

    | pooling | |
    |---|---|
    | wespeaker's ResNet34 | `TemporalStatisticsPooling(2560)` |
    | sslsv's ResNet34, "stats" | `TemporalStatisticsPooling(1280, unbiased=False, added=0, least=1e-5)` |

    Args:
        in_dim: size of a frame.
        unbiased: divide by `frames - 1` instead of `frames`.
        added: added to the variance.
        least: lower limit under the square root. `added` or `least` must be above 0, because the gradient of the square
            root at 0 is infinite.

    Raises:
        ValueError: both `added` and `least` are 0, or one is negative.
    """

    def __init__(self, in_dim: int, unbiased: bool = True, added: float = 1e-7, least: float = 0.0) -> None:
        super().__init__()
        if min(added, least) < 0 or max(added, least) == 0:
            raise ValueError(f"added {added} and least {least} must not be negative, and one must be above 0")
        self.in_dim = in_dim
        self.unbiased = unbiased
        self.added = added
        self.least = least
        self.dim = 2 * in_dim

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, dim)`. Only frames in the mask `(batch, frames)` count; None: all."""
        mean, variance = _moments(frames, _equal_weights(frames, mask), self.unbiased)
        return torch.cat([mean, (variance + self.added).clamp_min(self.least).sqrt()], dim=-1)


class SelfAttentivePooling(nn.Module):
    """Mean over the frames, weighted by attention with a weight per frame; `dim` is `in_dim`.

    The weights are the softmax over time of `vector . tanh(linear(frame))` (Cai et al., 2018,
    https://arxiv.org/abs/1804.05160), as in Fast ResNet-34 (Chung et al., 2020, https://arxiv.org/abs/2003.11982).

    Args:
        in_dim: size of a frame.
    """

    def __init__(self, in_dim: int) -> None:
        super().__init__()
        self.in_dim = in_dim
        self.dim = in_dim
        self.linear = nn.Linear(in_dim, in_dim)
        self.vector = nn.Parameter(torch.empty(in_dim, 1))
        nn.init.xavier_normal_(self.vector)

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, dim)`. Only frames in the mask `(batch, frames)` count; None: all."""
        energy = torch.tanh(self.linear(frames)) @ self.vector
        return (frames * _attention(energy, mask)).sum(dim=1)


class ECAPAPooling(nn.Module):
    """The pooling of ECAPA-TDNN, in the form of either published implementation; `dim` is `2 * in_dim`.

    It gives mean and standard deviation over the frames, weighted by attention with a weight per frame and channel
    (Desplanques et al., 2020, https://arxiv.org/abs/2005.07143). The forms differ in these points:

    | | wespeaker | speechbrain |
    |---|---|---|
    | hidden layer of the attention | linear, tanh | linear, ReLU, batch norm, tanh |
    | variance in the context | unbiased, plus 1e-7 | biased, at least 1e-12 |
    | weighted variance | at least 1e-7 | at least 1e-12 |

    Args:
        in_dim: size of a frame.
        attention_dim: size of the attention's hidden layer.
        context: give the unweighted statistics of the clip to the attention.
        form: wespeaker or speechbrain.

    Raises:
        ValueError: the form is unknown.
    """

    def __init__(self, in_dim: int, attention_dim: int = 128, context: bool = True, form: str = ECAPA_FORMS[0]) -> None:
        super().__init__()
        if form not in ECAPA_FORMS:
            raise ValueError(f"form is {form!r}; it must be one of {', '.join(ECAPA_FORMS)}")
        self.in_dim = in_dim
        self.attention_dim = attention_dim
        self.context = context
        self.form = form
        self.dim = 2 * in_dim
        norm = [nn.ReLU(), nn.BatchNorm1d(attention_dim)] if form == "speechbrain" else []
        self.attention = nn.Sequential(
            nn.Conv1d(in_dim * (3 if context else 1), attention_dim, 1),
            *norm,
            nn.Tanh(),
            nn.Conv1d(attention_dim, in_dim, 1),
        )

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, dim)`. Only frames in the mask `(batch, frames)` count; None: all."""
        seen = frames
        if self.context:
            plain = self._plain_statistics(frames, mask)
            seen = torch.cat([frames, plain.unsqueeze(1).expand(-1, frames.shape[1], -1)], dim=-1)
        energy = self.attention(seen.transpose(1, 2)).transpose(1, 2)
        mean, variance = _moments(frames, _attention(energy, mask))
        least = 1e-12 if self.form == "speechbrain" else 1e-7
        return torch.cat([mean, variance.clamp_min(least).sqrt()], dim=-1)

    def _plain_statistics(self, frames: Tensor, mask: Tensor | None) -> Tensor:
        weights = _equal_weights(frames, mask)
        if self.form == "speechbrain":
            mean, variance = _moments(frames, weights)
            return torch.cat([mean, variance.clamp_min(1e-12).sqrt()], dim=-1)
        mean, variance = _moments(frames, weights, unbiased=True)
        return torch.cat([mean, (variance + 1e-7).sqrt()], dim=-1)


def _weighted_statistics(frames: Tensor, weights: Tensor) -> Tensor:
    """Weighted means and deviations over dimension 1, concatenated. The weights sum to 1 along it."""
    mean, variance = _moments(frames, weights)
    return torch.cat([mean, (variance + VARIANCE_FLOOR).sqrt()], dim=-1)


def _moments(frames: Tensor, weights: Tensor, unbiased: bool = False) -> tuple[Tensor, Tensor]:
    """Weighted means and variances over dimension 1. The weights sum to 1 along it."""
    mean = (frames * weights).sum(dim=1)
    variance = ((frames - mean.unsqueeze(1)).square() * weights).sum(dim=1)
    if unbiased:  # n / (n - 1) for n equal weights; the variance of a single frame stays 0
        variance = variance / (1 - weights.square().sum(dim=1)).clamp_min(0.5)
    return mean, variance


def _equal_weights(frames: Tensor, mask: Tensor | None) -> Tensor:
    """`(batch, frames, 1)` weights: equal for the frames in the mask, 0 for the others; their sum is 1."""
    if mask is None:
        return torch.full_like(frames[..., :1], 1.0) / frames.shape[1]
    counted = mask.to(frames.dtype).unsqueeze(2)
    return counted / counted.sum(dim=1, keepdim=True)


def _attention(energy: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax over time (dimension 1). Frames outside the mask have the weight 0."""
    if mask is not None:
        energy = energy.masked_fill(~mask.unsqueeze(2), -torch.inf)
    return energy.softmax(dim=1)
