"""Time stretch, and pitch shift of anything that sounds, by waveform similarity (WSOLA, Verhelst and Roelands, 1993).

What sox does for `tempo` and `pitch`. Unlike the overlap-add for voices in `psola` it needs no pitch, so it takes
chords and drums; formants move with the pitch.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ssl_audio.augmentations.base import check_range
from ssl_audio.augmentations.batch.base import BatchTransform, in_pieces, read_faster, running_sum, uniform
from ssl_audio.augmentations.batch.filters import low_pass
from ssl_audio.augmentations.batch.pitch import pool

# As in sox, for music: long grains, joined quickly.
HOP_SECONDS = 0.07
FADE_SECONDS = 0.015
TOLERANCE_SECONDS = 0.015
SEARCH_RATE = 4000  # Hz; a parabola through the best match finds it between the samples


def stretch(clips: Tensor, sample_rate: int, rate: Tensor, samples: int) -> Tensor:
    """Play each clip at its own rate without changing its pitch.

    Args:
        clips: (batch, samples in) float32.
        sample_rate: Hz.
        rate: (batch, 1), above 1 is faster.
        samples: length of the result; zeros after the end of the clip.

    Returns:
        (batch, samples).
    """
    step = max(1, round(sample_rate / SEARCH_RATE))
    hop, fade, reach = (
        max(1, round(seconds * sample_rate / step)) for seconds in (HOP_SECONDS, FADE_SECONDS, TOLERANCE_SECONDS)
    )
    count = -(-samples // (hop * step))
    starts = similar_grains(pool(clips, step), hop, fade, reach, rate, count)
    return in_pieces(partial(join, hop * step, fade * step, samples), clips, (starts * step).round().long())


def join(hop: int, fade: int, samples: int, clips: Tensor, starts: Tensor) -> Tensor:
    """Put a grain each `hop` samples, each fading into the next over `fade` samples: (batch, samples)."""
    inside = torch.arange(hop, device=clips.device)
    padded = F.pad(clips, (2 * hop, 2 * hop))
    starts = (starts + 2 * hop).clamp(0, padded.shape[1] - hop - fade)[..., None]
    result = padded.gather(1, (starts + inside).flatten(1)).unflatten(1, (-1, hop))
    before = padded.gather(1, (starts[:, :-1] + (hop + inside[:fade])).flatten(1)).unflatten(1, (-1, fade))
    weight = 0.5 - 0.5 * torch.cos(math.pi * (inside[:fade] + 0.5) / fade)
    result[:, 1:, :fade].lerp_(before, 1 - weight)
    return result.flatten(1)[:, :samples]


def similar_grains(low: Tensor, hop: int, fade: int, reach: int, rate: Tensor, count: int) -> Tensor:
    """Where each grain of the result starts in the input: near its time, and where it continues the grain before.

    Args:
        low: (batch, n), the clips at a low rate.
        hop: from a grain of the result to the next.
        fade: length over which a grain must resemble the continuation of the one before.
        reach: how far a grain may move from its time.
        rate: (batch, 1).
        count: grains.

    Returns:
        (batch, count) positions at the low rate, fractional, possibly outside the clip.
    """
    margin = hop + fade + reach
    last = low.shape[1] + 2 * margin - fade
    low = F.pad(low, (margin, margin))
    ideal = (torch.arange(count, device=low.device) * hop * rate).round().long()
    around = ideal[..., None] + torch.arange(-reach, reach + 1, device=low.device) + margin
    energy = running_sum(low.square(), 2**30)
    energy = (energy[:, fade:] - energy[:, :-fade]).clamp_min(1).to(low.dtype).rsqrt()
    norm = energy.gather(1, around.clamp(0, last).flatten(1)).unflatten(1, (count, -1))
    span = torch.arange(fade + 2 * reach, device=low.device) + (margin - reach)
    regions = low.gather(1, (ideal[..., None] + span).clamp_(0, last + fade - 1).flatten(1)).unflatten(1, (count, -1))
    offsets = torch.arange(fade, device=low.device) + (margin + hop)

    start = ideal[:, :1].to(low.dtype)
    starts = [start]
    for k in range(1, count):  # over time, not over clips
        following = low.gather(1, (start.round().long() + offsets).clamp_(0, last + fade - 1))
        match = F.conv1d(regions[None, :, k], following[:, None], groups=len(low))[0] * norm[:, k]
        best = match[:, 1:-1].argmax(1, keepdim=True) + 1
        left, middle, right = (match.gather(1, best + i) for i in (-1, 0, 1))
        offset = (0.5 * (right - left) / (2 * middle - left - right).clamp_min(1e-9)).clamp(-0.5, 0.5)
        start = ideal[:, k : k + 1] + (best - reach) + offset
        starts.append(start)
    return torch.cat(starts, dim=1)


class TimeStretch(BatchTransform):
    """Play at a rate uniform in [min_rate, max_rate] without changing the pitch; cut or zero-padded to its length."""

    whole = True  # the loop over time is shared by all clips

    def __init__(self, min_rate: float = 0.8, max_rate: float = 1.2, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("TimeStretch rate", min_rate, max_rate, at_least=0.1, at_most=10)
        self.min_rate, self.max_rate = min_rate, max_rate

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        rate = uniform(clips, self.min_rate, self.max_rate, generator)
        return stretch(clips, sample_rate, rate, clips.shape[1])


class PitchShiftPolyphonic(BatchTransform):
    """Move the pitch of any sound, duration kept, by cents uniform in [min_cents, max_cents]; formants move along."""

    whole = True  # the loop over time is shared by all clips

    def __init__(self, min_cents: float = -700.0, max_cents: float = 700.0, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("PitchShiftPolyphonic cents", min_cents, max_cents, at_least=-2400, at_most=2400)
        self.min_cents, self.max_cents = min_cents, max_cents

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        ratio = 2 ** (uniform(clips, self.min_cents, self.max_cents, generator) / 1200)
        if self.max_cents > 0:
            clips = low_pass(clips, (1 / ratio).clamp_max(1))  # or what is read faster would alias
        longest = math.ceil(clips.shape[1] * 2 ** (max(0.0, self.max_cents) / 1200)) + 2
        slow = stretch(clips, sample_rate, 1 / ratio, longest)
        return read_faster(slow, ratio, torch.zeros_like(ratio), clips.shape[1])
