"""Embeddings of the files of a test set, with the clips optionally degraded."""

import zlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from ssl_audio.embedding import embed_files
from ssl_audio.embedding.look_up import path_encoder
from ssl_audio.errors import InputError
from ssl_audio.level import level_of, leveled, set_level
from ssl_audio.resampling import PUBLISHED_FILTER, Resample
from ssl_audio.utils.device import best_device

NARROW_RATE = 16000  # Hz, lower rate of the round trip
_REVERB_SECONDS = (0.2, 0.8)  # range of the reverberation time (decay by 60 dB)
_DIRECT_TO_REVERB_DB = (0.0, 10.0)


class EvalProtocol(nn.Module):
    """The preprocessing of clips in an evaluation, followed by the model.

    1. The level of each clip is set by the rule of the model, as everywhere (`ssl_audio.level`).
    2. With `round_trip`, the clip is resampled to 16 kHz and back, with the filter of the published protocol
       (`PUBLISHED_FILTER`).
    3. With `reverb_seed`, it is convolved with a room impulse response: the direct sound, followed by exponentially
       decaying noise. The response is drawn from the seed and the samples of the clip, scaled to a peak of 1. Every
       clip therefore has its own room, which is the same in every run and on every device.
    4. The level of a degraded clip is set again.

    Args:
        model: `(batch, samples)` -> `(batch, dim)` with `.sample_rate`, `.minimum_samples`, `.dim`.
        round_trip: whether to resample to 16 kHz and back.
        reverb_seed: seed of the reverberation; None adds none.

    Raises:
        InputError: the audio is to be changed, and the model reads none because it looks embeddings up in a table.
    """

    def __init__(self, model: nn.Module, round_trip: bool = False, reverb_seed: int | None = None) -> None:
        super().__init__()
        table = path_encoder(model)
        if table is not None and (round_trip or reverb_seed is not None):
            raise InputError(f"{table.origin} holds embeddings that are computed already; the audio cannot be changed")
        self.model = model
        self.reverb_seed = reverb_seed
        self.sample_rate: int = model.sample_rate  # type: ignore[assignment]
        self.minimum_samples: int = model.minimum_samples  # type: ignore[assignment]
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
        return self.model(leveled(self.model, clips))

    def _reverberate(self, clip: Tensor) -> Tensor:
        samples = set_level(clip[None], "peak")[0].cpu().numpy()
        response = torch.from_numpy(self._room(np.round(samples * 32767).astype(np.int16))).to(clip.device)
        size = len(clip) + len(response) - 1
        return torch.fft.irfft(torch.fft.rfft(clip, size) * torch.fft.rfft(response, size), size)[: len(clip)]

    def _room(self, samples: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([self.reverb_seed or 0, zlib.crc32(samples.tobytes())])
        seconds, ratio = rng.uniform(*_REVERB_SECONDS), rng.uniform(*_DIRECT_TO_REVERB_DB)
        time = np.arange(1, int(seconds * self.sample_rate)) / self.sample_rate
        tail = rng.standard_normal(len(time)) * 10 ** (-3 * time / seconds)
        tail *= 10 ** (-ratio / 20) / np.sqrt(np.sum(tail**2))
        return np.r_[1.0, tail].astype(np.float32)


def embed_recordings(
    model: nn.Module,
    paths: Sequence[Path],
    batch_size: int | None = None,
    device: str | torch.device | None = None,
    progress: str | None = "embedding",
    standardize: bool = True,
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

    Returns:
        (files, dim) float32, in the order of `paths`.

    Raises:
        InputError: a file cannot be read or is shorter than the model accepts (AudioError, with its path).
    """
    results = embed_files(model, list(paths), batch_size=batch_size, device=best_device(device))  # type: ignore[arg-type]
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
