"""Frontends: waveform `(batch, samples)` -> features, differentiable, on the device of the waveform.

- Mel frontends give `(batch, bands, frames)` with `1 + samples // hop_length` frames; Kaldi's filterbank gives complete
  frames only.
- `Waveform` returns the samples, for encoders of raw waveforms.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.errors import InputError

NORMALIZATIONS = ("clip_max", "clip_mean", "band", "band_mean", "none")
EDGES = {"reflect": "reflect", "zeros": "constant"}  # name here: torch's
KALDI_WINDOWS = ("povey", "hamming", "hanning")
KALDI_FLOOR = 1.1920929e-07  # float32's epsilon: smallest energy of a band, before the logarithm


class Frontend(nn.Module):
    """The base class of frontends. The features of a clip must not depend on the other clips of the batch.

    A subclass stores every constructor argument under its own name, so that a saved model can be rebuilt.

    Attributes:
        minimum_samples: length of the shortest clip, in samples.
    """

    minimum_samples: int = 1

    def samples_for(self, frames: int) -> int:
        """The length of the shortest clip, in samples, that gives `frames` frames.

        For raw waveforms, a frame is a sample.
        """
        return max(self.minimum_samples, frames)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> features."""
        raise NotImplementedError


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
        _check_length(waveforms, self.minimum_samples, self.n_fft)
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
        if normalize not in NORMALIZATIONS:
            raise InputError(f"normalize is {normalize!r}; it must be one of {', '.join(NORMALIZATIONS)}")
        if log_offset <= 0:
            raise InputError(f"log_offset is {log_offset}; it must be above 0, because silence has no logarithm")
        self.log_offset = log_offset
        self.normalize = normalize

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, n_mels, frames)`, float32; see `normalize` for the range."""
        log_mel = torch.log(super().forward(waveforms) + self.log_offset)
        if self.normalize == "clip_max":
            peak = log_mel.amax(dim=(1, 2), keepdim=True)
            # If the largest mel value is exactly 1, its logarithm is 0: avoid the division by zero.
            return log_mel / torch.where(peak.abs() < 1e-6, torch.full_like(peak, 1e-6), peak)
        if self.normalize == "clip_mean":
            return log_mel - log_mel.mean(dim=(1, 2), keepdim=True)
        if self.normalize == "band_mean":
            return log_mel - log_mel.mean(dim=2, keepdim=True)
        if self.normalize == "band":
            centred = log_mel - log_mel.mean(dim=2, keepdim=True)
            return centred / (centred.square().mean(dim=2, keepdim=True).sqrt() + 1e-5)
        return log_mel


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


class KaldiFilterbank(Frontend):
    """The log mel filterbank of Kaldi (`compute-fbank-feats`) without dither, which wespeaker and 3D-Speaker use.

    Steps for each frame:

    1. Subtract its mean.
    2. Pre-emphasis: `x[t] - preemphasis * x[t - 1]`; for the first sample, `x[0] - preemphasis * x[0]`.
    3. Multiply by the window and fill up with zeros to a power of two.
    4. Sum the power spectrum over triangles, which are linear in `1127 log(1 + f / 700)`.
    5. Natural logarithm of the sums, which are at least float32's epsilon.

    wespeaker has `KaldiFilterbank(window="hamming", cmn=True)`, 3D-Speaker `KaldiFilterbank(scale=1.0, cmn=True)`.

    Args:
        sample_rate: sample rate of the audio in Hz.
        n_mels: number of bands. From about 128 bands at 16 kHz, some triangles lie between two bins of the spectrum,
            and their bands are constant.
        frame_length: length of a frame in ms.
        frame_shift: distance between frames in ms.
        window: povey (a Hann window to the power of 0.85), hamming or hanning.
        preemphasis: from 0 to 1.
        f_min, f_max: edges of the bank in Hz. None: half of `sample_rate`.
        snip_edges: use only frames that lie within the clip. Otherwise, frames are centred on multiples of the shift
            plus half a shift, and the clip is reflected at its ends.
        scale: factor for the samples. Kaldi's 16-bit samples correspond to 32768. It shifts the logarithms, and decides
            how soft a band can be before it reaches the floor.
        cmn: subtract the mean of each band over the clip (cepstral mean normalisation).

    Raises:
        InputError: an argument is out of its range.

    Example:
        >>> frontend = KaldiFilterbank(16000, n_mels=80, cmn=True)
        >>> frontend(torch.randn(2, 16000)).shape
        torch.Size([2, 80, 98])
    """

    mel_basis: Tensor
    taper: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        n_mels: int = 80,
        frame_length: float = 25.0,
        frame_shift: float = 10.0,
        window: str = "povey",
        preemphasis: float = 0.97,
        f_min: float = 20.0,
        f_max: float | None = None,
        snip_edges: bool = True,
        scale: float = 32768.0,
        cmn: bool = False,
    ) -> None:
        super().__init__()
        # Kaldi drops fractions of a sample. The small number corrects rounding, for example of 44.1 * 10.
        size, hop = (int(sample_rate * length / 1000 + 1e-6) for length in (frame_length, frame_shift))
        if not 1 <= hop <= size or size < 2:
            raise InputError(
                f"frame_shift {frame_shift} ms and frame_length {frame_length} ms are {hop} and {size} samples; "
                "the shift must be at least 1 sample and at most the length"
            )
        if window not in KALDI_WINDOWS:
            raise InputError(f"window is {window!r}; it must be one of {', '.join(KALDI_WINDOWS)}")
        if n_mels < 1 or not 0 <= preemphasis <= 1 or scale <= 0:
            raise InputError(
                f"n_mels {n_mels} must be at least 1, preemphasis {preemphasis} from 0 to 1, and scale {scale} above 0"
            )
        if not 0 <= f_min < (f_max or sample_rate / 2) <= sample_rate / 2:
            raise InputError(
                f"f_min {f_min} Hz must be below f_max {f_max} Hz, and f_max at most half of sample_rate {sample_rate}"
            )
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.frame_length = frame_length
        self.frame_shift = frame_shift
        self.window = window
        self.preemphasis = preemphasis
        self.f_min = f_min
        self.f_max = f_max
        self.snip_edges = snip_edges
        self.scale = scale
        self.cmn = cmn
        self.size, self.hop, self.n_fft = size, hop, 2 ** math.ceil(math.log2(size))
        # Number of reflected samples at the start, and their largest number at the end.
        self.before, self.after = (0, 0) if snip_edges else (size // 2 - hop // 2, size - size // 2)
        self.minimum_samples = size if snip_edges else max(hop - hop // 2, self.before, self.after)
        # Both follow from the arguments, so they are not saved.
        self.register_buffer("taper", kaldi_window(window, size), persistent=False)
        bank = kaldi_mel_bank(sample_rate, self.n_fft, n_mels, f_min, f_max)
        self.register_buffer("mel_basis", bank, persistent=False)

    def samples_for(self, frames: int) -> int:
        least = self.size + (frames - 1) * self.hop if self.snip_edges else frames * self.hop - self.hop // 2
        return max(self.minimum_samples, least)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` in [-1, 1] -> `(batch, n_mels, frames)`, float32.

        Raises:
            InputError: the clips are shorter than `minimum_samples`.
        """
        _check_length(waveforms, self.minimum_samples, self.size)
        with torch.autocast(waveforms.device.type, enabled=False):
            frames = self._frames(waveforms.float() * self.scale)
            frames = frames - frames.mean(dim=-1, keepdim=True)
            previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            frames = (frames - self.preemphasis * previous) * self.taper.float()
            spectrum = torch.view_as_real(torch.fft.rfft(F.pad(frames, (0, self.n_fft - self.size))))
            energy = torch.matmul(self.mel_basis.float(), spectrum.square().sum(dim=-1).transpose(1, 2))
            log_mel = energy.clamp_min(KALDI_FLOOR).log()
            return log_mel - log_mel.mean(dim=2, keepdim=True) if self.cmn else log_mel

    def _frames(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, size)`."""
        if self.snip_edges:
            return waveforms.unfold(-1, self.size, self.hop)
        # A reflection that repeats the sample at the edge, unlike that of F.pad.
        start, end = waveforms[:, : self.before].flip(1), waveforms[:, -self.after :].flip(1)
        count = (waveforms.shape[1] + self.hop // 2) // self.hop
        return torch.cat([start, waveforms, end], dim=1).unfold(-1, self.size, self.hop)[:, :count]


class Waveform(Frontend):
    """The identity, for encoders of raw waveforms. The encoder knows its shortest input."""

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, samples)`."""
        return waveforms


def mel_bank(sample_rate: int, n_fft: int, n_mels: int, f_min: float = 0.0, f_max: float | None = None) -> Tensor:
    """The mel bank of nnAudio, `(n_mels, n_fft // 2 + 1)` float32."""
    from nnAudio.librosa_functions import get_mel

    return torch.from_numpy(get_mel(sample_rate, n_fft, n_mels, f_min, f_max, htk=False, norm=1)).float()


def kaldi_window(name: str, size: int) -> Tensor:
    """A symmetric window of Kaldi, `(size,)` float32."""
    cosine = torch.cos(2 * math.pi * torch.arange(size, dtype=torch.float64) / (size - 1))
    window = 0.54 - 0.46 * cosine if name == "hamming" else 0.5 - 0.5 * cosine
    return (window**0.85 if name == "povey" else window).float()


def kaldi_mel_bank(sample_rate: int, n_fft: int, n_mels: int, f_min: float, f_max: float | None) -> Tensor:
    """The triangles of Kaldi, linear in mel and of height 1; 0 at the last bin. `(n_mels, n_fft // 2 + 1)` float32."""

    def mel(frequency: Tensor) -> Tensor:
        return 1127 * torch.log1p(frequency / 700)

    low, high = mel(torch.tensor([f_min, f_max or sample_rate / 2], dtype=torch.float64))
    step = (high - low) / (n_mels + 1)
    left = (low + step * torch.arange(n_mels, dtype=torch.float64)).unsqueeze(1)
    bins = mel(torch.arange(n_fft // 2 + 1, dtype=torch.float64) * sample_rate / n_fft)
    bank = torch.minimum((bins - left) / step, (left + 2 * step - bins) / step).clamp_min(0)
    bank[:, -1] = 0
    return bank.float()


def _check_length(waveforms: Tensor, minimum: int, window: int) -> None:
    if not torch.jit.is_tracing() and waveforms.shape[-1] < minimum:
        raise InputError(
            f"a clip of {waveforms.shape[-1]} samples is too short for a window of {window}; "
            f"drop or pad clips of less than {minimum} samples"
        )
