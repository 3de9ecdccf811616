"""Rooms and backgrounds: convolution with impulse responses, and noise from recordings."""

import math
import os

import numpy as np
import torch
from torch import Generator, Tensor

from ssl_audio import audio
from ssl_audio.augmentations.base import check_range
from ssl_audio.augmentations.batch.base import BatchTransform, fast_length, positions, randint, uniform
from ssl_audio.augmentations.batch.filters import bins, filter_by, fourier
from ssl_audio.augmentations.batch.level import root_mean_square
from ssl_audio.errors import InputError


def convolve(clips: Tensor, responses: Tensor) -> Tensor:
    """Convolve each clip with its own impulse response and cut the tail.

    `(batch, samples)` clips, `(batch, n)` responses -> `(batch, samples)`.
    """
    size = fast_length(clips.shape[1] + responses.shape[1] - 1)
    return filter_by(clips, fourier(torch.fft.rfft, responses, size), size)


class Recordings:
    """The audio of a folder. It is decoded once for each rate and device, and kept.

    Args:
        folder: folder of recordings; sub-folders are searched.
        budget: largest size of the decoded audio (float32), in bytes. If there is more, some files are left out; a
            fixed shuffle decides which.

    Raises:
        InputError: the folder holds no audio.
    """

    def __init__(self, folder: str | os.PathLike[str], budget: int) -> None:
        self.paths = audio.find_audio_files(folder)
        if not self.paths:
            raise InputError(f"{os.fspath(folder)}: no audio files; give a folder of recordings")
        self.budget = budget
        self._decoded: dict[tuple[int, torch.device], tuple[Tensor, ...]] = {}

    def at(self, sample_rate: int, device: torch.device) -> tuple[Tensor, ...]:
        """The recordings, `(samples,)` each. Files are read in the first call for a rate and a device only."""
        key = sample_rate, device
        if key not in self._decoded:
            kept, room = [], self.budget // 4
            for i in np.random.default_rng(0).permutation(len(self.paths)):
                if room <= 0:
                    break
                samples = audio.read(self.paths[i], sample_rate=sample_rate, samples=room)
                if np.isfinite(samples).all() and np.abs(samples).max(initial=0) > 0:
                    kept.append(torch.from_numpy(samples).to(device))
                    room -= len(samples)
            if not kept:
                raise InputError(
                    f"{self.paths[0].parent}: every recording is silent; give a folder of other recordings"
                )
            self._decoded[key] = tuple(kept)
        return self._decoded[key]


class ImpulseResponse(BatchTransform):
    """Convolve with an impulse response, drawn uniformly from the recordings of a folder, and keep the loudness.

    Args:
        folder: recordings of impulse responses; decoded once.
        max_seconds: longer responses are cut.
        p: probability.
    """

    def __init__(self, folder: str, max_seconds: float = 2.0, p: float = 0.5) -> None:
        super().__init__(p)
        self.folder, self.max_seconds = folder, max_seconds
        self._recordings = Recordings(folder, budget=2**30)
        self._bank: dict[tuple[int, torch.device], Tensor] = {}

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        key = sample_rate, clips.device
        if key not in self._bank:
            limit = max(1, int(self.max_seconds * sample_rate))
            responses = [response[:limit] for response in self._recordings.at(*key)]
            self._bank[key] = torch.nn.utils.rnn.pad_sequence(responses, batch_first=True)
        bank = self._bank[key]
        wet = convolve(clips, bank[randint(clips, 0, len(bank) - 1, generator).squeeze(1)])
        return wet * (root_mean_square(clips) / root_mean_square(wet).clamp_min(1e-9))


