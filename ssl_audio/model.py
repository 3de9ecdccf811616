"""`EmbeddingModel`: frontend, encoder and optional head. It is what is saved, loaded, exported and served."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.outside import PathEncoder
from ssl_audio.errors import InputError
from ssl_audio.frontends import Frontend
from ssl_audio.level import Level, check_level, leveled, set_level
from ssl_audio.utils.modes import evaluating

if TYPE_CHECKING:
    from ssl_audio.evaluation.model_calibration import ModelCalibration

UNKNOWN_LICENCE = "unknown"


class EmbeddingModel(nn.Module):
    """Waveforms in, one vector per clip out.

    Args:
        frontend: `(batch, samples)` -> features; see `ssl_audio.frontends`.
        encoder: features -> `(batch, dim)`; see `ssl_audio.encoders`.
        sample_rate: sample rate of the input in Hz.
        head: `(batch, encoder.dim)` -> `(batch, head.dim)`; see `ssl_audio.heads`. None: the output is the embedding.
        level: how the level of a clip is set: "peak", "none" or a module; see `ssl_audio.level`.
        level_in_forward: `forward` and `frames` set the level. If False, they take clips as they are, and `embed` and
            everything that reads files set the level before (published models, whose outputs stay those of the
            original).

    Attributes:
        dim: size of the output.
        minimum_samples: length of the shortest clip, in samples.
        licence: licence of the weights, as the card or the package states it, or "unknown".
        checkpoint: of a model of a training: which checkpoint it is, of which step, chosen by which value of which
            metric (see `ssl_audio.utils.checkpoints.origin`); else empty.
        calibration: what turns two embeddings into a decision (`ssl-audio calibrate`); None where there is none.

    Example:
        >>> from ssl_audio.encoders import CompactCNN
        >>> from ssl_audio.frontends import LogMelSpectrogram
        >>> model = EmbeddingModel(LogMelSpectrogram(16000), CompactCNN([8, 8]), sample_rate=16000).eval()
        >>> model(torch.randn(2, 16000)).shape  # a batch of waveforms
        torch.Size([2, 512])
        >>> model.embed(np.zeros(44100, np.float32), sample_rate=44100).shape  # or a path, such as "song.wav"
        (512,)
    """

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        sample_rate: int = 44100,
        head: nn.Module | None = None,
        level: Level = "none",
        level_in_forward: bool = True,
    ) -> None:
        super().__init__()
        check_level(level)
        self.frontend = frontend
        self.encoder = encoder
        self.sample_rate = int(sample_rate)
        self.head = head
        self.level = level
        self.level_in_forward = bool(level_in_forward)
        self.dim = encoder.dim if head is None else cast(int, head.dim)
        self.minimum_samples = frontend.samples_for(encoder.minimum_frames)
        self.licence = UNKNOWN_LICENCE
        self.calibration: ModelCalibration | None = None
        self.checkpoint: dict[str, Any] = {}

    def with_parts(self, **parts: Any) -> "EmbeddingModel":
        """The same model with other arguments: `with_parts(head=None)`; the weights, licence and checkpoint stay.

        The calibration does not: it holds for the whole model as it was.
        """
        names = ("frontend", "encoder", "sample_rate", "head", "level", "level_in_forward")
        model = EmbeddingModel(**{**{name: getattr(self, name) for name in names}, **parts})
        model.licence, model.checkpoint = self.licence, self.checkpoint
        return model if self.training else model.eval()

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` float in [-1, 1] at `sample_rate` -> `(batch, dim)`.

        Raises:
            InputError: the shape, type or device is wrong, or clips are too short. In evaluation mode also: samples are
                NaN or infinite.
        """
        self._check(waveforms)
        embeddings = self.encoder(self.frontend(self._leveled(waveforms)))
        return embeddings if self.head is None else self.head(embeddings)

    def frames(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, frame_dim)`, the frames of the encoder.

        Raises:
            InputError: as `forward`; or the encoder has no frames.
        """
        self._check(waveforms)
        return self.encoder.frames(self.frontend(self._leveled(waveforms)))

    @torch.inference_mode()
    def embed(self, audio: str | os.PathLike[str] | np.ndarray | Tensor, sample_rate: int | None = None) -> np.ndarray:
        """The embedding of a file or an array, at the level of the model. It is in evaluation mode meanwhile.

        Args:
            audio: path of an audio file, or samples `(samples,)` or `(batch, samples)`.
            sample_rate: sample rate of the array in Hz; it is resampled to the model's. None: it has the model's rate.
                A file states its own rate, so leave it out with a path.

        Returns:
            `(dim,)` float32 for a path or one clip, `(batch, dim)` for a batch.

        Raises:
            InputError: the file cannot be read, or the samples are none, too few, NaN, infinite, or of another shape.
        """
        if isinstance(audio, (str, os.PathLike)) and isinstance(self.encoder, PathEncoder):
            return self.encoder.look_up([Path(audio)])[0].mean()
        clips = self._load(audio, sample_rate)
        waveforms = torch.from_numpy(np.atleast_2d(clips)).to(self._device())
        with evaluating(self):
            embeddings = self(leveled(self, waveforms)).float().cpu().numpy()
        return embeddings[0] if clips.ndim == 1 else embeddings

    def _load(self, audio: Any, sample_rate: int | None) -> np.ndarray:
        from ssl_audio import audio as audio_files

        if isinstance(audio, (str, os.PathLike)):
            if sample_rate is not None:
                raise InputError(f"{os.fspath(audio)} states its own sample rate; leave sample_rate out with a path")
            return audio_files.read(audio, sample_rate=self.sample_rate)
        array = audio.detach().cpu().numpy() if isinstance(audio, Tensor) else np.asarray(audio)
        if array.dtype.kind != "f":
            raise InputError(
                f"samples are of type {array.dtype}; give floats in [-1, 1] (16-bit integers: divide by 32768)"
            )
        if array.ndim not in (1, 2):
            raise InputError(
                f"an array of shape {array.shape} is neither a clip (samples,) nor a batch (batch, samples); reshape it"
            )
        if array.size == 0:
            raise InputError("the waveform is empty; give at least one sample")
        array = array.astype(np.float32)
        if sample_rate is None or sample_rate == self.sample_rate:
            return array
        if sample_rate <= 0:
            raise InputError(f"sample_rate is {sample_rate}; it must be the rate of the array in Hz, above 0")
        if array.ndim == 1:
            return audio_files.resample(array, sample_rate, self.sample_rate)
        return np.stack([audio_files.resample(clip, sample_rate, self.sample_rate) for clip in array])

    def _leveled(self, waveforms: Tensor) -> Tensor:
        return set_level(waveforms, self.level) if self.level_in_forward else waveforms

    def _device(self) -> torch.device:
        return next((tensor.device for tensor in [*self.parameters(), *self.buffers()]), torch.device("cpu"))

    def _check(self, waveforms: Tensor) -> None:
        if torch.jit.is_tracing() or torch.compiler.is_compiling():
            return  # an exported model cannot raise, and a check would fix its shapes
        if waveforms.ndim != 2:
            raise InputError(f"audio has the shape {tuple(waveforms.shape)}; a model takes (batch, samples)")
        if not waveforms.is_floating_point():
            raise InputError(f"audio is of type {waveforms.dtype}; a model takes floats in [-1, 1]")
        if waveforms.device != self._device():
            raise InputError(
                f"audio is on {waveforms.device} and the model on {self._device()}; move one with .to(...)"
            )
        if waveforms.numel() == 0:
            raise InputError(f"audio of shape {tuple(waveforms.shape)} is empty; give at least one clip")
        if waveforms.shape[1] < self.minimum_samples:
            raise InputError(
                f"a clip of {waveforms.shape[1]} samples ({waveforms.shape[1] / self.sample_rate:.3f} s) is too short; "
                f"this model needs at least {self.minimum_samples} ({self.minimum_samples / self.sample_rate:.3f} s)"
            )
        if not self.training and not torch.isfinite(waveforms.sum(dtype=torch.float32)):
            raise InputError("audio holds NaN or infinite samples; clean or drop the clip")
