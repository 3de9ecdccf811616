"""Baselines of an embedding: statistics of MFCCs, the mean mel spectrum, and the same network with random weights."""

import math

import torch
from torch import Tensor, nn

from ssl_audio.config import build, describe, without_pretrained
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.model import EmbeddingModel


class MelStatistics(nn.Module):
    """Statistics over time of the log mel spectrum or of its cosine transform (MFCCs). It has no trained parameters.

    Args:
        sample_rate: sample rate of the audio in Hz; the mel bank covers all frequencies.
        n_mels: number of mel bands.
        n_mfcc: number of coefficients of the orthonormal DCT-II; 0 keeps the mel bands.
        deviation: append the standard deviation over time to the mean over time.

    Attributes:
        dim, sample_rate, minimum_samples: see `EmbeddingModel`.
        level, level_in_forward: "peak", set where clips are handed to the model; see `ssl_audio.level`.
        standardize: True. The dimensions have different scales, so before cosines are computed, each dimension must be
            scaled to zero mean and unit deviation over the data set. This halves the error rates.
    """

    standardize = True
    level, level_in_forward = "peak", False
    dct: Tensor

    def __init__(self, sample_rate: int = 16000, n_mels: int = 128, n_mfcc: int = 0, deviation: bool = False) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.n_mels = n_mels
        self.n_mfcc = n_mfcc
        self.deviation = deviation
        self.frontend = LogMelSpectrogram(
            sample_rate, n_fft=1024, hop_length=256, n_mels=n_mels, log_offset=1e-8, normalize="none"
        )
        self.register_buffer("dct", _dct(n_mels)[:n_mfcc] if n_mfcc else torch.eye(n_mels), persistent=False)
        self.dim = self.dct.shape[0] * (2 if deviation else 1)
        self.minimum_samples = self.frontend.minimum_samples

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`."""
        features = self.dct @ self.frontend(waveforms)
        parts = [features.mean(dim=2)] + ([features.std(dim=2, unbiased=False)] if self.deviation else [])
        return torch.cat(parts, dim=1)


def mfcc_statistics(sample_rate: int = 16000) -> MelStatistics:
    """Mean and standard deviation of 20 MFCCs: `(batch, samples)` -> `(batch, 40)`."""
    return MelStatistics(sample_rate, n_mfcc=20, deviation=True)


def mean_mel(sample_rate: int = 16000) -> MelStatistics:
    """Mean log mel spectrum: `(batch, samples)` -> `(batch, 128)`."""
    return MelStatistics(sample_rate)


def untrained(model: EmbeddingModel, seed: int = 0) -> EmbeddingModel:
    """A model of the same architecture with random weights. The global random state is not changed.

    Args:
        model: the model.
        seed: of the weights.

    Raises:
        InputError: a part of the model does not store its arguments, so that it cannot be rebuilt.
    """
    spec = without_pretrained(describe(model))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build(spec, trusted=True).eval()


def _dct(n: int) -> Tensor:
    """(n, n) matrix of the orthonormal DCT-II, one row per coefficient."""
    k, i = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(n, dtype=torch.float64)
    rows = torch.cos(math.pi * k * (2 * i + 1) / (2 * n)) * math.sqrt(2 / n)
    rows[0] /= math.sqrt(2)
    return rows.float()
