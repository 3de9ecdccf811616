"""Frames along time of any model, with their times: of the encoder where it has frames, else of sliding windows.

All lengths are in samples at the model's rate. Long clips are computed in chunks, so that memory is bounded; chunks
begin on frames, so that the times go on evenly.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from ssl_audio.embedding.files import window_starts
from ssl_audio.errors import InputError
from ssl_audio.level import leveled, set_level
from ssl_audio.model import EmbeddingModel

CHUNK_SECONDS = 30.0
_WINDOW_SECONDS = 1.0  # of models whose encoder has no frames, moved by half of it
_PROBE_SECONDS = (10.0, 40.0, 160.0)  # clips on which frames are counted: the first with enough of them
_ENOUGH = 5  # frames


class Frames(nn.Module):
    """`(batch, samples)` -> `(batch, frames, dim)`, for clips of any length.

    A clip that is shorter than the model's shortest is repeated until it is long enough.

    Args:
        model: in evaluation mode.
        chunk_seconds: what is computed at once.

    Attributes:
        dim: size of a frame.
        hop: from one frame to the next.
        start: the centre of the first frame.
    """

    def __init__(self, model: EmbeddingModel, chunk_seconds: float = CHUNK_SECONDS) -> None:
        super().__init__()
        self.model = model
        frame_dim = model.encoder.frame_dim if model.head is None else None
        self.has_frames = frame_dim is not None
        self.dim = model.dim if frame_dim is None else int(frame_dim)
        if self.has_frames:
            self.hop, self.start = frame_timing(model)
        else:
            self.window = max(model.minimum_samples, round(_WINDOW_SECONDS * model.sample_rate))
            self.hop, self.start = float(max(1, self.window // 2)), self.window / 2
        self.at_once = max(_ENOUGH, int(chunk_seconds * model.sample_rate / self.hop))  # frames

    def forward(self, waveforms: Tensor) -> Tensor:
        """Float in [-1, 1] at `model.sample_rate`."""
        waveforms = lengthened(waveforms, self.model.minimum_samples)
        if self.has_frames:  # the level of the whole clip, so that it does not change from chunk to chunk
            waveforms = set_level(waveforms, self.model.level)
        step = self.at_once * self.hop  # from chunk to chunk
        chunks = max(1, int(waveforms.shape[1] / step))
        length = round(2 * self.start + step)  # has one frame more than is taken, so that rounding never costs one
        parts = []
        for first in (round(number * step) for number in range(chunks - 1)):
            part = self._frames(waveforms[:, first : first + length])[:, : self.at_once]
            if part.shape[1] < self.at_once:  # an encoder whose frames do not go on evenly
                return self._frames(waveforms)
            parts.append(part)
        return torch.cat([*parts, self._frames(waveforms[:, round((chunks - 1) * step) :])], 1)

    def times(self, frames: int) -> np.ndarray:
        """`(frames,)` seconds: the centres."""
        return frame_times(self.hop, self.start, frames, self.model.sample_rate)

    def _frames(self, waveforms: Tensor) -> Tensor:
        if self.has_frames:
            return self.model.with_parts(level="none").frames(waveforms).float()
        waveforms = lengthened(waveforms, self.window)
        starts = range(0, waveforms.shape[1] - self.window + 1, int(self.hop))
        windows = (leveled(self.model, waveforms[:, at : at + self.window]) for at in starts)
        return torch.stack([self.model(window).float() for window in windows], 1)


def frame_times(hop: float, start: float, frames: int, sample_rate: int) -> np.ndarray:
    """`(frames,)` seconds: centres of frames that lie `hop` samples apart, the first at sample `start`."""
    return (start + hop * np.arange(frames)) / sample_rate


def frame_timing(model: EmbeddingModel) -> tuple[float, float]:
    """(from frame to frame, the centre of the first), in samples at the model's rate.

    An encoder says it by `frame_hop` and `frame_start`, in the frontend's frames. For one that does not, frames of
    clips of several lengths are counted; a clip that just has n frames is taken to lie evenly around their centres.

    Raises:
        InputError: the encoder gives too few frames for that.
    """
    hop, start = getattr(model.encoder, "frame_hop", None), getattr(model.encoder, "frame_start", None)
    if hop is None or start is None:
        return _probed(model)
    frontend = model.frontend
    samples = (
        frontend.samples_for(20_001) - frontend.samples_for(10_001)
    ) / 10_000  # from one of its frames to the next
    return hop * samples, start * samples


def _probed(model: EmbeddingModel) -> tuple[float, float]:
    generator = torch.Generator().manual_seed(0)
    device = next((tensor.device for tensor in [*model.parameters(), *model.buffers()]), torch.device("cpu"))

    @torch.inference_mode()
    def count(samples: int) -> int:
        noise = 0.1 * torch.randn(1, samples, generator=generator)
        return model.frames(noise.to(device)).shape[1]

    for seconds in _PROBE_SECONDS:
        longest = max(round(seconds * model.sample_rate), 2 * model.minimum_samples)
        most = count(longest)
        if most >= _ENOUGH:
            break
    else:
        raise InputError(f"a clip of {seconds:g} s has {most} frames; their times cannot be measured on that")
    few = max(2, most // 8)
    shortest = _least(count, few, model.minimum_samples, longest)
    about = (longest - shortest) // (most - few)
    long = _least(count, most, max(shortest, longest - 2 * about - 1), longest)
    hop = (long - shortest) / (most - few)
    return hop, max(0.0, (long - (most - 1) * hop) / 2)


def _least(count: Callable[[int], int], frames: int, low: int, high: int) -> int:
    """The shortest clip from `low` to `high` samples that has so many frames; `high` has them."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= frames else (middle + 1, high)
    return low


def lengthened(waveforms: Tensor, samples: int) -> Tensor:
    """`(batch, samples)` clips, repeated until they are so long; longer ones as they are."""
    have = waveforms.shape[1]
    if have == 0:
        raise InputError("a clip without samples has no embedding")
    return waveforms if have >= samples else waveforms.repeat(1, -(-samples // have))[:, :samples]


@torch.inference_mode()
def embed_clips(model: EmbeddingModel, waveforms: Tensor, window_seconds: float = CHUNK_SECONDS) -> Tensor:
    """`(batch, samples)` at the model's rate -> `(batch, dim)` float32 on the same device.

    A longer clip is the mean over windows, as of `ssl-audio embed --window 30 --aggregate`.
    """
    waveforms = lengthened(waveforms, model.minimum_samples)
    window = max(model.minimum_samples, round(window_seconds * model.sample_rate))
    if waveforms.shape[1] <= window:
        return model(leveled(model, waveforms)).float()
    starts = window_starts(waveforms.shape[1], window, window)
    windows = (leveled(model, waveforms[:, at : at + window]) for at in starts)
    return torch.stack([model(window).float() for window in windows]).mean(0)