def fall(decay: Tensor, samples: int, run: int = 256) -> Tensor:
    """`(batch, samples)` exponentials that fall by 60 dB in `decay` samples, `(batch, 1)`.

    Segments of an exponential differ only by a factor, so only one segment and the factors are computed.
    """
    rate = -math.log(1000) / decay
    time = torch.arange(max(run, -(-samples // run)), device=decay.device)
    within, runs = torch.exp(rate * time[:run]), torch.exp(rate * run * time[: -(-samples // run)])
    return (runs[:, :, None] * within[:, None]).flatten(1)[:, :samples]


class Reverb(BatchTransform):
    """Add a synthetic room: convolve with exponentially decaying noise.

    Args:
        min_decay, max_decay: the reverberation time (fall by 60 dB) is uniform between these, in seconds.
        min_wet, max_wet: the fraction of the reverberation in the result is uniform between these; in [0, 1].
        max_damping: above 2 kHz, the reverberation time is shorter, by a fraction uniform in [0, max_damping].
        p: probability.
    """

    CROSSOVER = 2000.0

    def __init__(
        self,
        min_decay: float = 0.1,
        max_decay: float = 1.0,
        min_wet: float = 0.1,
        max_wet: float = 0.5,
        max_damping: float = 0.8,
        p: float = 0.5,
    ) -> None:
        super().__init__(p)
        check_range("Reverb decay", min_decay, max_decay, at_least=0.001, at_most=20)
        check_range("Reverb wet", min_wet, max_wet, at_least=0, at_most=1)
        check_range("Reverb damping", 0, max_damping, at_most=0.99)
        self.min_decay, self.max_decay = min_decay, max_decay
        self.min_wet, self.max_wet, self.max_damping = min_wet, max_wet, max_damping
        self._noise: dict[tuple[int, torch.device], Tensor] = {}

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        wet = uniform(clips, self.min_wet, self.max_wet, generator)
        response = self.responses(clips, sample_rate, generator)
        response *= wet / torch.linalg.vector_norm(response, dim=1, keepdim=True).clamp_min_(1e-9)
        response[:, 0] += 1 - wet.squeeze(1)  # the direct sound
        return convolve(clips, response)

    def responses(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        """`(batch, n)` decaying noises, one per clip."""
        size = min(clips.shape[1], math.ceil(self.max_decay * sample_rate))
        decay = uniform(clips, self.min_decay, self.max_decay, generator)
        damped = decay * (1 - uniform(clips, 0, self.max_damping, generator))
        low, high = self.noise(sample_rate, clips.device)
        start = randint(clips, 0, low.shape[1] - size, generator)[:, 0]
        low, high = (part[0].unfold(0, size, 1).index_select(0, start) for part in (low, high))
        return low.mul_(fall(decay * sample_rate, size)).addcmul_(high, fall(damped * sample_rate, size))

    def noise(self, sample_rate: int, device: torch.device) -> Tensor:
        """`(2, 1, samples)` white noise below and above the crossover, computed once. Each clip uses a part of it."""
        key = sample_rate, device
        if key not in self._noise:
            size = fast_length(math.ceil((4 + 2 * self.max_decay) * sample_rate))
            white = torch.randn(1, size, generator=torch.Generator().manual_seed(0))
            low = filter_by(white, (bins(size, white) * sample_rate < self.CROSSOVER).to(white.dtype), size)
            self._noise[key] = torch.stack([low, white - low]).to(device)
        return self._noise[key]


class BackgroundNoise(BatchTransform):
    """Add a random part of the recordings of a folder, at a random signal-to-noise ratio.

    Args:
        folder: recordings of noise; decoded once and concatenated, so a part may come from two recordings.
        min_snr_db, max_snr_db: the signal-to-noise ratio is uniform between these, in decibels. Silent clips stay
            silent.
        budget: largest size of the decoded audio in bytes.
        p: probability.
    """

    def __init__(
        self,
        folder: str,
        min_snr_db: float = 5.0,
        max_snr_db: float = 19.0,
        budget: int = 2**28,
        p: float = 0.5,
    ) -> None:
        super().__init__(p)
        check_range("BackgroundNoise signal-to-noise ratio", min_snr_db, max_snr_db)
        self.folder, self.budget = folder, budget
        self.min_snr_db, self.max_snr_db = min_snr_db, max_snr_db
        self._recordings = Recordings(folder, budget)
        self._bank: dict[tuple[int, torch.device], Tensor] = {}

    def transform(self, clips: Tensor, sample_rate: int, generator: Generator | None) -> Tensor:
        key = sample_rate, clips.device
        if key not in self._bank:
            self._bank[key] = torch.cat(self._recordings.at(*key))
        bank = self._bank[key]
        first = randint(clips, 0, len(bank) - 1, generator)
        noise = bank[(first + positions(clips)).remainder_(len(bank))]
        snr = uniform(clips, self.min_snr_db, self.max_snr_db, generator)
        level = root_mean_square(clips) * 10 ** (-snr / 20) / root_mean_square(noise).clamp_min(1e-5)
        return torch.addcmul(clips, level, noise)
