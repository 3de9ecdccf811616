"""The log mel filterbank of Kaldi."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_audio.errors import InputError
from ssl_audio.frontends.base import Frontend, check_length

KALDI_WINDOWS = ("povey", "hamming", "hanning")
KALDI_FLOOR = 1.1920929e-07  # float32's epsilon: smallest energy of a band, before the logarithm


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
        check_length(waveforms, self.minimum_samples, self.size)
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
