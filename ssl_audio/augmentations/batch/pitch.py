"""The pitch of a batch of clips over time, by autocorrelation and a best path, as in Praat.

Boersma, "Accurate short-term analysis of the fundamental frequency and the harmonics-to-noise ratio of a sampled
sound", 1993, with Praat's defaults. The analysis runs at about 8 kHz, which is enough for pitch.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_audio.augmentations.batch.base import fast_length

MINIMUM_PITCH = 75.0
MAXIMUM_PITCH = 600.0
PERIODS_PER_WINDOW = 3.0
CANDIDATES = 6
VOICING_THRESHOLD = 0.45
SILENCE_THRESHOLD = 0.03
OCTAVE_COST = 0.01
OCTAVE_JUMP_COST = 0.35
VOICING_COST = 0.14
LOUDEST = 1e6  # larger samples count as silence, because their squares may overflow; full scale is 1


class PitchTrack(NamedTuple):
    """Pitch at frames with the centres 0, hop, 2 hop, ... in samples. The last one is at or after the end of the clip.

    Attributes:
        frequency: `(batch, frames)` in Hz; undefined where not voiced.
        voiced: `(batch, frames)` bool.
        phase: `(batch, frames)` in periods. It is a whole number where the energy of a period is concentrated, which is
            a good place for a pitch mark.
        strength: `(batch, frames)`, how concentrated the energy is.
        hop: samples between frames.
    """

    frequency: Tensor
    voiced: Tensor
    phase: Tensor
    strength: Tensor
    hop: int


def track_pitch(clips: Tensor, sample_rate: int) -> PitchTrack:
    """Track the pitch between 75 and 600 Hz.

    Args:
        clips: `(batch, samples)` float32.
        sample_rate: in Hz.
    """
    step = max(1, round(sample_rate / 8000))
    rate = sample_rate / step
    low = pool(clips, step)
    width = 2 * round(PERIODS_PER_WINDOW / MINIMUM_PITCH * rate / 2)
    hop = round(0.8 / MINIMUM_PITCH * rate)
    count = -(-clips.shape[1] // (hop * step)) + 1
    padded = F.pad(low, (width // 2, max(0, (count - 1) * hop + width // 2 - low.shape[1])))
    frames = padded.unfold(1, width, hop)[:, :count]
    frames = frames - frames.mean(-1, keepdim=True)
    window = torch.hann_window(width, periodic=False, device=clips.device)

    windowed = frames * window
    frequency, strength = candidates(windowed, window, rate)
    loudness = frames.abs().amax(-1) / low.abs().amax(-1, keepdim=True).clamp_min(1e-9)
    silence = (2 - loudness * (1 + VOICING_THRESHOLD) / SILENCE_THRESHOLD).clamp_min(0)
    frequency, voiced = best_path(frequency, strength, VOICING_THRESHOLD + silence, hop / rate)
    return PitchTrack(frequency, voiced, *energy_phase(windowed, frequency, rate), hop * step)


def pool(values: Tensor, step: int) -> Tensor:
    """Means over `step` columns each: `(batch, n)` -> `(batch, ceil(n / step))`.

    Values that are NaN, infinite or above `LOUDEST` become 0, so that no index is computed from them. An index outside
    its tensor ends the program; on a GPU, it also ends all later work of the process.
    """
    values = F.pad(values, (0, -values.shape[1] % step))
    if step > 1:
        weight = values.new_full((step,), 1 / step)  # a product is twice as fast as a mean over few columns
        values = torch.mv(values.reshape(-1, step), weight).view(len(values), -1)
    return torch.where(values.abs() < LOUDEST, values, 0.0)


def candidates(frames: Tensor, window: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """The strongest peaks of each frame's autocorrelation.

    Args:
        frames: `(batch, frames, width)`, windowed.
        window: `(width,)`.
        rate: in Hz.

    Returns:
        Frequencies in Hz and strengths, `(batch, frames, CANDIDATES)` each. The strength is -1 where a frame has fewer
        peaks.
    """
    width = frames.shape[-1]
    longest = math.ceil(rate / MINIMUM_PITCH) + 2
    size = fast_length(width + longest)

    def autocorrelation(x: Tensor) -> Tensor:
        # an inverse transform of twice the size interpolates: lags are multiples of half a sample
        spectrum = torch.fft.rfft(x, n=size)
        power = spectrum.real.square() + spectrum.imag.square()
        return torch.fft.irfft(power, n=2 * size)[..., : 2 * longest]

    r = autocorrelation(frames) / autocorrelation(window)
    r = r / r[..., :1].clamp_min(1e-12) * (r[..., :1] > 1e-10)
    first, last = math.floor(2 * rate / MAXIMUM_PITCH), math.ceil(2 * rate / MINIMUM_PITCH)
    lags = torch.arange(first, last + 1, device=frames.device)
    before, here, after = r[..., first - 1 : last], r[..., first : last + 1], r[..., first + 1 : last + 2]
    is_peak = (here > before) & (here >= after) & (here > VOICING_THRESHOLD / 2)
    score = torch.where(is_peak, here - OCTAVE_COST * torch.log2(lags * (MINIMUM_PITCH / 2 / rate)), -1.0)
    strength, index = score.topk(CANDIDATES, dim=-1)
    left, middle, right = before.gather(-1, index), here.gather(-1, index), after.gather(-1, index)
    offset = (0.5 * (right - left) / (2 * middle - left - right).clamp_min(1e-9)).clamp(-0.5, 0.5)
    return 2 * rate / (lags[index] + offset), strength


def best_path(frequency: Tensor, strength: Tensor, unvoiced: Tensor, seconds: float) -> tuple[Tensor, Tensor]:
    """The best path through the candidates, by the Viterbi algorithm.

    The path prefers strong candidates, few octave jumps, and few changes of voicing.

    Args:
        frequency, strength: `(batch, frames, candidates)`.
        unvoiced: `(batch, frames)`, the strength of "no pitch".
        seconds: time between frames.

    Returns:
        The frequencies in Hz, `(batch, frames)`; in unvoiced frames, that of a candidate.
        Whether each frame is voiced, `(batch, frames)` bool.
    """
    correction = 0.01 / seconds
    count, k = frequency.shape[1:]
    pitch = torch.log2(frequency)
    jump = F.pad(OCTAVE_JUMP_COST * (pitch[:, :-1, :, None] - pitch[:, 1:, None, :]).abs(), (0, 1, 0, 1), value=-1.0)
    cost = correction * torch.where(jump < 0, VOICING_COST, jump)
    cost[..., k, k] = 0
    gain = torch.cat([strength, unvoiced[..., None]], dim=-1)
    total, came_from = gain[:, 0], []
    for frame in range(1, count):  # a loop over time, not over clips; each step handles a few numbers per clip
        best, origin = (total[:, :, None] - cost[:, frame - 1]).max(dim=1)
        came_from.append(origin)
        total = best + gain[:, frame]
    state = total.argmax(dim=1, keepdim=True)
    path = [state]
    for origin in reversed(came_from):
        state = origin.gather(1, state)
        path.append(state)
    chosen = torch.stack(path[::-1], dim=1).squeeze(2)
    voiced = chosen < k
    return frequency.gather(2, chosen.clamp_max(k - 1)[..., None]).squeeze(2), voiced


def energy_phase(frames: Tensor, frequency: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """The phase of each frame's centre in its period. Phase 0 is where the energy is concentrated.

    It is the phase, at the pitch frequency, of the power of the larger half wave. A pulse train has phase 0 at its
    pulses, a sine at its crests.

    Args:
        frames: `(batch, frames, width)`, windowed.
        frequency: `(batch, frames)` in Hz.
        rate: in Hz.

    Returns:
        The phase in [-0.5, 0.5], and how concentrated the energy is, `(batch, frames)` each.
    """
    high, low = frames.amax((1, 2), keepdim=True), -frames.amin((1, 2), keepdim=True)
    energy = (frames * torch.where(high > low, 1.0, -1.0)).relu().square()
    energy = energy.unflatten(-1, (-1, 2)).sum(-1)  # half the rate is enough for the lowest harmonic
    time = (2 * torch.arange(energy.shape[-1], device=frames.device) + 0.5 - frames.shape[-1] // 2) / rate
    angle = 2 * math.pi * frequency[..., None] * time
    real, imaginary = (energy * angle.cos()).sum(-1), -(energy * angle.sin()).sum(-1)
    return torch.atan2(imaginary, real) / (2 * math.pi), torch.hypot(real, imaginary)
