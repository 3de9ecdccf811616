"""The transcriber: finds the notes in every frame and their instruments, from the frames of one or several encoders."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ssl_audio.config import build, describe, without_pretrained
from ssl_audio.data.notes import PITCHES, Notes, notes_of_roll
from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.saved import CONFIG, WEIGHTS, write_model_folder
from ssl_audio.level import leveled
from ssl_audio.model import EmbeddingModel
from ssl_audio.resampling import Resample
from ssl_audio.utils.modes import evaluating
from ssl_audio.utils.yaml_files import read_yaml
from ssl_audio.weights import load_strict, read_weights

_RARE = -5.0  # initial logit of the outputs: a note sounds in about one of 150 cells


class LinearHead(nn.Module):
    """One linear layer on each frame.

    Args:
        in_dim: size of an input frame.
        out_dim: size of an output frame.
    """

    def __init__(self, in_dim: int, out_dim: int) -> None:
        super().__init__()
        self.in_dim, self.out_dim = in_dim, out_dim
        self.output = nn.Linear(in_dim, out_dim)
        nn.init.constant_(self.output.bias, _RARE)

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, frames, out_dim)`."""
        return self.output(frames)


class ConvHead(nn.Module):
    """A convolution over frames, a ReLU, and a linear layer.

    Args:
        in_dim: size of an input frame.
        out_dim: size of an output frame.
        channels: channels of the convolution.
        kernel: size of the convolution in frames; an odd number.
    """

    def __init__(self, in_dim: int, out_dim: int, channels: int = 128, kernel: int = 5) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise InputError(f"kernel is {kernel}; it must be odd, so that the frames are not shifted")
        self.in_dim, self.out_dim, self.channels, self.kernel = in_dim, out_dim, channels, kernel
        self.convolution = nn.Conv1d(in_dim, channels, kernel, padding=kernel // 2)
        self.output = nn.Linear(channels, out_dim)
        nn.init.constant_(self.output.bias, _RARE)

    def forward(self, frames: Tensor) -> Tensor:
        """`(batch, frames, in_dim)` -> `(batch, frames, out_dim)`."""
        return self.output(F.relu(self.convolution(frames.transpose(1, 2)).transpose(1, 2)))


class MelFrames(Encoder):
    """An encoder without parameters whose frames are the frames of a spectrum; a baseline.

    Args:
        bands: number of bands of the spectrum.
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.bands = self.dim = self.frame_dim = bands

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, frames, bands)`."""
        return features.transpose(1, 2)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, bands, frames)` -> `(batch, bands)`, the mean over frames."""
        return features.mean(dim=2)


def mel_frames(sample_rate: int = 16000, bands: int = 229) -> EmbeddingModel:
    """A baseline of log mel spectra, with the number of bands of https://arxiv.org/abs/1710.11153.

    Args:
        sample_rate: in Hz.
        bands: number of mel bands.

    Returns:
        A model with a frame every 10 ms, computed over 2048 samples.
    """
    frontend = LogMelSpectrogram(sample_rate, 2048, sample_rate // 100, bands, log_offset=1e-6, normalize="none")
    return EmbeddingModel(frontend, MelFrames(bands), sample_rate)


HEADS = {"linear": LinearHead, "conv": ConvHead}


class Transcriber(nn.Module):
    """One or several encoders with a head. Their frames are concatenated and standardised before the head.

    Args:
        models: the encoders. They get the same audio; models with another sample rate than the first get it resampled.
        head: maps frames of the sum of the models' frame sizes to frames of size (1 + instruments) * 128.
        instruments: numbers of the instruments, General MIDI from 1.
        nr_samples: size of a window in samples, at the sample rate of the first model.
        threshold: probability above which a note sounds.

    Attributes:
        sample_rate: sample rate of the audio in Hz, that of the first model.
        frames: number of frames in a window.
        frame_rate: number of frames per second.

    Raises:
        InputError: a model has no frames, the window is too short for a model, or the head has other sizes.
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
                f"the head has the sizes {head.in_dim} and {head.out_dim}; these models and {len(self.instruments)} "
                f"instruments need {dim} and {outputs(self.instruments)}"
            )
        self.resamplers = nn.ModuleList(Resample(self.sample_rate, model.sample_rate) for model in models)
        self.standardize = nn.BatchNorm1d(dim, affine=False)
        with torch.no_grad():
            self.frames = self._probe().shape[1]
        self.frame_rate = self.frames * self.sample_rate / nr_samples

    @property
    def models(self) -> list[EmbeddingModel]:
        """The encoders."""
        return list(self.encoders)  # type: ignore[arg-type]

    def _probe(self) -> Tensor:
        """The features of a window of noise."""
        noise = torch.randn(1, self.nr_samples, generator=torch.Generator().manual_seed(0))
        with evaluating(self):
            return self.features(noise.to(self.device))

    def features(self, waveforms: Tensor) -> Tensor:
        """The concatenated frames of the encoders, interpolated to the highest frame rate among them.

        Each encoder sets the level of a window by its own rule (`ssl_audio.level`).

        `(batch, samples)` -> `(batch, frames, dim)`.
        """
        clips = [resample(waveforms) for resample in self.resamplers]
        found = [model.frames(leveled(model, clip)) for model, clip in zip(self.models, clips, strict=True)]
        most = max(frames.shape[1] for frames in found)
        return torch.cat([_interpolate(frames, most) for frames in found], dim=2)

    def read(self, features: Tensor) -> Tensor:
        """`(batch, frames, dim)` -> logits `(batch, 1 + instruments, frames, 128)`; row 0 is for any instrument."""
        standard = self.standardize(features.transpose(1, 2)).transpose(1, 2)
        return self.head(standard).unflatten(2, (1 + len(self.instruments), PITCHES)).transpose(1, 2)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` at `sample_rate` -> logits `(batch, 1 + instruments, frames, 128)`."""
        return self.read(self.features(waveforms))

    @property
    def device(self) -> torch.device:
        """Device of the head."""
        return next(self.head.parameters()).device

    @torch.inference_mode()
    def probabilities(self, audio: np.ndarray, batch_size: int = 8, progress: bool = False) -> np.ndarray:
        """Probability of each note in each frame of a recording.

        Consecutive windows overlap by half. Each frame is taken from the window whose middle is nearest.

        Args:
            audio: `(samples,)` at `sample_rate`.
            batch_size: windows in a batch.
            progress: show a progress bar.

        Returns:
            `(1 + instruments, frames, 128)` float16 at `frame_rate`; row 0 is for any instrument.

        Raises:
            InputError: the audio is too short for a model.
        """
        self.eval()
        size = min(self.nr_samples, len(audio))
        step = size / self.frames  # samples per frame
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
        """Notes from the probabilities of row 0; the instrument of a note is that with the highest probability for it.

        Args:
            probabilities: from `probabilities`.
            min_seconds: shorter notes are left out.
        """
        if not self.instruments:
            return notes_of_roll(probabilities[0], self.frame_rate, self.threshold, min_seconds)
        return notes_of_roll(
            probabilities[0], self.frame_rate, self.threshold, min_seconds, self.instruments, probabilities[1:]
        )


def frame_dim(models: Sequence[EmbeddingModel]) -> int:
    """Size of the concatenated frames of several models. Raises InputError if an encoder has no frames."""
    for model in models:
        if model.encoder.frame_dim is None:
            raise InputError(
                f"{type(model.encoder).__name__} has no frames, only one vector per clip; take another model"
            )
    return sum(int(model.encoder.frame_dim or 0) for model in models)


def outputs(instruments: Sequence[int]) -> int:
    """Size of an output frame of a head: 128 notes for any instrument, and 128 for each instrument."""
    return (1 + len(instruments)) * PITCHES


def save_transcriber(transcriber: Transcriber, folder: str | os.PathLike) -> None:
    """Write encoders and head to `config.yaml` and `model.safetensors` in a folder; existing files are replaced."""
    spec = {"format_version": 1, "transcriber": without_pretrained(describe(transcriber))}
    write_model_folder(folder, transcriber, spec)


def load_transcriber(folder: str | os.PathLike) -> Transcriber:
    """Load what `save_transcriber` wrote, in evaluation mode. Raises InputError if it is missing or damaged."""
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


def _interpolate(frames: Tensor, count: int) -> Tensor:
    """`(batch, frames, dim)` -> `(batch, count, dim)`, by linear interpolation in time."""
    if frames.shape[1] == count:
        return frames
    return F.interpolate(frames.transpose(1, 2), size=count, mode="linear").transpose(1, 2)
