"""Resampling as a torch layer: differentiable, on the device of the audio, part of an exported model.

Use it for audio that arrives as a tensor. For files use `ssl_audio.audio`, whose soxr is better and faster.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.errors import InputError
from ssl_audio.frontends import Frontend

PUBLISHED_FILTER: dict[str, Any] = {"zero_crossings": 6, "rolloff": 0.99}
"""Arguments with which `Resample` is torchaudio's `Resample` with its defaults.

ssl-singer-identity puts that in front of its models for `input_sr`, and tests through it with `-du`. It lets more
images and aliases through than the default here; embeddings and figures that were made with it contain them.
"""

_LARGEST_KERNEL = 20_000_000  # weights of all filters; the smaller the common divisor of the rates, the more filters


class Resample(nn.Module):
    """Band-limited interpolation with a windowed sinc filter for each phase of the output.

    Smith, "Digital audio resampling", https://ccrma.stanford.edu/~jos/resample/.

    Args:
        from_rate, to_rate: sample rates in Hz.
        zero_crossings: zero crossings of the sinc on each side. A larger number makes the transition band narrower.
        rolloff: cut-off of the filter, as a fraction of the lower Nyquist frequency.

    Raises:
        InputError: a rate is not positive, or the filters would need too much memory.

    Example:
        >>> Resample(44100, 16000)(torch.randn(2, 44100)).shape
        torch.Size([2, 16000])
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
        cutoff = min(1.0, self._new / self._old) * rolloff  # as a fraction of the input's Nyquist frequency
        self._width = math.ceil(zero_crossings / cutoff)
        if self._new * (2 * self._width + self._old) > _LARGEST_KERNEL:
            raise InputError(
                f"resampling from {from_rate} to {to_rate} Hz inside the model needs too much memory; "
                "resample the audio first, for example with ssl_audio.audio.resample"
            )
        self.register_buffer("kernel", self._filters(cutoff), persistent=False)

    def _filters(self, cutoff: float) -> Tensor:
        """`(phases, 1, taps)`: for each phase of the output, a shifted sinc under a Hann window."""
        phase = torch.arange(self._new, dtype=torch.float64).unsqueeze(1) * self._old / self._new
        tap = torch.arange(-self._width, self._width + self._old, dtype=torch.float64)
        time = (tap - phase) * cutoff  # in zero crossings
        window = torch.cos(time.clamp(-self.zero_crossings, self.zero_crossings) * math.pi / self.zero_crossings / 2)
        return (torch.sinc(time) * window.square() * cutoff).float().unsqueeze(1)

    def samples_for(self, samples: int) -> int:
        """The length of the shortest input that gives `samples` samples."""
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
    """Resampling and a frontend, for audio at another rate than the frontend's.

    Args:
        frontend: a frontend for audio at `to_rate`.
        from_rate, to_rate: sample rates in Hz.
        zero_crossings, rolloff: see `Resample`.
    """

    def __init__(
        self, frontend: Frontend, from_rate: int, to_rate: int, zero_crossings: int = 32, rolloff: float = 0.97
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.from_rate = from_rate
        self.to_rate = to_rate
        self.zero_crossings = zero_crossings
        self.rolloff = rolloff
        self.resample = Resample(from_rate, to_rate, zero_crossings, rolloff)
        self.minimum_samples = self.resample.samples_for(frontend.minimum_samples)

    def samples_for(self, frames: int) -> int:
        return self.resample.samples_for(self.frontend.samples_for(frames))

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` at `from_rate` -> features."""
        return self.frontend(self.resample(waveforms))
