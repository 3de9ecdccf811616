"""Several views of one clip through one model, and two embeddings of one clip side by side."""

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.resemblyzer import raised
from ssl_audio.encoders.whitened import Whitening
from ssl_audio.errors import InputError

VIEWS = ("plain", "speech", "level")
RAISED_TO = -30.0  # dBFS, to which `level` raises softer clips
_FRAME_SECONDS, _SILENCE = 0.03, 1e-4  # a frame this much below the loudest one (40 dB in energy) is silent


class Views(Encoder):
    """The mean of a model's embeddings of several views of a clip. Each is scaled to unit length before and after.

    - `plain`: the clip as it is.
    - `speech`: silent frames are replaced: the other frames follow each other and are repeated up to the clip's length.
    - `level`: the root mean square of a soft clip is raised to -30 dBFS.

    Each view is a forward pass of its own.

    Args:
        model: waveforms -> `(batch, dim)`, an `EmbeddingModel`.
        views: names of views, each once.

    Raises:
        InputError: a view is unknown or named twice, or none is named.
    """

    def __init__(self, model: nn.Module, views: Sequence[str] = ("plain",)) -> None:
        super().__init__()
        unknown = [view for view in views if view not in VIEWS]
        if unknown or not views or len(set(views)) < len(views):
            raise InputError(f"views are {list(views)}; name one or more of {', '.join(VIEWS)}, each once")
        self.model, self.views = model, list(views)
        facts = cast(Any, model)
        self.dim, self.minimum_frames = facts.dim, facts.minimum_samples
        self.frame_dim = facts.encoder.frame_dim
        self._frame = max(1, round(_FRAME_SECONDS * facts.sample_rate))

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)` of unit length."""
        found = [F.normalize(self.model(self._view(features, view)).float(), dim=1) for view in self.views]
        return F.normalize(torch.stack(found).mean(dim=0), dim=1)

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, frame_dim)` of the clip as it is."""
        return cast(Any, self.model).frames(features)

    def _view(self, clips: Tensor, view: str) -> Tensor:
        if view == "speech":
            return without_silence(clips, self._frame)
        return raised(clips, RAISED_TO) if view == "level" else clips


def without_silence(clips: Tensor, frame: int) -> Tensor:
    """Clips `(batch, samples)` of the same shape, in which frames that are not silent take the place of silent ones.

    A frame is silent if its energy is 40 dB below that of the loudest frame of the clip. The length stays, so that
    clips of one length are one batch and the network can be exported.

    Args:
        clips: `(batch, samples)`.
        frame: samples of a frame; the rest of a clip after its last whole frame belongs to a frame padded with zeros.
    """
    samples = clips.shape[1]
    padded = F.pad(clips, (0, frame - 1))
    pieces = padded.unfold(1, frame, frame)  # (batch, frames, frame)
    energy = pieces.square().sum(dim=2)
    heard = energy > _SILENCE * energy.amax(dim=1, keepdim=True)
    heard = heard | ~heard.any(dim=1, keepdim=True)  # digital silence stays as it is
    count = heard.sum(dim=1, keepdim=True)
    frames = torch.arange(pieces.shape[1], device=clips.device).expand_as(heard)
    rank = torch.where(heard, torch.cumsum(heard.to(torch.int64), dim=1) - 1, pieces.shape[1])
    order = torch.zeros_like(F.pad(rank, (0, 1))).scatter(1, rank, frames)  # frames that are heard, in order of time
    place = frames % count
    chosen = torch.gather(order, 1, place).unsqueeze(2).expand(-1, -1, frame)
    return torch.gather(pieces, 1, chosen).flatten(1)[:, :samples]


class Joined(Encoder):
    """Two embeddings of a clip side by side; the cosine of two clips is the weighted mean of their two cosines.

    Args:
        first: an encoder of waveforms.
        second: a module of waveforms with `dim` and `minimum_samples`, such as `baselines.MelStatistics`.
        scaling: what the rows of `second` pass through first, such as their standardisation.
        weight: of the second cosine, between 0 and 1.

    Raises:
        InputError: the weight is not between 0 and 1.
    """

    def __init__(self, first: Encoder, second: nn.Module, scaling: Whitening, weight: float = 0.5) -> None:
        super().__init__()
        if not 0 < weight < 1:
            raise InputError(f"Joined.weight is {weight}; it must lie between 0 and 1")
        self.first, self.second, self.scaling, self.weight = first, second, scaling, weight
        other = cast(Any, second)
        self.dim, self.frame_dim = first.dim + other.dim, first.frame_dim
        self.minimum_frames = max(first.minimum_frames, other.minimum_samples)

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)` of unit length."""
        return join(self.first(features), self.scaling(self.second(features)), self.weight)

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, frame_dim)` of the first encoder."""
        return self.first.frames(features)


def join(first: Tensor, second: Tensor, weight: float) -> Tensor:
    """`(batch, a)` and `(batch, b)` rows -> `(batch, a + b)`, each part scaled to the length `sqrt` of its weight."""
    parts = (F.normalize(first, dim=1) * (1 - weight) ** 0.5, F.normalize(second, dim=1) * weight**0.5)
    return torch.cat(parts, dim=1)
