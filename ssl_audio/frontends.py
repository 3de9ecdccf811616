"""Waveform `(batch, samples)` -> features, on the waveform's device and differentiable.

Mel frontends give `(batch, bands, frames)` with `1 + samples // hop_length` frames; `Waveform` gives the samples back,
for encoders that read audio as it is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.errors import InputError

NORMALIZATIONS = ("clip_max", "clip_mean", "band", "none")


class Frontend(nn.Module):
    """What every frontend promises.

    Attributes:
        minimum_samples: the shortest clip that it takes.
    """

    minimum_samples: int = 1

    def samples_for(self, frames: int) -> int:
        """The shortest clip, in samples, that gives so many frames. For raw waveforms a frame is a sample."""
        return max(self.minimum_samples, frames)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> features."""
        raise NotImplementedError


class MelSpectrogram(Frontend):
    """Mel spectrogram, equal to `nnAudio.features.MelSpectrogram` and computed by FFT instead of convolution.

    Periodic Hann window, frames centred on multiples of the hop with reflected edges, Slaney mel bank normalised to
    equal area. The bank is computed by nnAudio's own function, so that it is the same to the bit. The result is float32
    also under autocast: a power spectrum spans more decades than half precision has.

    Args:
        sample_rate: the rate in Hz for which the mel bank is laid out. It is **not** the rate of the audio: the
            published singer models put the bank for 22,050 Hz (nnAudio's default) on audio at 44,100 Hz, and their
            weights need exactly that. Every band is then at twice its nominal frequency, and nothing is lost.
        n_fft: window and FFT length in samples.
        hop_length: samples from one frame to the next.
        n_mels: number of bands.
        f_min, f_max: edges of the bank in Hz, at `sample_rate`; `f_max=None` is half of it.
        power: 2 for power, 1 for magnitude.
    """

    mel_basis: Tensor
    window: Tensor

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        n_mels: int = 128,
        f_min: float = 0.0,
        f_max: float | None = None,
        power: float = 2.0,
    ) -> None:
        super().__init__()
        if n_fft < 2 or n_fft % 2:
            raise InputError(f"n_fft is {n_fft}; it must be an even number of samples")
        if hop_length < 1 or n_mels < 1:
            raise InputError(f"hop_length {hop_length} and n_mels {n_mels} must be at least 1")
        if not 0 <= f_min < (f_max or sample_rate / 2):
            raise InputError(f"f_min {f_min} Hz must lie below f_max {f_max or sample_rate / 2} Hz")
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.n_mels = n_mels
        self.f_min = f_min
        self.f_max = f_max
        self.power = power
        self.minimum_samples = n_fft // 2 + 1  # a reflection needs one sample more than it adds at each end
        # Not saved: both follow from the arguments.
        self.register_buffer("mel_basis", mel_bank(sample_rate, n_fft, n_mels, f_min, f_max), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft, periodic=True), persistent=False)

    def samples_for(self, frames: int) -> int:
        return max(self.minimum_samples, (frames - 1) * self.hop_length)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, n_mels, frames)`, float32, not negative.

        Raises:
            InputError: the clips are shorter than `minimum_samples`.
        """
        if not torch.jit.is_tracing() and waveforms.shape[-1] < self.minimum_samples:
            raise InputError(
                f"a clip of {waveforms.shape[-1]} samples is too short for a window of {self.n_fft}: "
                f"the least is {self.minimum_samples} samples; drop or pad shorter clips"
            )
        with torch.autocast(waveforms.device.type, enabled=False):
            return self._spectrogram(waveforms.float())

    def _spectrogram(self, waveforms: Tensor) -> Tensor:
        half = self.n_fft // 2
        padded = F.pad(waveforms.unsqueeze(1), (half, half), mode="reflect").squeeze(1)
        frames = padded.unfold(-1, self.n_fft, self.hop_length) * self.window.float()
        real, imaginary = torch.view_as_real(torch.fft.rfft(frames)).unbind(-1)
        energy = real * real + imaginary * imaginary  # (batch, frames, n_fft // 2 + 1); a sum over pairs is slower
        if self.power != 2.0:
            energy = energy.pow(self.power / 2)
        return torch.matmul(self.mel_basis.float(), energy.transpose(1, 2))


class LogMelSpectrogram(MelSpectrogram):
    """`log(mel + log_offset)`, then scaled clip by clip, so that a clip's features never depend on its batch.

    Args:
        log_offset: added before the logarithm.
        normalize: `clip_max` divides each clip by its own largest log value, which is what the published singer models
            compute for one clip at a time (the original divides a batch by the maximum of the batch; the log value is
            usually negative or positive as the clip is soft or loud, and the sign flips with it, as in the original);
            `clip_mean` subtracts each clip's mean log value: its loudness goes, the shape of its spectrum stays;
            `band` gives each band zero mean and unit deviation over the clip's time; `none` leaves the logarithm.
        Others: see `MelSpectrogram`.
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        n_mels: int = 128,
        f_min: float = 0.0,
        f_max: float | None = None,
        power: float = 2.0,
        log_offset: float = 1e-8,
        normalize: str = "clip_max",
    ) -> None:
        super().__init__(sample_rate, n_fft, hop_length, n_mels, f_min, f_max, power)
        if normalize not in NORMALIZATIONS:
            raise InputError(f"normalize is {normalize!r}; it must be one of {', '.join(NORMALIZATIONS)}")
        if log_offset <= 0:
            raise InputError(f"log_offset is {log_offset}; it must be above 0, or silence has no logarithm")
        self.log_offset = log_offset
        self.normalize = normalize

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, n_mels, frames)`, float32; see `normalize` for the range."""
        log_mel = torch.log(super().forward(waveforms) + self.log_offset)
        if self.normalize == "clip_max":
            peak = log_mel.amax(dim=(1, 2), keepdim=True)
            # A clip whose loudest value is exactly 1 has the logarithm 0, by which nothing can be divided.
            return log_mel / torch.where(peak.abs() < 1e-6, torch.full_like(peak, 1e-6), peak)
        if self.normalize == "clip_mean":
            return log_mel - log_mel.mean(dim=(1, 2), keepdim=True)
        if self.normalize == "band":
            centred = log_mel - log_mel.mean(dim=2, keepdim=True)
            return centred / (centred.square().mean(dim=2, keepdim=True).sqrt() + 1e-5)
        return log_mel


class DecibelMelSpectrogram(MelSpectrogram):
    """Mel spectrogram in decibels below the clip's own maximum (wav2rec; librosa's `power_to_db(ref=np.max)`).

    Args:
        floor_db: values further below the maximum than this are raised to it.
        scale: map the range to [0, 1]: 0 is the floor, 1 the clip's maximum. Otherwise it is [-floor_db, 0] dB.
        Others: see `MelSpectrogram`.
    """

    def __init__(
        self,
        sample_rate: int = 22050,
        n_fft: int = 2048,
        hop_length: int = 512,
        n_mels: int = 256,
        f_min: float = 0.0,
        f_max: float | None = None,
        power: float = 2.0,
        floor_db: float = 80.0,
        scale: bool = True,
    ) -> None:
        super().__init__(sample_rate, n_fft, hop_length, n_mels, f_min, f_max, power)
        if floor_db <= 0:
            raise InputError(f"floor_db is {floor_db}; it is a distance below the maximum and must be above 0")
        self.floor_db = floor_db
        self.scale = scale

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, n_mels, frames)` in [0, 1], or in [-floor_db, 0] dB without `scale`."""
        decibels = 10 * torch.log10(super().forward(waveforms).clamp(min=1e-10))
        decibels = (decibels - decibels.amax(dim=(1, 2), keepdim=True)).clamp(min=-self.floor_db)
        return decibels / self.floor_db + 1 if self.scale else decibels


class Waveform(Frontend):
    """The identity, for encoders that read samples. Any length passes; the encoder knows its own least."""

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, samples)`."""
        return waveforms


def mel_bank(sample_rate: int, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None) -> Tensor:
    """nnAudio's mel bank, `(n_mels, n_fft // 2 + 1)` float32."""
    from nnAudio.librosa_functions import get_mel

    return torch.from_numpy(get_mel(sample_rate, n_fft, n_mels, f_min, f_max, htk=False, norm=1)).float()
