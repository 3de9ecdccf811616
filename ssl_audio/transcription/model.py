"""Which notes sound in every frame, and which instruments play them, from the frames of one or several encoders."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn
from tqdm import tqdm

from ssl_audio.config import build, describe, without_pretrained
from ssl_audio.data.notes import PITCHES, Notes, notes_of_roll
from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.saved import CONFIG, WEIGHTS
from ssl_audio.model import EmbeddingModel
from ssl_audio.resampling import Resample
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.modes import evaluating
from ssl_audio.utils.yaml_files import read_yaml
from ssl_audio.weights import load_strict, read_weights

_RARE = -5.0  # logit that outputs start from: about one cell of a roll in 150 sounds


class LinearHead(nn.Module):
    """One linear layer, frame by frame: what can be read from a frame directly."""

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.output = nn.Linear(in_dim, out_dim)
        nn.init.constant_(self.output.bias, _RARE)

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, frames, out_dim)`."""
        return self.output(frames)


class ConvHead(nn.Module):
    """A convolution over neighbouring frames, a ReLU, one linear layer.

    Args:
        in_dim, out_dim: sizes of a frame.
        channels: of the convolution.
        kernel: frames that it sees, an odd number.
    """

    def __init__(self, in_dim: int, out_dim: int, channels: int = 128, kernel: int = 5) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise InputError(f"kernel is {kernel}; it must be odd, so that frames stay in their places")
        self.in_dim, self.out_dim, self.channels, self.kernel = in_dim, out_dim, channels, kernel
        self.convolution = nn.Conv1d(in_dim, channels, kernel, padding=kernel // 2)
        self.output = nn.Linear(channels, out_dim)
        nn.init.constant_(self.output.bias, _RARE)

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, frames, out_dim)`."""
        return self.output(F.relu(self.convolution(frames.transpose(1, 2)).transpose(1, 2)))


class MelFrames(Encoder):
    """Nothing learned: the frames of a spectrum as they are, for heads to be compared on."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = self.dim = self.frame_dim = bands

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, frames, bands)`."""
        return features.transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, bands)`, the mean."""
        return features.mean(dim=2)


