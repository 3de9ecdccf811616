"""Resampling as a torch layer: differentiable, on the audio's device, part of an exported model.

For files use `ssl_audio.audio`, whose soxr is better and quicker; this is for audio that arrives as a tensor.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.errors import InputError
from ssl_audio.frontends import Frontend

_LARGEST_KERNEL = 20_000_000  # weights; rates with a small common divisor need one filter for each output phase


class Resample(nn.Module):
    """Band-limited interpolation with a windowed sinc, one filter for each phase of the output (Smith,
    "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/).

    Args:
        from_rate, to_rate: in Hz.
        zero_crossings: of the sinc on each side; more of them make the transition band narrower.
        rolloff: the filter's edge as a share of the lower Nyquist frequency.

    Raises:
        InputError: rates that are not positive, or that share so small a divisor that the filters fill the memory.
    """

    kernel: Tensor

    def __init__(self, from_rate: int, to_rate: int, zero_crossings: int = 32, rolloff: float = 0.97) -> None:
        super().__init__()
        if from_rate < 1 or to_rate < 1:
            raise InputError(f"cannot resample from {from_rate} to {to_rate} Hz; both rates must be above 0")
        self.from_rate = from_rate
        self.to_rate = to_rate
        self.zero_crossings = zero_crossings
        self.rolloff = rolloff
        divisor = math.gcd(from_rate, to_rate)
        self._old, self._new = from_rate // divisor, to_rate // divisor
        cutoff = min(1.0, self._new / self._old) * rolloff  # as a share of the input's Nyquist frequency
        self._width = math.ceil(zero_crossings / cutoff)
        if self._new * (2 * self._width + self._old) > _LARGEST_KERNEL:
            raise InputError(
                f"resampling from {from_rate} to {to_rate} Hz inside the model needs filters too large for memory; "
                "resample the audio before, for example with ssl_audio.audio.resample"
            )
        self.register_buffer("kernel", self._filters(cutoff), persistent=False)

    def _filters(self, cutoff: float) -> Tensor:
        """`(phases, 1, taps)`: the sinc under a Hann window, shifted by each phase of the output."""
        phase = torch.arange(self._new, dtype=torch.float64).unsqueeze(1) * self._old / self._new
        tap = torch.arange(-self._width, self._width + self._old, dtype=torch.float64)
        time = (tap - phase) * cutoff  # in zero crossings
        window = torch.cos(time.clamp(-self.zero_crossings, self.zero_crossings) * math.pi / self.zero_crossings / 2)
        return (torch.sinc(time) * window.square() * cutoff).float().unsqueeze(1)

    def samples_for(self, samples: int) -> int:
        """The shortest input that gives so many samples."""
        return (samples - 1) * self._old // self._new + 1

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, ceil(samples * to_rate / from_rate))`."""
        if self._old == self._new:
            return waveforms
        length = (waveforms.shape[-1] * self._new + self._old - 1) // self._old
        padded = F.pad(waveforms.unsqueeze(1), (self._width, self._width + self._old))
        phases = F.conv1d(padded, self.kernel.to(waveforms.dtype), stride=self._old)
        return phases.transpose(1, 2).flatten(1)[:, :length]


class ResampledFrontend(Frontend):
    """A frontend for audio at another rate than it was made for.

    Args:
        frontend: takes audio at `to_rate`.
        from_rate, to_rate: in Hz.
    """

    def __init__(self, frontend: Frontend, from_rate: int, to_rate: int) -> None:
        super().__init__()
        self.frontend = frontend
        self.from_rate = from_rate
        self.to_rate = to_rate
        self.resample = Resample(from_rate, to_rate)
        self.minimum_samples = self.resample.samples_for(frontend.minimum_samples)

    def samples_for(self, frames: int) -> int:
        return self.resample.samples_for(self.frontend.samples_for(frames))

    def forward(self, waveforms: Tensor) -> Tensor:
        return self.frontend(self.resample(waveforms))
