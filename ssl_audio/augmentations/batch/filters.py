"""Filters, each clip with its own, by one Fourier transform of the batch.

All are zero-phase: they have the magnitude response of the filter they are named after, and delay nothing.
"""

import math
from collections.abc import Callable

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
    """Multiply the spectrum of (batch, samples) by (batch, size // 2 + 1) real or complex gains."""
    return fourier(torch.fft.irfft, fourier(torch.fft.rfft, clips, size).mul_(response), size)[:, : clips.shape[1]]


def fourier(transform: Callable[..., Tensor], rows: Tensor, size: int) -> Tensor:
    """`transform(rows, n=size)`. On the CPU a single row would take twice as long as two of them."""
    if len(rows) == 1 and rows.device.type == "cpu":
        return transform(rows.expand(2, -1), n=size)[:1]
    return transform(rows, n=size)


def padded_size(clips: Tensor, sample_rate: int, seconds: float = 0.1) -> int:
    """A length for the Fourier transform with room for what rings on, so that it does not come in at the start."""
    return fast_length(clips.shape[1] + int(seconds * sample_rate))


def bins(size: int, clips: Tensor) -> Tensor:
    """(size // 2 + 1,) frequencies as shares of the sample rate, 0 to .5."""
    return torch.fft.rfftfreq(size, device=clips.device)


def low_pass(clips: Tensor, share: Tensor) -> Tensor:
    """Remove what lies above a (batch, 1) share of half the sample rate: before samples are read faster.

    On the CPU clips that keep everything cost nothing.
    """
    size = fast_length(clips.shape[1])
    frequency = bins(size, clips)

    def apply(clips: Tensor, share: Tensor) -> Tensor:
        return filter_by(clips, (frequency <= 0.5 * share).to(clips.dtype), size)

    if clips.device.type != "cpu":
        return in_pieces(apply, clips, share)
    clips = clips.clone()
    for piece in split_evenly((share < 1).squeeze(1).nonzero().squeeze(1), rows_in_a_piece(clips)):
        clips[piece] = apply(clips.index_select(0, piece), share[piece])
    return clips


def butterworth(frequency: Tensor, cutoff: Tensor, order: int, high: bool) -> Tensor:
    """The magnitude of a Butterworth filter, 1 / sqrt(2) (-3 dB) at the cut-off."""
    square = (cutoff / frequency.clamp_min(1e-9) if high else frequency / cutoff).clamp_max_(1e4).square_()
    power = square.clone()
    for _ in range(order - 1):
        power *= square
    return power.add_(1).rsqrt_()


class _CutOff(BatchTransform):
    """What high- and low-pass share: a cut-off uniform in [min_cutoff, max_cutoff] Hz, 6 dB an octave per `order`."""

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
    """Weaken what lies below a cut-off uniform in [min_cutoff, max_cutoff] Hz, by 6 dB an octave per `order`."""

    high = True

    def __init__(self, min_cutoff: float = 200.0, max_cutoff: float = 1200.0, order: int = 4, p: float = 0.5) -> None:
        super().__init__(min_cutoff, max_cutoff, order, p)


class LowPass(_CutOff):
    """Weaken what lies above a cut-off uniform in [min_cutoff, max_cutoff] Hz, by 6 dB an octave per `order`."""

    high = False

    def __init__(self, min_cutoff: float = 2200.0, max_cutoff: float = 4000.0, order: int = 4, p: float = 0.5) -> None:
        super().__init__(min_cutoff, max_cutoff, order, p)


class BandPass(BatchTransform):
    """Keep a band around a centre uniform in [min_center, max_center] Hz.

    Args:
        min_bandwidth, max_bandwidth: width between the two cut-offs as a share of the centre, uniform; below 2.
        order: 6 dB an octave each, on both sides.
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
    """Low shelf, five peaks and high shelf, each gain uniform in [min_gain_db, max_gain_db] decibels.

    Centres (uniform in mel), Q and the responses are audiomentations' (W3C's Audio EQ Cookbook), the phase is not.
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
        analog = torch.tan(math.pi * bins(size, clips).clamp_max(0.4999))  # the bilinear transform's frequency
        power = clips.new_ones(len(clips), len(analog))
        for kind, low, high in self.BANDS:
            mel = uniform(clips, math.log10(1 + low / 700), math.log10(1 + high / 700), generator)
            center = torch.tan(math.pi * (700 * (10**mel - 1) / sample_rate).clamp_max(0.4999))
            gain = 10 ** (uniform(clips, self.min_gain_db, self.max_gain_db, generator) / 40)
            q = uniform(clips, *((0.5, 5.0) if kind == "peak" else (0.1, 0.999)), generator)
            power *= equalizer_power(analog / center, gain, q, kind)
        return filter_by(clips, power.sqrt_(), size)


def equalizer_power(frequency: Tensor, gain: Tensor, q: Tensor, kind: str) -> Tensor:
    """|H(jw)|^2 of the Audio EQ Cookbook's analog prototypes.

    Args:
        frequency: w over the centre, (batch, bins).
        gain: (batch, 1) square root of the amplitude gain.
        q: (batch, 1) quality.
        kind: "peak", "low_shelf" or "high_shelf".
    """
    w2 = frequency.square()
    if kind == "peak":
        middle = (1 - w2).square_()
        return torch.addcmul(middle, w2, (gain / q).square()) / middle.addcmul_(w2, 1 / (gain * q).square())
    slope = gain / q.square()
    plain, scaled = (gain - w2).square_().addcmul_(w2, slope), (1 - gain * w2).square_().addcmul_(w2, slope)
    return (plain.div_(scaled) if kind == "low_shelf" else scaled.div_(plain)).mul_(gain.square())
