"""The base of foreign encoders of waveforms: short clips, fixed windows, networks that depend on the batch."""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError

SHORT = ("refuse", "repeat", "pad")
WINDOWS_AT_ONCE = 32  # windows of long clips in one forward pass

logger = logging.getLogger(__name__)


class ClipEncoder(Encoder):
    """An encoder of waveforms `(batch, samples)` around a network that takes clips of certain lengths only.

    A subclass defines `vectors` and sets `dim` and `shortest`. If the length of a clip is limited, it sets `window`.

    Args:
        short: what to do with a clip shorter than `shortest`: `refuse` it, `repeat` it until it is long enough, or
            `pad` it with zeros at its end.
        batched: whether clips may share a forward pass; False for a network whose result depends on the batch.

    Attributes:
        shortest: samples of the shortest clip that the network takes.
        window: samples of the longest clip that the network takes; None for no limit. The vector of a longer clip is
            the mean over adjacent windows of this length. The last window ends with the clip, as in
            `embedding.embed_files`.
    """

    shortest: int = 1
    window: int | None = None

    def __init__(self, short: str = "refuse", batched: bool = True) -> None:
        super().__init__()
        if short not in SHORT:
            raise InputError(f"short is {short!r}; it must be one of {', '.join(SHORT)}")
        self.short = short
        self.batched = batched
        self._said = False

    @property
    def minimum_frames(self) -> int:  # type: ignore[override]
        """Samples of the shortest clip; 1 if short clips are repeated or padded."""
        return self.shortest if self.short == "refuse" else 1

    def vectors(self, clips: Tensor) -> Tensor:
        """`(batch, samples)`, from `shortest` to `window` samples -> `(batch, dim)`."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`."""
        clips = lengthened(features, self.shortest, self.short)
        if self.window is None:
            return self._passes(clips)
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            raise InputError(
                f"the model takes windows of {self.window} samples; cutting clips into windows cannot be exported"
            )
        if clips.shape[1] <= self.window:
            return self._passes(clips)
        if not self._said:
            self._said = True
            logger.warning(
                f"{getattr(self, 'origin', type(self).__name__)} takes {self.window} samples at most; the vector of a "
                "longer clip is the mean over windows of this length"
            )
        pieces = windows(clips, self.window)  # (batch, count, window)
        found = torch.cat([self._passes(some) for some in pieces.flatten(0, 1).split(WINDOWS_AT_ONCE)])
        return found.unflatten(0, pieces.shape[:2]).mean(dim=1)

    def _passes(self, clips: Tensor) -> Tensor:
        if self.batched or len(clips) == 1:
            return self.vectors(clips)
        return torch.cat([self.vectors(clip) for clip in clips.split(1)])


def lengthened(clips: Tensor, samples: int, short: str) -> Tensor:
    """Clips `(batch, samples)`; if they are shorter than `samples`, repeated or padded with zeros to this length."""
    there = clips.shape[1]
    if short == "refuse" or there >= samples:
        return clips
    if short == "pad":
        return F.pad(clips, (0, samples - there))
    return clips.repeat(1, -(-samples // there))[:, :samples]


def at_least(size: Any, least: int) -> Any:
    """The larger of a size and a number, in a form that can be exported: a tracer gives sizes as tensors."""
    return size.clamp(min=least) if isinstance(size, Tensor) else torch.sym_max(size, least)


def windows(clips: Tensor, length: int) -> Tensor:
    """Cut clips `(batch, samples)` into adjacent windows `(batch, count, length)`. The last one ends with the clip.

    The clips must be at least as long as a window.
    """
    last = clips.shape[1] - length
    starts = [*range(0, last, length), last]
    return torch.stack([clips[:, start : start + length] for start in starts], dim=1)
