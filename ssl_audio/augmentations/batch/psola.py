"""Pitch and formant shift of a batch, by pitch-synchronous overlap-add (Moulines and Charpentier, 1990).

It is the method of Praat's "Change gender", without a loop over clips or periods:

- Pitch marks are the points where a phase passes whole numbers. The phase is linear between pitch frames.
- Each output sample lies between two marks, so it is the sum of two windowed samples of the input.
- Only the offsets of the marks are looked up.
"""

import math
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ssl_audio.augmentations.base import check_range
from ssl_audio.augmentations.batch.base import BatchTransform, in_pieces, interpolate, ratio, running_sum
from ssl_audio.augmentations.batch.filters import low_pass
from ssl_audio.augmentations.batch.pitch import PitchTrack, track_pitch

# Marks per second in voiceless parts. These are copied in place, so the value does not matter.
VOICELESS_RATE = 150.0
# Limits of the new pitch in Hz.
LOWEST, HIGHEST = 50.0, 1200.0
# Largest distance, in hops, between a grain and the place to which it is copied.
MARGIN = 2
# Number of frames before and after each frame over which the measured phase is averaged.
STEADY = 4
# Distance, in periods, of a mark from the point where the energy is concentrated: formants ring after their pulse.
LATER = 0.1


class Phase(NamedTuple):
    """A phase that grows linearly between frames.

    Attributes:
        start: `(batch, frames)`, the phase at each frame, in periods.
        advance: `(batch, frames - 1)`, the periods from each frame to the next; positive.
        hop: samples between frames.
    """

    start: Tensor
    advance: Tensor
    hop: int

    @classmethod
    def of(cls, advance: Tensor, hop: int, first: Tensor | float = 0.0) -> "Phase":
        """The phase that starts at `first` and grows by `advance`."""
        return cls(first + running_sum(advance, 2**20) / 2**20, advance, hop)

    def at(self, time: Tensor) -> Tensor:
        """The phase at `(batch, n)` positions in samples."""
        frame = (time / self.hop).long().clamp(0, self.advance.shape[1] - 1)
        return self.start.gather(1, frame) + self.advance.gather(1, frame) * (time / self.hop - frame)

    def time_of(self, phase: Tensor) -> Tensor:
        """The positions, in fractions of samples, of `(batch, n)` phases. Outside the clip they are extrapolated."""
        frame = (torch.searchsorted(self.start, phase, right=True) - 1).clamp(0, self.advance.shape[1] - 1)
        return self.hop * (frame + (phase - self.start.gather(1, frame)) / self.advance.gather(1, frame))


def analysis_phase(track: PitchTrack, sample_rate: int) -> tuple[Phase, Tensor]:
    """A phase whose whole numbers mark the periods of the clip.

    Returns:
        The phase, and the pitch between frames in Hz, `(batch, frames - 1)`.
    """
    a, b = track.voiced[:, :-1], track.voiced[:, 1:]
    f, g = track.frequency[:, :-1], track.frequency[:, 1:]
    pitch = torch.where(a & b, (f + g) / 2, torch.where(a, f, torch.where(b, g, VOICELESS_RATE)))
    advance = pitch * (track.hop / sample_rate)
    # Follow the measured phase in each voiced part. Otherwise errors of the pitch add up and marks fall between pulses.
    ahead = steady(track, Phase.of(advance, track.hop).start)
    step = ahead.diff(dim=1)
    return Phase.of(advance + step - step.round(), track.hop, ahead[:, :1]), pitch


def steady(track: PitchTrack, phase: Tensor) -> Tensor:
    """`(batch, frames)`: the distance of the measured phase from `phase`, averaged over the voiced frames around each.

    (The phase of a single frame jumps where a period has two pulses.)
    """
    angle = 2 * math.pi * (track.phase - LATER - phase)
    vector = torch.stack([angle.cos(), angle.sin()]) * (track.strength * track.voiced)
    part = (~track.voiced).cumsum(1)  # equal within each voiced part
    width = 2 * STEADY + 1
    around = F.pad(vector, (STEADY, STEADY)).unfold(-1, width, 1)
    same = F.pad(part, (STEADY, STEADY), value=-1).unfold(-1, width, 1) == part[..., None]
    real, imaginary = (around * same).sum(-1)
    return torch.atan2(imaginary, real) / (2 * math.pi)


