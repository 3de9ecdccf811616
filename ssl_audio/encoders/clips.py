"""Encoders of raw waveforms that others designed: shortest clips, fixed windows, clips that must not share a batch."""

import logging
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError

SHORT = ("refuse", "repeat", "pad")
WINDOWS_AT_ONCE = 32  # of long clips

logger = logging.getLogger(__name__)


class ClipEncoder(Encoder):
    """Waveforms `(batch, samples)` -> vectors, by a network that has its own idea of how long a clip is.

    A subclass defines `vectors`, and sets `dim`, `shortest` and, where the network takes no longer clips, `window`.

    Args:
        short: what happens to a clip under `shortest`: `refuse` it, `repeat` it until it is long enough, or `pad` it
            with zeros at its end.
        batched: whether clips may share a forward pass; False for a network whose result depends on the batch.

    Attributes:
        shortest: samples that the network needs.
        window: samples that the network takes at most. The vector of a longer clip is the mean over windows of this
            length, one after the other; the last one ends with the clip, as in `embedding.embed_files`.
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
        """The shortest clip in samples, which is one sample where short clips are made longer."""
        return self.shortest if self.short == "refuse" else 1

    def vectors(self, clips: Tensor) -> Tensor:
        """`(batch, samples)`, neither too short nor too long -> `(batch, dim)`."""
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`."""
        clips = lengthened(features, self.shortest, self.short)
        if self.window is None:
            return self._passes(clips)
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            raise InputError(
                f"it takes windows of {self.window} samples, and cutting clips into them has no form without Python"
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
    """`(batch, samples)` clips, those under so many samples repeated or padded with zeros to exactly so many."""
    there = clips.shape[1]
    if short == "refuse" or there >= samples:
        return clips
    if short == "pad":
        return F.pad(clips, (0, samples - there))
    return clips.repeat(1, -(-samples // there))[:, :samples]


def at_least(size: Any, least: int) -> Any:
    """The larger of a size and a number, in a way that exported graphs compute: a tracer has tensors for sizes."""
    return size.clamp(min=least) if isinstance(size, Tensor) else torch.sym_max(size, least)


def windows(clips: Tensor, length: int) -> Tensor:
    """`(batch, samples)` -> `(batch, count, length)`: one after the other, the last one ends with the clip.

    The clips are at least as long as a window.
    """
    last = clips.shape[1] - length
    starts = [*range(0, last, length), last]
    return torch.stack([clips[:, start : start + length] for start in starts], dim=1)
