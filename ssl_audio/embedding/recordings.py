"""Embeddings of the files of a test set, with the clips optionally degraded."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssl_audio.embedding import embed_files
from ssl_audio.embedding.conditions import DIRECT_TO_REVERB_DB, Condition, generator, room
from ssl_audio.embedding.look_up import path_encoder
from ssl_audio.errors import InputError
from ssl_audio.level import level_of, leveled, set_level
from ssl_audio.resampling import PUBLISHED_FILTER, Resample
from ssl_audio.utils.device import best_device

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

NARROW_RATE = 16000  # Hz, lower rate of the round trip
_COMPUTED = "holds embeddings that are computed already; the audio cannot be changed"
_REVERB_SECONDS = (0.2, 0.8)  # range of the reverberation time (decay by 60 dB)


class EvalProtocol(nn.Module):
    """The preprocessing of clips in an evaluation, followed by the model.

    1. The level of each clip is set by the rule of the model, as everywhere (`ssl_audio.level`).
    2. With `round_trip`, the clip is resampled to 16 kHz and back, with the filter of the published protocol
       (`PUBLISHED_FILTER`).
    3. With `reverb_seed`, it is convolved with a room impulse response: the direct sound, followed by exponentially
       decaying noise. The response is drawn from the seed and the samples of the clip, scaled to a peak of 1. Every
       clip therefore has its own room, which is the same in every run and on every device.
    4. The level of a degraded clip is set again.

    With `crops`, the embedding is the mean of the unit vectors of evenly placed crops. The dot product of two such
    means is the mean cosine over all pairs of crops (voxceleb_trainer, sslsv).

    Args:
        model: `(batch, samples)` -> `(batch, dim)` with `.sample_rate`, `.minimum_samples`, `.dim`.
        round_trip: whether to resample to 16 kHz and back.
        reverb_seed: seed of the reverberation; None adds none.
        crops: number and length in seconds of the crops; a shorter clip is repeated. None embeds the clip whole.

    Raises:
        InputError: the audio is to be changed, and the model reads none because it looks embeddings up in a table.
    """

    def __init__(
        self,
        model: nn.Module,
        round_trip: bool = False,
        reverb_seed: int | None = None,
        crops: tuple[int, float] | None = None,
    ) -> None:
        super().__init__()
        table = path_encoder(model)
        if table is not None and (round_trip or reverb_seed is not None or crops is not None):
            raise InputError(f"{table.origin} {_COMPUTED}")
        self.model = model
        self.reverb_seed = reverb_seed
        self.crops = crops
        self.sample_rate: int = model.sample_rate  # type: ignore[assignment]
        self.minimum_samples: int = 1 if crops else model.minimum_samples  # type: ignore[assignment]
        self.dim: int = model.dim  # type: ignore[assignment]
        self.standardize: bool = getattr(model, "standardize", False)
        rates = [self.sample_rate, NARROW_RATE, self.sample_rate]
        useful = round_trip and self.sample_rate > NARROW_RATE  # at 16 kHz or less, the round trip changes nothing
        self.degrades = useful or reverb_seed is not None
        steps = [Resample(old, new, **PUBLISHED_FILTER) for old, new in pairwise(rates)] if useful else []
        self.narrow = nn.Sequential(*steps)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`."""
        clips = waveforms
        if self.degrades:
            clips = self.narrow(set_level(clips, level_of(self.model)))[:, : waveforms.shape[1]]
        if self.reverb_seed is not None:
            clips = torch.stack([self._reverberate(clip) for clip in clips])
        clips = leveled(self.model, clips)
        return self.model(clips) if self.crops is None else self._of_crops(clips)

    def _of_crops(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`, the mean of the unit vectors of the crops."""
        assert self.crops is not None
        count, seconds = self.crops
        length = max(round(seconds * self.sample_rate), 1)
        if clips.shape[1] < length:
            clips = clips.repeat(1, -(-length // clips.shape[1]))[:, :length]
        starts = np.linspace(0, clips.shape[1] - length, count).astype(int).tolist()
        vectors = [nn.functional.normalize(self.model(clips[:, start : start + length])) for start in starts]
        return torch.stack(vectors).mean(dim=0)

    def _reverberate(self, clip: Tensor) -> Tensor:
        rng = generator(set_level(clip[None], "peak")[0].cpu().numpy(), self.reverb_seed or 0)
        seconds, ratio = rng.uniform(*_REVERB_SECONDS), rng.uniform(*DIRECT_TO_REVERB_DB)
        response = torch.from_numpy(room(rng, self.sample_rate, seconds, ratio)).to(clip.device)
        size = len(clip) + len(response) - 1
        return torch.fft.irfft(torch.fft.rfft(clip, size) * torch.fft.rfft(response, size), size)[: len(clip)]


def embed_recordings(
    model: nn.Module,
    paths: Sequence[Path],
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    progress: str | None = "embedding",
    standardize: bool = True,
    condition: Condition | None = None,
) -> np.ndarray:
    """Embed whole files.

    Args:
        model: an `EmbeddingModel` or a module with its attributes.
        paths: audio files of any length, rate and format.
        batch_size: clips of one length in a forward pass; None for a default that suits the device.
        device: "cpu", "cuda", ...; None uses a GPU if there is one.
        progress: text of the progress bar; None for no bar.
        standardize: if the model has the attribute `standardize`, scale each dimension to zero mean and unit deviation
            over these files. False skips this; the caller can use `standardized` later.
        condition: what every file goes through first (`embedding.conditions`).

    Returns:
        (files, dim) float32, in the order of `paths`.

    Raises:
        InputError: a file cannot be read or is shorter than the model accepts (AudioError, with its path); or there is
            a condition, and the model reads no audio because it looks embeddings up in a table.
    """
    table = path_encoder(model)
    if table is not None and condition is not None:
        raise InputError(f"{table.origin} {_COMPUTED}")
    options: dict[str, Any] = {"batch_size": batch_size, "device": best_device(device), "change": condition}
    results = embed_files(cast("EmbeddingModel", model), list(paths), **options)
    bar = tqdm(results, progress, len(paths), unit="file", disable=progress is None, leave=False)
    embeddings = np.stack([result.embedding for result in bar if result.embedding is not None])
    return standardized(model, embeddings)[0] if standardize else embeddings


def standardized(model: nn.Module, embeddings: np.ndarray, *others: np.ndarray) -> list[np.ndarray]:
    """Standardise embeddings for a model with the attribute `standardize`; of other models they are returned unchanged.

    Args:
        model: the model that made the embeddings.
        embeddings: (files, dim); their mean and deviation are used for all arrays.
        others: further arrays (files, dim).

    Returns:
        The arrays in the order given.
    """
    if not getattr(model, "standardize", False):
        return [embeddings, *others]
    mean, deviation = embeddings.mean(axis=0), np.maximum(embeddings.std(axis=0), 1e-6)
    return [(table - mean) / deviation for table in (embeddings, *others)]
