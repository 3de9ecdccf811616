"""Mel spectrograms: linear, logarithmic, in decibels."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_audio.errors import InputError
from ssl_audio.frontends.base import Frontend, check_length

NORMALIZATIONS = ("clip_max", "clip_mean", "band", "band_mean", "none")
EDGES = {"reflect": "reflect", "zeros": "constant"}  # name here: torch's


class MelSpectrogram(Frontend):
    """Mel spectrogram. It equals `nnAudio.features.MelSpectrogram`, but uses an FFT instead of convolutions.

    It has a periodic Hann window, frames centred on multiples of the hop, reflected edges, and Slaney's mel bank with
    equal areas. nnAudio's own function computes the bank, so that the two are identical. The result is float32 even
    under autocast, because a power spectrum has a larger range than half precision.

    Args:
        sample_rate: sample rate in Hz for which the mel bank is made. It may differ from the rate of the audio: the
            published singer models apply the bank for 22,050 Hz (nnAudio's default) to audio at 44,100 Hz, and their
            weights require that. Every band then lies at twice its nominal frequency.
        n_fft: length of window and FFT in samples; even.
        hop_length: samples from one frame to the next.
        n_mels: number of bands.
        f_min, f_max: edges of the bank in Hz, at `sample_rate`. None: half of `sample_rate`.
        power: 2 for power, 1 for magnitude.
        edges: padding at the ends of a clip. `reflect`: reflection, as nnAudio. `zeros`: zeros, as librosa since 0.10.

    Raises:
        InputError: an argument is out of its range.

    Example:
        >>> frontend = MelSpectrogram(sample_rate=16000, n_fft=512, hop_length=160, n_mels=64)
        >>> frontend(torch.randn(2, 16000)).shape
        torch.Size([2, 64, 101])
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
        edges: str = "reflect",
    ) -> None:
        super().__init__()
        if edges not in EDGES:
            raise InputError(f"edges is {edges!r}; it must be one of {', '.join(EDGES)}")
        if n_fft < 2 or n_fft % 2:
            raise InputError(f"n_fft is {n_fft}; it must be an even number of samples")
        if hop_length < 1 or n_mels < 1:
            raise InputError(f"hop_length {hop_length} and n_mels {n_mels} must be at least 1")
        if not 0 <= f_min < (f_max or sample_rate / 2):
            raise InputError(f"f_min {f_min} Hz must be below f_max {f_max or sample_rate / 2} Hz, and at least 0")
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.n_mels = n_mels
        self.f_min = f_min
        self.f_max = f_max
        self.power = power
        self.edges = edges
        # Reflection needs one sample more than it adds at each end.
        self.minimum_samples = n_fft // 2 + 1 if edges == "reflect" else 1
        # Both follow from the arguments, so they are not saved.
        self.register_buffer("mel_basis", mel_bank(sample_rate, n_fft, n_mels, f_min, f_max), persistent=False)
        self.register_buffer("window", torch.hann_window(n_fft, periodic=True), persistent=False)

    def samples_for(self, frames: int) -> int:
        return max(self.minimum_samples, (frames - 1) * self.hop_length)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, n_mels, frames)`, float32, at least 0.

        Raises:
            InputError: the clips are shorter than `minimum_samples`.
        """
        check_length(waveforms, self.minimum_samples, self.n_fft)
        with torch.autocast(waveforms.device.type, enabled=False):
            return self._spectrogram(waveforms.float())

    def _spectrogram(self, waveforms: Tensor) -> Tensor:
        half = self.n_fft // 2
        padded = F.pad(waveforms.unsqueeze(1), (half, half), mode=EDGES[self.edges]).squeeze(1)
        frames = padded.unfold(-1, self.n_fft, self.hop_length) * self.window.float()
        real, imaginary = torch.view_as_real(torch.fft.rfft(frames)).unbind(-1)
        energy = real * real + imaginary * imaginary  # (batch, frames, n_fft // 2 + 1); faster than a sum over pairs
        if self.power != 2.0:
            energy = energy.pow(self.power / 2)
        return torch.matmul(self.mel_basis.float(), energy.transpose(1, 2))


class LogMelSpectrogram(MelSpectrogram):
    """`log(mel + log_offset)`, normalised for each clip, so that the features do not depend on the batch.

    Values of `normalize`:

    - `clip_max`: divide by the largest log value of the clip, as the published singer models do for a single clip. (In
      a batch, the original divides by the maximum of the batch.) The largest log value of a soft clip is negative; the
      signs of its features are then flipped, as in the original.
    - `clip_mean`: subtract the mean log value of the clip. This removes its loudness and keeps the shape of its
      spectrum.
    - `band`: give each band zero mean and unit deviation over the frames of the clip.
    - `band_mean`: give each band zero mean only, as networks for voices expect.
    - `none`: keep the logarithm.

    Args:
        log_offset: added before the logarithm; above 0.
        normalize: see above.
        Others: see `MelSpectrogram`.

    Raises:
        InputError: an argument is out of its range.

    Example:
        >>> frontend = LogMelSpectrogram(16000, n_fft=512, hop_length=160, n_mels=64, normalize="clip_mean")
        >>> features = frontend(torch.randn(2, 16000))
        >>> features.shape, bool(features.mean((1, 2)).abs().max() < 1e-5)
        (torch.Size([2, 64, 101]), True)
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
        check_log(log_offset, normalize)
        self.log_offset = log_offset
        self.normalize = normalize

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, n_mels, frames)`, float32; see `normalize` for the range."""
        log_mel = torch.log(super().forward(waveforms) + self.log_offset)
        return normalized(log_mel, self.normalize)


class DecibelMelSpectrogram(MelSpectrogram):
    """Mel spectrogram in decibels relative to the maximum of the clip, as wav2rec's.

    Without `scale` it equals librosa's `power_to_db(ref=np.max)`.

    Args:
        floor_db: decibels below the maximum at which lower values are clipped.
        scale: map the range [-floor_db, 0] dB to [0, 1].
        Others: see `MelSpectrogram`.

    Raises:
        InputError: an argument is out of its range.

    Example:
        >>> frontend = DecibelMelSpectrogram(16000, n_fft=512, hop_length=160, n_mels=64)
        >>> float(frontend(torch.randn(1, 16000)).max())
        1.0
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
            raise InputError(f"floor_db is {floor_db}; it must be above 0, the decibels below the maximum")
        self.floor_db = floor_db
        self.scale = scale

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, n_mels, frames)` in [0, 1]; without `scale`, in [-floor_db, 0] dB."""
        decibels = 10 * torch.log10(super().forward(waveforms).clamp(min=1e-10))
        decibels = (decibels - decibels.amax(dim=(1, 2), keepdim=True)).clamp(min=-self.floor_db)
        return decibels / self.floor_db + 1 if self.scale else decibels


def mel_bank(sample_rate: int, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None) -> Tensor:
    """The mel bank of nnAudio, `(n_mels, n_fft // 2 + 1)` float32."""
    from nnAudio.librosa_functions import get_mel

    return torch.from_numpy(get_mel(sample_rate, n_fft, n_mels, f_min, f_max, htk=False, norm=1)).float()


def normalized(features: Tensor, how: str) -> Tensor:
    """`(batch, bands, frames)` normalised for each clip by a rule of `NORMALIZATIONS`; see `LogMelSpectrogram`."""
    if how == "clip_max":
        peak = features.amax(dim=(1, 2), keepdim=True)
        # If the largest mel value is exactly 1, its logarithm is 0: avoid the division by zero.
        return features / torch.where(peak.abs() < 1e-6, torch.full_like(peak, 1e-6), peak)
    if how == "clip_mean":
        return features - features.mean(dim=(1, 2), keepdim=True)
    if how == "band_mean":
        return features - features.mean(dim=2, keepdim=True)
    if how == "band":
        centred = features - features.mean(dim=2, keepdim=True)
        return centred / (centred.square().mean(dim=2, keepdim=True).sqrt() + 1e-5)
    return features


def check_log(log_offset: float, normalize: str) -> None:
    """Raise InputError if one of the arguments is out of its range."""
    if normalize not in NORMALIZATIONS:
        raise InputError(f"normalize is {normalize!r}; it must be one of {', '.join(NORMALIZATIONS)}")
    if log_offset <= 0:
        raise InputError(f"log_offset is {log_offset}; it must be above 0, because silence has no logarithm")
