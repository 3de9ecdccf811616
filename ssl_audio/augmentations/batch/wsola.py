"""Time stretch, and pitch shift of anything that sounds, by waveform similarity (WSOLA, Verhelst and Roelands, 1993).

What sox does for `tempo` and `pitch`. Unlike the overlap-add for voices in `psola` it needs no pitch, so it takes
chords and drums; formants move with the pitch.
"""

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ssl_audio.augmentations.base import check_range
from ssl_audio.augmentations.batch.base import BatchTransform, in_pieces, read_faster, uniform
from ssl_audio.augmentations.batch.filters import low_pass

HOP_SECONDS = 0.03
TOLERANCE_SECONDS = 0.012
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
    hop = max(1, round(HOP_SECONDS * sample_rate / step)) * step
    count = -(-samples // hop) + 1
    starts = similar_grains(clips, hop, step, max(1, round(TOLERANCE_SECONDS * sample_rate / step)), rate, count)
    # grain k spans two hops from (k - 1) hop on, so each output sample is in the fade from a grain to the next
    margin = 2 * hop
    inside = torch.arange(hop, device=clips.device)
    fade = 0.5 + 0.5 * torch.cos(math.pi * inside / hop)

    def join(clips: Tensor, starts: Tensor) -> Tensor:
        padded = F.pad(clips, (margin, margin + hop))
        starts = (starts + margin).clamp(0, padded.shape[1] - 2 * hop)[..., None]
        before = padded.gather(1, (starts[:, :-1] + (hop + inside)).flatten(1)).unflatten(1, (-1, hop))
        after = padded.gather(1, (starts[:, 1:] + inside).flatten(1)).unflatten(1, (-1, hop))
        return torch.lerp(after, before, fade).flatten(1)[:, :samples]

    return in_pieces(join, clips, starts)


def similar_grains(clips: Tensor, hop: int, step: int, reach: int, rate: Tensor, count: int) -> Tensor:
    """Where each grain of the result starts in the input: near its time, and where it continues the grain before.

    Args:
        clips: (batch, samples).
        hop: samples between grains of the result, a multiple of `step`; a grain has two hops.
        step: samples that are averaged for the search.
        reach: how far a grain may move, in steps.
        rate: (batch, 1).
        count: grains.

    Returns:
        (batch, count) int64 sample positions, possibly outside the clip.
    """
    low = F.avg_pool1d(clips, step, ceil_mode=True) if step > 1 else clips
    width = hop // step  # what fades into the grain before
    margin = 2 * width + reach
    low = F.pad(low, (margin, 2 * margin))
    last = low.shape[1] - 1
    # grain k of the result belongs to the input around (k - 1) hop rate
    ideal = ((torch.arange(-1, count - 1, device=clips.device) * hop * rate) / step).round().long()
    window = torch.arange(width + 2 * reach, device=clips.device) + (margin - reach)
    regions = low.gather(1, (ideal[..., None] + window).clamp_(0, last).flatten(1)).unflatten(1, (count, -1))
    energy = F.pad(regions.square().cumsum(2), (1, 0))
    norm = (energy[..., width:] - energy[..., :-width]).clamp_min(1e-10).rsqrt()
    offsets = torch.arange(width, device=clips.device) + (margin + width)

    start = ideal[:, :1].to(clips.dtype)
    starts = [start]
    for k in range(1, count):  # over time, not over clips
        following = low.gather(1, (start.round().long() + offsets).clamp_(0, last))
        match = F.conv1d(regions[None, :, k], following[:, None], groups=len(clips))[0] * norm[:, k]
        best = match[:, 1:-1].argmax(1, keepdim=True) + 1
        left, middle, right = (match.gather(1, best + i) for i in (-1, 0, 1))
        offset = (0.5 * (right - left) / (2 * middle - left - right).clamp_min(1e-9)).clamp(-0.5, 0.5)
        start = ideal[:, k : k + 1] + (best - reach) + offset
        starts.append(start)
    return (torch.cat(starts, dim=1) * step).round().long()


class TimeStretch(BatchTransform):
    """Play at a rate uniform in [min_rate, max_rate] without changing the pitch; cut or zero-padded to its length."""

    def __init__(self, min_rate: float = 0.8, max_rate: float = 1.2, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("TimeStretch rate", min_rate, max_rate, at_least=0.1, at_most=10)
        self.min_rate, self.max_rate = min_rate, max_rate

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        rate = uniform(clips, self.min_rate, self.max_rate, generator)
        return stretch(clips, sample_rate, rate, clips.shape[1])


class PitchShiftPolyphonic(BatchTransform):
    """Move the pitch of any sound, duration kept, by cents uniform in [min_cents, max_cents]; formants move along."""

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
