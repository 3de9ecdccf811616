"""Filters with different parameters for each clip, by Fourier transforms of the batch.

All filters have zero phase: they have the magnitude response of the filter in their name, and no delay.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from torch import Generator, Tensor

from ssl_audio.augmentations.base import check_range
from ssl_audio.augmentations.batch.base import (
    BatchTransform,
    fast_length,
    in_pieces,
    rows_in_a_piece,
    split_evenly,
    uniform,
)
from ssl_audio.errors import InputError


def filter_by(clips: Tensor, response: Tensor, size: int) -> Tensor:
    """Multiply the spectrum of `(batch, samples)` clips by `(batch, size // 2 + 1)` real or complex gains."""
    return fourier(torch.fft.irfft, fourier(torch.fft.rfft, clips, size).mul_(response), size)[:, : clips.shape[1]]


def fourier(transform: Callable[..., Tensor], rows: Tensor, size: int) -> Tensor:
    """`transform(rows, n=size)`; a single row is computed as two, because on the CPU that is twice as fast."""
    if len(rows) == 1 and rows.device.type == "cpu":
        return transform(rows.expand(2, -1), n=size)[:1]
    return transform(rows, n=size)


def padded_size(clips: Tensor, sample_rate: int, seconds: float = 0.1) -> int:
    """A length for the Fourier transform with room for the tail of a filter, which would wrap around to the start."""
    return fast_length(clips.shape[1] + int(seconds * sample_rate))


def bins(size: int, clips: Tensor) -> Tensor:
    """`(size // 2 + 1,)` frequencies as fractions of the sample rate, from 0 to 0.5."""
    return torch.fft.rfftfreq(size, device=clips.device)


def low_pass(clips: Tensor, fraction: Tensor) -> Tensor:
    """Remove frequencies that would alias when samples are read faster.

    On the CPU, clips with a fraction of 1 are not computed.

    Args:
        clips: `(batch, samples)`.
        fraction: `(batch, 1)`, the cut-off as a fraction of half the sample rate.
    """
    size = fast_length(clips.shape[1])
    frequency = bins(size, clips)

    def apply(clips: Tensor, fraction: Tensor) -> Tensor:
        return filter_by(clips, (frequency <= 0.5 * fraction).to(clips.dtype), size)

    if clips.device.type != "cpu":
        return in_pieces(apply, clips, fraction)
    clips = clips.clone()
    for piece in split_evenly((fraction < 1).squeeze(1).nonzero().squeeze(1), rows_in_a_piece(clips)):
        clips[piece] = apply(clips.index_select(0, piece), fraction[piece])
    return clips


def butterworth(frequency: Tensor, cutoff: Tensor, order: int, high: bool) -> Tensor:
    """The magnitude response of a Butterworth filter, which is -3 dB at the cut-off."""
    # the limit keeps its power 2 * order within float32
    most = min(1e4, 1e19 ** (1 / order))
    square = (cutoff / frequency.clamp_min(1e-9) if high else frequency / cutoff).clamp_max_(most).square_()
    power = None
    while order:  # by squaring: 24 is 16 + 8
        if order % 2:
            power = square.clone() if power is None else power.mul_(square)
        order //= 2
        if order:
            square = square.square_()
    return cast(Tensor, power).add_(1).rsqrt_()


class _CutOff(BatchTransform):
    """The base class of high- and low-pass: a cut-off uniform in [min_cutoff, max_cutoff] Hz."""

    high: bool

    def __init__(self, min_cutoff: float, max_cutoff: float, order: int, p: float) -> None:
        super().__init__(p)
        check_range(f"{type(self).__name__} cut-off", min_cutoff, max_cutoff, at_least=1)
        if order < 1:
            raise InputError(f"{type(self).__name__}: order must be at least 1, not {order}")
        self.min_cutoff, self.max_cutoff, self.order = min_cutoff, max_cutoff, order

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        cutoff = uniform(clips, self.min_cutoff, self.max_cutoff, generator) / sample_rate
        size = padded_size(clips, sample_rate)
        return filter_by(clips, butterworth(bins(size, clips), cutoff, self.order, self.high), size)


class HighPass(_CutOff):
    """Attenuate frequencies below a cut-off uniform in [min_cutoff, max_cutoff] Hz, by `6 * order` dB per octave."""

    high = True

    def __init__(self, min_cutoff: float = 200.0, max_cutoff: float = 1200.0, order: int = 4, p: float = 0.5) -> None:
        super().__init__(min_cutoff, max_cutoff, order, p)


class LowPass(_CutOff):
    """Attenuate frequencies above a cut-off uniform in [min_cutoff, max_cutoff] Hz, by `6 * order` dB per octave."""

    high = False

    def __init__(self, min_cutoff: float = 2200.0, max_cutoff: float = 4000.0, order: int = 4, p: float = 0.5) -> None:
        super().__init__(min_cutoff, max_cutoff, order, p)


class BandPass(BatchTransform):
    """Keep a band around a centre uniform in [min_center, max_center] Hz.

    Args:
        min_center, max_center: in Hz.
        min_bandwidth, max_bandwidth: the distance of the two cut-offs is uniform between these fractions of the centre;
            below 2.
        order: both sides fall by `6 * order` dB per octave.
        p: probability.
    """

    def __init__(
        self,
        min_center: float = 200.0,
        max_center: float = 4000.0,
        min_bandwidth: float = 0.5,
        max_bandwidth: float = 1.99,
        order: int = 2,
        p: float = 0.5,
    ) -> None:
        super().__init__(p)
        check_range("BandPass centre", min_center, max_center, at_least=1)
        check_range("BandPass bandwidth", min_bandwidth, max_bandwidth, at_least=0.01, at_most=1.999)
        self.min_center, self.max_center = min_center, max_center
        self.min_bandwidth, self.max_bandwidth, self.order = min_bandwidth, max_bandwidth, order

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        center = uniform(clips, self.min_center, self.max_center, generator) / sample_rate
        half = uniform(clips, self.min_bandwidth, self.max_bandwidth, generator) / 2
        size = padded_size(clips, sample_rate)
        frequency = bins(size, clips)
        response = butterworth(frequency, center * (1 - half), self.order, high=True)
        response *= butterworth(frequency, center * (1 + half), self.order, high=False)
        return filter_by(clips, response, size)


class SevenBandEQ(BatchTransform):
    """Apply a low shelf, five peaks and a high shelf, each with a gain uniform in [min_gain_db, max_gain_db] decibels.

    The centres (uniform in mel), Q and the magnitude responses are those of audiomentations, which follows the Audio EQ
    Cookbook (https://www.w3.org/TR/audio-eq-cookbook/). The phase differs: it is zero here.
    """

    BANDS = (
        ("low_shelf", 42, 95),
        ("peak", 91, 204),
        ("peak", 196, 441),
        ("peak", 421, 948),
        ("peak", 909, 2045),
        ("peak", 1957, 4404),
        ("high_shelf", 4216, 9486),
    )

    def __init__(self, min_gain_db: float = -2.0, max_gain_db: float = 1.0, p: float = 0.5) -> None:
        super().__init__(p)
        check_range("SevenBandEQ decibels", min_gain_db, max_gain_db)
        self.min_gain_db, self.max_gain_db = min_gain_db, max_gain_db

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        size = padded_size(clips, sample_rate)
        analog = torch.tan(math.pi * bins(size, clips).clamp_max(0.4999))  # frequency after the bilinear transform
        power = clips.new_ones(len(clips), len(analog))
        for kind, low, high in self.BANDS:
            mel = uniform(clips, math.log10(1 + low / 700), math.log10(1 + high / 700), generator)
            center = torch.tan(math.pi * (700 * (10**mel - 1) / sample_rate).clamp_max(0.4999))
            gain = 10 ** (uniform(clips, self.min_gain_db, self.max_gain_db, generator) / 40)
            q = uniform(clips, *((0.5, 5.0) if kind == "peak" else (0.1, 0.999)), generator)
            power *= equalizer_power(analog / center, gain, q, kind)
        return filter_by(clips, power.sqrt_(), size)


def equalizer_power(frequency: Tensor, gain: Tensor, q: Tensor, kind: str) -> Tensor:
    """The squared magnitude `|H(jw)|^2` of the analog prototypes in the Audio EQ Cookbook.

    Args:
        frequency: `(batch, bins)`, w divided by the centre.
        gain: `(batch, 1)`, square root of the amplitude gain.
        q: `(batch, 1)`, quality factor.
        kind: "peak", "low_shelf" or "high_shelf".

    Returns:
        `(batch, bins)`.
    """
    w2 = frequency.square()
    if kind == "peak":
        middle = (1 - w2).square_()
        return torch.addcmul(middle, w2, (gain / q).square()) / middle.addcmul_(w2, 1 / (gain * q).square())
    slope = gain / q.square()
    plain, scaled = (gain - w2).square_().addcmul_(w2, slope), (1 - gain * w2).square_().addcmul_(w2, slope)
    return (plain.div_(scaled) if kind == "low_shelf" else scaled.div_(plain)).mul_(gain.square())
