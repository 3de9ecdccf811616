"""Frames of any model, and their times. A model whose encoder has no frames gives embeddings of sliding windows.

All lengths are in samples at the sample rate of the model. Long clips are computed in chunks, which limits the memory.
A chunk starts at the start of a frame, so the frames of all chunks have equal distances.
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
_WINDOW_SECONDS = 1.0  # length of windows, for models whose encoder has no frames; they overlap by half
_PROBE_SECONDS = (10.0, 40.0, 160.0)  # lengths of the clip on which frames are counted, until it has _ENOUGH
_ENOUGH = 5  # frames


class Frames(nn.Module):
    """`(batch, samples)` -> `(batch, frames, dim)`, for clips of any length.

    A clip that is too short for the model is repeated until it is long enough.

    Args:
        model: the model, in evaluation mode.
        chunk_seconds: length of a chunk.

    Attributes:
        dim: size of a frame.
        hop: distance between frames, in samples.
        start: centre of the first frame, in samples.
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
        """`(batch, samples)` in [-1, 1] at `model.sample_rate` -> `(batch, frames, dim)`."""
        waveforms = lengthened(waveforms, self.model.minimum_samples)
        if self.has_frames:  # the level of the whole clip, so that it does not change from chunk to chunk
            waveforms = set_level(waveforms, self.model.level)
        step = self.at_once * self.hop  # from chunk to chunk
        chunks = max(1, int(waveforms.shape[1] / step))
        length = round(2 * self.start + step)  # one frame more than needed, so that rounding loses none
        parts = []
        for first in (round(number * step) for number in range(chunks - 1)):
            part = self._frames(waveforms[:, first : first + length])[:, : self.at_once]
            if part.shape[1] < self.at_once:  # the frames of this encoder do not have equal distances
                return self._frames(waveforms)
            parts.append(part)
        return torch.cat([*parts, self._frames(waveforms[:, round((chunks - 1) * step) :])], 1)

    def times(self, frames: int) -> np.ndarray:
        """The centres of the frames in seconds, `(frames,)`."""
        return frame_times(self.hop, self.start, frames, self.model.sample_rate)

    def _frames(self, waveforms: Tensor) -> Tensor:
        if self.has_frames:
            return self.model.with_parts(level="none").frames(waveforms).float()
        waveforms = lengthened(waveforms, self.window)
        starts = range(0, waveforms.shape[1] - self.window + 1, int(self.hop))
        windows = (leveled(self.model, waveforms[:, at : at + self.window]) for at in starts)
        return torch.stack([self.model(window).float() for window in windows], 1)


def frame_times(hop: float, start: float, frames: int, sample_rate: int) -> np.ndarray:
    """The centres `(frames,)` in seconds of frames with a distance of `hop` samples, the first at sample `start`."""
    return (start + hop * np.arange(frames)) / sample_rate


def frame_timing(model: EmbeddingModel) -> tuple[float, float]:
    """The distance between frames and the centre of the first frame, in samples at the sample rate of the model.

    An encoder states them as `frame_hop` and `frame_start`, in frames of the frontend. For an encoder without these,
    they are measured: frames of clips of several lengths are counted, on the assumption that the centres of n frames
    lie symmetrically in the shortest clip with n frames.

    Raises:
        InputError: the encoder has too few frames to measure.
    """
    hop, start = getattr(model.encoder, "frame_hop", None), getattr(model.encoder, "frame_start", None)
    if hop is None or start is None:
        return _probed(model)
    frontend = model.frontend
    samples = (frontend.samples_for(20_001) - frontend.samples_for(10_001)) / 10_000  # per frame of the frontend
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
        raise InputError(
            f"a clip of {seconds:g} s has only {most} frames; set frame_hop and frame_start of the encoder"
        )
    few = max(2, most // 8)
    shortest = _least(count, few, model.minimum_samples, longest)
    about = (longest - shortest) // (most - few)
    long = _least(count, most, max(shortest, longest - 2 * about - 1), longest)
    hop = (long - shortest) / (most - few)
    return hop, max(0.0, (long - (most - 1) * hop) / 2)


def _least(count: Callable[[int], int], frames: int, low: int, high: int) -> int:
    """The shortest clip from `low` to `high` samples with at least `frames` frames. The longest must have them."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if count(middle) >= frames else (middle + 1, high)
    return low


def lengthened(waveforms: Tensor, samples: int) -> Tensor:
    """Clips `(batch, samples)`, repeated to the length `samples` if they are shorter."""
    have = waveforms.shape[1]
    if have == 0:
        raise InputError("a clip has no samples; leave it out")
    return waveforms if have >= samples else waveforms.repeat(1, -(-samples // have))[:, :samples]


@torch.inference_mode()
def embed_clips(model: EmbeddingModel, waveforms: Tensor, window_seconds: float = CHUNK_SECONDS) -> Tensor:
    """`(batch, samples)` at the sample rate of the model -> `(batch, dim)` float32 on the same device.

    The embedding of a clip longer than a window is the mean over windows, as in
    `ssl-audio embed --window 30 --aggregate`.
    """
    waveforms = lengthened(waveforms, model.minimum_samples)
    window = max(model.minimum_samples, round(window_seconds * model.sample_rate))
    if waveforms.shape[1] <= window:
        return model(leveled(model, waveforms)).float()
    starts = window_starts(waveforms.shape[1], window, window)
    windows = (leveled(model, waveforms[:, at : at + window]) for at in starts)
    return torch.stack([model(window).float() for window in windows]).mean(0)