def mel_frames(sample_rate: int = 16000, bands: int = 229) -> EmbeddingModel:
    """Log mel spectrum every 10 ms over 2048 samples, with the bands of https://arxiv.org/abs/1710.11153."""
    frontend = LogMelSpectrogram(sample_rate, 2048, sample_rate // 100, bands, log_offset=1e-6, normalize="none")
    return EmbeddingModel(frontend, MelFrames(bands), sample_rate)


HEADS = {"linear": LinearHead, "conv": ConvHead}


class Transcriber(nn.Module):
    """Encoders whose frames are joined, standardised and read by a head.

    Args:
        models: one or several; they hear the same audio, resampled for those at another rate than the first.
        head: frames of the size of all models' together -> (1 + instruments) x 128.
        instruments: numbers as in the labels, General MIDI from 1.
        nr_samples: of the windows that are transcribed at a time, at the first model's rate.
        threshold: probability above which a note sounds.

    Attributes:
        sample_rate: of the audio, Hz. frames, frame_rate: of a window, and a second.

    Raises:
        InputError: a model without frames, a window too short for a model, a head that does not fit.
    """

    encoders: nn.ModuleList

    def __init__(
        self,
        models: Sequence[EmbeddingModel],
        head: nn.Module,
        instruments: Sequence[int],
        nr_samples: int = 20480,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(models)
        self.head = head
        self.instruments = list(instruments)
        self.nr_samples = nr_samples
        self.threshold = threshold
        self.sample_rate = models[0].sample_rate
        dim = frame_dim(models)
        if (head.in_dim, head.out_dim) != (dim, outputs(self.instruments)):
            raise InputError(
                f"the head takes {head.in_dim} numbers a frame and gives {head.out_dim}; these models and "
                f"{len(self.instruments)} instruments need {dim} and {outputs(self.instruments)}"
            )
        self.resamplers = nn.ModuleList(Resample(self.sample_rate, model.sample_rate) for model in models)
        self.standardize = nn.BatchNorm1d(dim, affine=False)
        with torch.no_grad():
            self.frames = self._probe().shape[1]
        self.frame_rate = self.frames * self.sample_rate / nr_samples

    @property
    def models(self) -> list[EmbeddingModel]:
        return list(self.encoders)  # type: ignore[arg-type]

    def _probe(self) -> Tensor:
        """Features of a window of noise, with the modules left as they were."""
        noise = torch.randn(1, self.nr_samples, generator=torch.Generator().manual_seed(0))
        with evaluating(self):
            return self.features(noise.to(self.device))

    def features(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, dim)`; slower encoders are interpolated to the fastest's frames."""
        clips = [resample(waveforms) for resample in self.resamplers]
        found = [model.frames(clip) for model, clip in zip(self.models, clips, strict=True)]
        most = max(frames.shape[1] for frames in found)
        return torch.cat([_stretched(frames, most) for frames in found], dim=2)

    def read(self, features: Tensor) -> Tensor:
        """`(batch, frames, dim)` -> logits `(batch, 1 + instruments, frames, 128)`; row 0 is any instrument."""
        standard = self.standardize(features.transpose(1, 2)).transpose(1, 2)
        return self.head(standard).unflatten(2, (1 + len(self.instruments), PITCHES)).transpose(1, 2)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` at `sample_rate` -> logits `(batch, 1 + instruments, frames, 128)`."""
        return self.read(self.features(waveforms))

    @property
    def device(self) -> torch.device:
        return next(self.head.parameters()).device

    @torch.inference_mode()
    def probabilities(self, audio: np.ndarray, batch_size: int = 8, progress: bool = False) -> np.ndarray:
        """`(samples,)` at `sample_rate` -> `(1 + instruments, frames, 128)` float16 at `frame_rate`.

        Windows overlap by half; each frame comes from the window in whose middle it is nearest.

        Raises:
            InputError: audio too short for a model.
        """
        self.eval()
        size = min(self.nr_samples, len(audio))
        step = size / self.frames  # samples a frame
        last = int(int((len(audio) - size) / step) * step)
        starts = np.unique([*range(0, last, max(1, size // 2)), last])
        parts = []
        for first in tqdm(range(0, len(starts), batch_size), "transcribing", disable=not progress, delay=2):
            clips = np.stack([audio[start : start + size] for start in starts[first : first + batch_size]])
            logits = self(torch.from_numpy(clips).to(self.device))
            parts.append(logits.sigmoid().half().cpu().numpy())
        windows = np.concatenate(parts)  # (windows, rows, frames, 128)
        frames = max(1, int(len(audio) * self.frame_rate / self.sample_rate + 1e-6))
        middle = (np.arange(frames) + 0.5) * self.sample_rate / self.frame_rate
        window = np.searchsorted((starts[1:] + starts[:-1] + size) / 2, middle)
        local = ((middle - starts[window]) * windows.shape[2] / size).astype(np.int64).clip(0, windows.shape[2] - 1)
        return windows[window, :, local].transpose(1, 0, 2)

    def notes(self, probabilities: np.ndarray, min_seconds: float = 0.03) -> Notes:
        """Notes from row 0, each of the instrument whose own row is the surest of it."""
        if not self.instruments:
            return notes_of_roll(probabilities[0], self.frame_rate, self.threshold, min_seconds)
        return notes_of_roll(
            probabilities[0], self.frame_rate, self.threshold, min_seconds, self.instruments, probabilities[1:]
        )


def frame_dim(models: Sequence[EmbeddingModel]) -> int:
    """Size of the joined frames. Raises InputError for an encoder without frames."""
    for model in models:
        if model.encoder.frame_dim is None:
            raise InputError(f"{type(model.encoder).__name__} gives one vector a clip, no frames; take another model")
    return sum(int(model.encoder.frame_dim or 0) for model in models)


def outputs(instruments: Sequence[int]) -> int:
    """Size of a head's output: 128 notes of any instrument, and of each."""
    return (1 + len(instruments)) * PITCHES


def save_transcriber(transcriber: Transcriber, folder: str | os.PathLike) -> None:
    """Write `config.yaml` and `model.safetensors`, encoders and head; replaces files of these names."""
    from safetensors.torch import save_file

    spec = {"format_version": 1, "transcriber": without_pretrained(describe(transcriber))}
    weights = {key: value.detach().cpu().contiguous().clone() for key, value in transcriber.state_dict().items()}
    with write_atomically(Path(folder) / WEIGHTS) as temporary:
        save_file(weights, temporary)
    write_text(Path(folder) / CONFIG, yaml.safe_dump(spec, sort_keys=False))


def load_transcriber(folder: str | os.PathLike) -> Transcriber:
    """What `save_transcriber` wrote, in evaluation mode. Raises InputError: no transcriber there, or a damaged one."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        raise InputError(f"{folder} holds no transcriber; make one with ssl-audio fit-transcriber")
    spec = read_yaml(path)
    if "transcriber" not in spec:
        raise InputError(f"{folder} is a model without a transcription head; make one with ssl-audio fit-transcriber")
    transcriber = build(spec["transcriber"])
    if not isinstance(transcriber, Transcriber):
        raise InputError(f"{path}: describes no transcriber; make one with ssl-audio fit-transcriber")
    load_strict(transcriber, read_weights(Path(folder) / WEIGHTS), Path(folder) / WEIGHTS)
    return transcriber.eval()


def _stretched(frames: Tensor, most: int) -> Tensor:
    """`(batch, frames, dim)` -> `(batch, most, dim)`, linear in time."""
    if frames.shape[1] == most:
        return frames
    return F.interpolate(frames.transpose(1, 2), size=most, mode="linear").transpose(1, 2)
