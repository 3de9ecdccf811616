"""Time stretch, and pitch shift of any sound, by waveform similarity (WSOLA, Verhelst and Roelands, 1993).

sox uses this method for `tempo` and `pitch`. It needs no pitch analysis, so it handles chords and drums, which the
overlap-add of voices in `psola` cannot. The formants move with the pitch.
"""

import math
from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ssl_audio.augmentations.base import check_range
from ssl_audio.augmentations.batch.base import (
    BatchTransform,
    excerpts,
    in_pieces,
    interpolate,
    running_sum,
    uniform,
)
from ssl_audio.augmentations.batch.filters import low_pass
from ssl_audio.augmentations.batch.pitch import pool

# Similar to sox's settings for music: long grains with short fades.
HOP_SECONDS = 0.08
FADE_SECONDS = 0.015
TOLERANCE_SECONDS = 0.015
SEARCH_RATE = 4000  # rate of the search in Hz; a parabola through the best match gives a finer position


def grain_starts(clips: Tensor, sample_rate: int, rate: Tensor, speed: Tensor) -> tuple[Tensor, int, int]:
    """The positions in the input of the grains that make up the result.

    Args:
        clips: `(batch, samples)` float32.
        sample_rate: in Hz.
        rate: `(batch, 1)`, the tempo; above 1 is faster.
        speed: `(batch, 1)`, the speed at which a grain is read, which is the pitch ratio.

    Returns:
        starts: `(batch, grains)` int64, the first sample of each grain; possibly outside the clip.
        hop: samples from one grain of the result to the next.
        fade: samples over which each grain fades into the next.
    """
    step = max(1, round(sample_rate / SEARCH_RATE))
    hop, fade, reach = (
        max(1, round(seconds * sample_rate / step)) for seconds in (HOP_SECONDS, FADE_SECONDS, TOLERANCE_SECONDS)
    )
    count = -(-clips.shape[1] // (hop * step))
    starts = similar_grains(in_pieces(partial(pool, step=step), clips), hop, fade, reach, rate, speed, count)
    return (starts * step).round().long(), hop * step, fade * step


def similar_grains(low: Tensor, hop: int, fade: int, reach: int, rate: Tensor, speed: Tensor, count: int) -> Tensor:
    """Find a start for each grain that is near its time and where the input resembles the end of the previous grain.

    Args:
        low: `(batch, n)`, the clips at a low rate. All lengths below are in its samples.
        hop: distance from one grain of the result to the next.
        fade: length over which a grain must resemble the continuation of the previous one.
        reach: largest distance of a grain from its time.
        rate, speed: `(batch, 1)`; see `grain_starts`.
        count: number of grains.

    Returns:
        `(batch, count)` fractional positions, possibly outside the clip.
    """
    margin = fade + reach
    most = low.shape[1] + reach  # there is only silence beyond
    low = F.pad(low, (margin, 2 * margin))
    ideal = (torch.arange(count, device=low.device) * hop * rate).round().long().clamp_max(most)
    regions = excerpts(low, ideal + (margin - reach), fade + 2 * reach)
    energy = running_sum(regions.flatten(0, 1).square(), 2**30)
    energy = (energy[:, fade:] - energy[:, :-fade]).clamp_min(1).to(low.dtype).rsqrt_().unflatten(0, (-1, count))
    following = low.unfold(1, fade, 1)
    rows = torch.arange(len(low), device=low.device)
    onward = hop * speed.squeeze(1) + margin

    start = ideal[:, 0].to(low.dtype)
    starts = [start]
    for k in range(1, count):  # a loop over time, not over clips
        place = start + onward
        whole = place.round()
        wanted = following[rows, whole.long().clamp_max_(most + margin)]
        match = F.conv1d(regions[None, :, k], wanted[:, None], groups=len(low))[0].mul_(energy[:, k])
        best = match[:, 1:-1].argmax(1)
        left, middle, right = match.unfold(1, 3, 1)[rows, best].unbind(1)
        offset = ((right - left) / (2 * middle - left - right).clamp_min_(1e-9)).clamp_(-1, 1).mul_(0.5)
        start = (ideal[:, k] + (1 - reach) + best) + (offset + (place - whole))
        starts.append(start)
    return torch.stack(starts, dim=1)


def join(grains: Tensor, fade: int, samples: int) -> Tensor:
    """Concatenate grains, each fading into the next: `(batch, n, hop + fade)` -> `(batch, samples)`."""
    hop = grains.shape[2] - fade
    weight = 0.5 + 0.5 * torch.cos(math.pi * (torch.arange(fade, device=grains.device) + 0.5) / fade)
    grains[:, 1:, :fade].lerp_(grains[:, :-1, hop:], weight)
    return grains[..., :hop].flatten(1)[:, :samples]


class TimeStretch(BatchTransform):
    """Change the speed by a factor uniform in [min_rate, max_rate], keep the pitch, then cut or zero-pad the clip."""

    whole = True  # the loop over time is shared by all clips

    def __init__(self, min_rate: float = 0.8, max_rate: float = 1.2, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("TimeStretch rate", min_rate, max_rate, at_least=0.1, at_most=10)
        self.min_rate, self.max_rate = min_rate, max_rate

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        rate = uniform(clips, self.min_rate, self.max_rate, generator)
        starts, hop, fade = grain_starts(clips, sample_rate, rate, torch.ones_like(rate))

        def play(clips: Tensor, starts: Tensor) -> Tensor:
            samples = clips.shape[1]
            padded = F.pad(clips, (hop, hop + fade))
            return join(excerpts(padded, (starts + hop).clamp(0, samples + hop), hop + fade), fade, samples)

        return in_pieces(play, clips, starts)


class PitchShiftPolyphonic(BatchTransform):
    """Change the pitch of any sound by cents uniform in [min_cents, max_cents]. Its formants move too."""

    whole = True  # the loop over time is shared by all clips

    def __init__(self, min_cents: float = -700.0, max_cents: float = 700.0, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("PitchShiftPolyphonic cents", min_cents, max_cents, at_least=-2400, at_most=2400)
        self.min_cents, self.max_cents = min_cents, max_cents

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        ratio = 2 ** (uniform(clips, self.min_cents, self.max_cents, generator) / 1200)
        starts, hop, fade = grain_starts(clips, sample_rate, torch.ones_like(ratio), ratio)
        longest = math.ceil((hop + fade) * 2 ** (self.max_cents / 1200)) + 4  # samples that one grain reads
        time = torch.arange(hop + fade, device=clips.device, dtype=clips.dtype)
        if self.max_cents > 0:
            clips = low_pass(clips, (1 / ratio).clamp_max(1))  # clips that are read faster would alias otherwise

        def play(clips: Tensor, starts: Tensor, ratio: Tensor) -> Tensor:
            samples = clips.shape[1]
            further = time * ratio
            whole = further.floor()
            index = (starts + hop).clamp_(1, samples + hop).int()[..., None] + whole.int()[:, None]
            grains = interpolate(F.pad(clips, (hop, longest)), index, further.sub_(whole)[:, None])
            return join(grains, fade, samples)

        return in_pieces(play, clips, starts, ratio)