def masked_median(values: Tensor, mask: Tensor) -> Tensor:
    """The median over the columns where the mask is true, `(batch, n)` -> `(batch, 1)`; infinite if there are none."""
    ordered = torch.where(mask, values, torch.inf).sort(dim=1).values
    return ordered.gather(1, (mask.sum(1, keepdim=True) - 1).clamp_min(0) // 2)


def new_pitch(track: PitchTrack, pitch: Tensor, pitch_ratio: Tensor, range_ratio: Tensor) -> Tensor:
    """Praat's rule: multiply the median pitch by one ratio, and the distances from it by the other.

    Args:
        track: pitch of the clips.
        pitch: `(batch, frames - 1)`, pitch between frames in Hz.
        pitch_ratio, range_ratio: `(batch, 1)`.

    Returns:
        `(batch, frames - 1)` in Hz. A clip keeps its pitch if it has no voiced frame, or if its lowest pitch would fall
        below zero.
    """
    median = masked_median(track.frequency, track.voiced)
    lowest = torch.where(track.voiced, track.frequency, torch.inf).amin(1, keepdim=True)
    target = median * pitch_ratio
    possible = track.voiced.any(1, keepdim=True) & (target + (lowest * pitch_ratio - target) * range_ratio >= 0)
    shifted = (target + (pitch * pitch_ratio - target) * range_ratio).clamp(LOWEST, HIGHEST)
    between = track.voiced[:, :-1] | track.voiced[:, 1:]
    return torch.where(possible & between, shifted, pitch)


def overlap_add(
    clips: Tensor, sample_rate: int, pitch_ratio: Tensor, range_ratio: Tensor, formant_ratio: Tensor | None = None
) -> Tensor:
    """Change pitch and formants of a batch independently.

    Args:
        clips: `(batch, samples)` float32.
        sample_rate: in Hz.
        pitch_ratio, range_ratio: `(batch, 1)`, factors for the median pitch and for the distance from it.
        formant_ratio: `(batch, 1)`, factor for the formant frequencies. None: keep them.

    Returns:
        `(batch, samples)`. Voiceless parts are copied in place.
    """
    track = track_pitch(clips, sample_rate)
    source, pitch = analysis_phase(track, sample_rate)
    wanted = new_pitch(track, pitch, pitch_ratio, range_ratio)
    most = HIGHEST * track.hop / sample_rate
    advance = (source.advance * (wanted / pitch)).clamp_max(most)
    target = Phase.of(advance, track.hop, source.start[:, :1] % 1)

    # a mark for each whole number of the target phase, and for each of them the source mark that is nearest in time
    marks = math.ceil(most * advance.shape[1]) + 3
    numbers = torch.arange(marks, device=clips.device, dtype=clips.dtype)
    time = target.time_of(numbers.expand(len(clips), -1).contiguous())
    nearest = source.time_of(source.at(time).round())
    frame = (time / track.hop).round().long().clamp(0, track.voiced.shape[1] - 1)
    voiced = track.voiced.gather(1, frame)
    offset = torch.where(voiced, (nearest - time).round(), 0.0).clamp(-MARGIN * track.hop, MARGIN * track.hop).long()

    # a window is at most as long as a period of the input, at the speed at which it is read, and as one of the output
    read = pitch if formant_ratio is None else torch.where(wanted == VOICELESS_RATE, pitch, pitch * formant_ratio)
    squeeze = (read / wanted).clamp_min(1)
    parts = [clips, offset, target.start, target.advance, squeeze]
    if formant_ratio is not None:
        parts = [low_pass(clips, (1 / formant_ratio).clamp_max(1)), *parts[1:], time, formant_ratio]
    return in_pieces(partial(weave, track.hop), *parts)


def weave(
    hop: int,
    clips: Tensor,
    offset: Tensor,
    start: Tensor,
    advance: Tensor,
    squeeze: Tensor,
    time: Tensor | None = None,
    formant_ratio: Tensor | None = None,
) -> Tensor:
    """For each output sample, sum the windowed grains of the marks before and after it.

    Args:
        hop: samples between frames.
        clips: `(batch, samples)`.
        offset: `(batch, marks)`, samples from each output mark to the input that it copies; at most MARGIN hops.
        start, advance: `(batch, frames)` and `(batch, frames - 1)`, the phase of the output (see `Phase`).
        squeeze: `(batch, frames - 1)`, output period divided by window length; at least 1.
        time: `(batch, marks)`, positions of the output marks in samples; needed to change formants.
        formant_ratio: `(batch, 1)`, the speed at which grains are read.

    Returns:
        `(batch, samples)`.
    """
    samples = clips.shape[1]
    margin = (MARGIN + (0 if formant_ratio is None else 4)) * hop
    padded = F.pad(clips, (margin, advance.shape[1] * hop - samples + margin))
    inside = torch.arange(hop, device=clips.device, dtype=clips.dtype) / hop
    fraction = torch.addcmul(start[:, :-1, None], advance[..., None], inside)  # of the period, once the mark is off
    mark = fraction.floor()
    fraction -= mark
    mark = mark.long().flatten(1)
    here = torch.arange(margin, margin + mark.shape[1], device=clips.device)

    def grain(distance: Tensor) -> Tensor:
        window = (distance * squeeze[..., None]).clamp_max_(1).mul_(math.pi).cos_().add_(1).mul_(0.5).flatten(1)
        position = offset.gather(1, mark).add_(here)
        if formant_ratio is None or time is None:
            return window * padded.gather(1, position)
        further = (formant_ratio - 1) * (here - margin - time.gather(1, mark)).clamp(-3 * hop, 3 * hop)
        whole = further.floor()
        return interpolate(padded, (position + whole.long()).int(), further.sub_(whole)).mul_(window)

    result = grain(fraction)
    mark += 1
    return (result + grain(1 - fraction))[:, :samples]


class PitchShift(BatchTransform):
    """Change the pitch and its range, and keep the formants, by the rule of Praat.

    Args:
        min_ratio, max_ratio: the median pitch is multiplied by a ratio uniform in this range; with probability one
            half, it is divided by it.
        min_range_ratio, max_range_ratio: the same for the pitch range around the median.
        p: probability.
    """

    whole = True  # the loop over time is shared by all clips

    def __init__(
        self,
        min_ratio: float = 1.0,
        max_ratio: float = 1.3,
        min_range_ratio: float = 1.0,
        max_range_ratio: float = 1.5,
        p: float = 0.5,
    ) -> None:
        super().__init__(p)
        check_range("PitchShift ratio", min_ratio, max_ratio, at_least=0.1, at_most=10)
        check_range("PitchShift range_ratio", min_range_ratio, max_range_ratio, at_least=0.1, at_most=10)
        self.min_ratio, self.max_ratio = min_ratio, max_ratio
        self.min_range_ratio, self.max_range_ratio = min_range_ratio, max_range_ratio

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        pitch_ratio = ratio(clips, self.min_ratio, self.max_ratio, generator)
        range_ratio = ratio(clips, self.min_range_ratio, self.max_range_ratio, generator)
        return overlap_add(clips, sample_rate, pitch_ratio, range_ratio)


class FormantShift(BatchTransform):
    """Change the formant frequencies, and keep the pitch.

    Args:
        min_ratio, max_ratio: the formant frequencies are multiplied by a ratio uniform in this range; with probability
            one half, they are divided by it.
        p: probability.
    """

    whole = True  # the loop over time is shared by all clips

    def __init__(self, min_ratio: float = 1.0, max_ratio: float = 1.4, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("FormantShift ratio", min_ratio, max_ratio, at_least=0.5, at_most=2)
        self.min_ratio, self.max_ratio = min_ratio, max_ratio

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        keep = torch.ones(len(clips), 1, device=clips.device)
        return overlap_add(clips, sample_rate, keep, keep, ratio(clips, self.min_ratio, self.max_ratio, generator))
