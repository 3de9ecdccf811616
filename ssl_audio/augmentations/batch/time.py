"""Shifts, masks, echoes and changes of speed: transforms in time."""

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from ssl_audio.augmentations.base import check_range
from ssl_audio.augmentations.batch.base import BatchTransform, excerpts, positions, randint, read_faster, uniform
from ssl_audio.augmentations.batch.filters import low_pass
from ssl_audio.errors import InputError


class Shift(BatchTransform):
    """Rotate the clip by a fraction of its length, uniform in [min_fraction, max_fraction], with a fade at the seam.

    The defaults are those of the singer models' code, which uses audiomentations' `Shift` with rollover and fade.

    Args:
        min_fraction, max_fraction: above 0 is later; 1 is the whole clip.
        p: probability for each clip.
        fade_seconds: length of the fade before the seam, and of the one after it; 0 for none.
    """

    def __init__(
        self, min_fraction: float = -0.05, max_fraction: float = 0.2, p: float = 0.5, fade_seconds: float = 0.01
    ) -> None:
        super().__init__(p)
        check_range("Shift fraction", min_fraction, max_fraction)
        check_range("Shift fade_seconds", fade_seconds, fade_seconds, at_least=0)
        self.min_fraction, self.max_fraction, self.fade_seconds = min_fraction, max_fraction, fade_seconds

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        samples, place = clips.shape[1], positions(clips)
        shift = (uniform(clips, self.min_fraction, self.max_fraction, generator) * samples).round().long()
        rolled = clips.gather(1, (place - shift).remainder_(samples))
        length = int(self.fade_seconds * sample_rate)
        if length < 2:
            return rolled
        seam = shift.remainder(samples)
        distance = torch.where(place < seam, seam - 1 - place, place - seam) / (length - 1)
        return torch.where(seam > 0, rolled * _crossfade(distance.clamp_max(1)), rolled)


def _crossfade(x: Tensor) -> Tensor:
    """A gain that rises smoothly from 0 to 1 for x from 0 to 1; with its mirror image, the energy stays within 1 %.

    https://signalsmith-audio.co.uk/writing/2021/cheap-energy-crossfade/
    """
    product = x * (1 - x)
    return (product * (1 + 1.4186 * product) + x).square()


class TimeMask(BatchTransform):
    """Silence a span anywhere in the clip. Its length is uniform in [min_fraction, max_fraction] of the clip's."""

    def __init__(self, min_fraction: float = 0.0, max_fraction: float = 0.125, p: float = 0.5) -> None:
        super().__init__(p)
        check_range(f"{type(self).__name__} fraction", min_fraction, max_fraction, at_least=0, at_most=1)
        self.min_fraction, self.max_fraction = min_fraction, max_fraction

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        low, high = int(self.min_fraction * clips.shape[1]), int(self.max_fraction * clips.shape[1])
        return torch.where(span(clips, low, high, generator), self.fill(clips), clips)

    def fill(self, clips: Tensor) -> Tensor | float:
        """The value of the span: a number, or `(batch, 1)`."""
        return 0.0


class MeanMask(TimeMask):
    """Like `TimeMask`, with the clip's mean instead of silence (wav2rec)."""

    def fill(self, clips: Tensor) -> Tensor:
        return clips.mean(1, keepdim=True)


class TimeDropout(BatchTransform):
    """Silence a span anywhere in the clip. Its length is uniform in [min_seconds, max_seconds]."""

    def __init__(self, min_seconds: float = 0.0, max_seconds: float = 0.5, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("TimeDropout seconds", min_seconds, max_seconds, at_least=0)
        self.min_seconds, self.max_seconds = min_seconds, max_seconds

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        low, high = (min(clips.shape[1], int(s * sample_rate)) for s in (self.min_seconds, self.max_seconds))
        return clips.masked_fill(span(clips, low, high, generator), 0.0)


def span(clips: Tensor, low: int, high: int, generator: Generator | None) -> Tensor:
    """`(batch, samples)` bool: a span in each clip, of `low` to `high` samples, at a uniform position."""
    length = randint(clips, low, high, generator)
    room = clips.shape[1] - length + 1
    first = (uniform(clips, 0, 1, generator) * room).long().minimum(room - 1)
    here = positions(clips).int()  # 4 bytes instead of 8, which makes the comparisons faster
    return (here >= first.int()) & (here < (first + length).int())


class Delay(BatchTransform):
    """Mix the clip with one echo: `(x + volume * delayed x) / 2`.

    Args:
        min_milliseconds, max_milliseconds, step_milliseconds: the delay is drawn from this grid, with both ends.
        volume: amplitude of the echo.
        p: probability.
    """

    def __init__(
        self,
        min_milliseconds: int = 200,
        max_milliseconds: int = 450,
        step_milliseconds: int = 50,
        volume: float = 0.5,
        p: float = 0.5,
    ) -> None:
        super().__init__(p)
        check_range("Delay milliseconds", min_milliseconds, max_milliseconds, at_least=0)
        if step_milliseconds < 1:
            raise InputError(f"Delay: step_milliseconds must be at least 1, not {step_milliseconds}")
        self.min_milliseconds, self.max_milliseconds = min_milliseconds, max_milliseconds
        self.step_milliseconds, self.volume = step_milliseconds, volume

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        steps = (self.max_milliseconds - self.min_milliseconds) // self.step_milliseconds
        delay = self.min_milliseconds + self.step_milliseconds * randint(clips, 0, steps, generator)
        most = self.max_milliseconds * sample_rate // 1000
        start = most - (delay * sample_rate).div(1000, rounding_mode="floor")
        echo = excerpts(F.pad(clips, (most, 0)), start, clips.shape[1]).squeeze(1)
        return torch.add(clips, echo, alpha=self.volume).div_(2)


class Speed(BatchTransform):
    """Play the clip faster or slower, at one of the `rates`, which also changes the pitch.

    A result that is longer than the clip is cut at a random position. One that is shorter is padded with silence on
    both sides.

    Args:
        rates: rates, all equally likely; above 1 is faster. None: those of WaveBYOL.
        p: probability.
    """

    _rates: Tensor

    def __init__(self, rates: list[float] | None = None, p: float = 0.5) -> None:
        super().__init__(p)
        self.rates = [0.95, 0.93, 0.9, 0.85, 0.83, 0.8, 0.75, 0.6, 0.5] if rates is None else rates
        if not self.rates or min(self.rates) <= 0:
            raise InputError(f"Speed: rates must be positive numbers, not {self.rates}")
        self.register_buffer("_rates", torch.tensor(self.rates), persistent=False)

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        rates = self._rates.to(clips.device)  # a no-op where the module lives
        rate = rates[randint(clips, 0, len(self.rates) - 1, generator)]
        samples = clips.shape[1]
        spare = samples - samples * rate  # samples of the input that are not read; negative where silence is needed
        first = torch.where(spare > 0, uniform(clips, 0, 1, generator), 0.5) * spare
        if max(self.rates) > 1:
            clips = low_pass(clips, (1 / rate).clamp_max(1))
        return read_faster(clips, rate, first, samples)
