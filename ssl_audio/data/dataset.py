"""Items for learning without labels: two fragments of one recording, from (seed, epoch, item) and nothing else."""

import signal
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import Dataset, default_collate

from ssl_audio.audio import AudioError, peak_normalize
from ssl_audio.data.index import AudioEntry, Group, LeftOut
from ssl_audio.data.int16 import AudioReader
from ssl_audio.data.sampler import Draw
from ssl_audio.data.scan import SILENCE_PEAK
from ssl_audio.data.store import open_recording
from ssl_audio.errors import InputError

ClipAugmentation = Callable[[np.ndarray, int, Generator], np.ndarray]
"""(audio (samples,) float32, sample_rate, rng) -> (samples,) float32."""

SamplingMode = Literal["sample_clips", "sample_groups"]

_TRIES_FOR_SOUND = 32  # fragments drawn from a file before its silence is called a failure
_TRIES_FOR_A_FILE = 16  # files tried for one item before training is stopped


class NoAudioError(InputError):
    """File after file could not be read. One line, also when a DataLoader's worker puts its traceback around it."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rstrip().splitlines()[-1].rpartition(f"{type(self).__name__}: ")[2])


class TwoViewDataset(Dataset):
    """Two random fragments of the same file, each peak-normalised, then augmented on its own.

    `dataset[Draw(epoch, item)]` is a dictionary: "clip1" and "clip2" (samples,) float32 tensors, "group_name" str,
    "index" int (position of the file in `entries`), "failures" (list of `LeftOut`: files that could not be read, in
    whose place another file of the same group was drawn). `collate` makes batches of them.

    Args:
        groups: see `AudioIndex.split`.
        nr_samples: length of a fragment, at `sample_rate`.
        sample_rate: Hz; files of other rates are resampled.
        seed: every random number comes from (seed, epoch, item), so it is the same for any number of workers.
        batch_sampling_mode: "sample_clips": an epoch visits each file; "sample_groups": each group, with a random file
            of it.
        multi_epoch: how many times an epoch repeats that, with other fragments each time.
        augmentation: per clip, or None.
        shared_crop: both clips are the same fragment and differ by the augmentation alone.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        nr_samples: int,
        sample_rate: int,
        seed: int = 0,
        batch_sampling_mode: SamplingMode = "sample_clips",
        multi_epoch: int = 1,
        augmentation: ClipAugmentation | None = None,
        shared_crop: bool = False,
    ) -> None:
        self.groups = list(groups)
        self.entries = [entry for group in groups for entry in group.entries]
        self.nr_samples = nr_samples
        self.sample_rate = sample_rate
        self.seed = seed
        self.batch_sampling_mode = batch_sampling_mode
        self.multi_epoch = multi_epoch
        self.augmentation = augmentation
        self.shared_crop = shared_crop
        sizes = [len(group.entries) for group in groups]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)  # of each group's files in `entries`

    def __len__(self) -> int:
        visited = self.groups if self.batch_sampling_mode == "sample_groups" else self.entries
        return len(visited) * self.multi_epoch

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        rng = np.random.default_rng([self.seed, draw.epoch, draw.item])
        position = draw.item // self.multi_epoch
        if self.batch_sampling_mode == "sample_groups":
            group, index = position, int(rng.integers(self._first[position], self._first[position + 1]))
        else:
            group, index = int(np.searchsorted(self._first, position, side="right")) - 1, position
        failures: list[LeftOut] = []
        while True:
            try:
                clip1, clip2 = self._views(self.entries[index], rng)
                break
            except AudioError as error:
                failures.append(LeftOut(error.path, error.reason))
                if len(failures) >= _TRIES_FOR_A_FILE:
                    raise NoAudioError(
                        f"{len(failures)} files in a row could not be read, the last {error}; is the disk still there?"
                    ) from None
                group, index = self._another(group, index, rng, anywhere=len(failures) > _TRIES_FOR_A_FILE // 2)
        return {
            "clip1": torch.from_numpy(clip1),
            "clip2": torch.from_numpy(clip2),
            "group_name": self.groups[group].name,
            "index": index,
            "failures": failures,
        }

    def _another(self, group: int, index: int, rng: Generator, anywhere: bool) -> tuple[int, int]:
        """(group, index) of another file: of the same group if it has one and we did not give it up."""
        first, end = int(self._first[group]), int(self._first[group + 1])
        if anywhere or end - first < 2:
            index = int(rng.integers(len(self.entries)))
            return int(np.searchsorted(self._first, index, side="right")) - 1, index
        return group, first + (index - first + int(rng.integers(1, end - first))) % (end - first)

    def _views(self, entry: AudioEntry, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """Both fragments of one opened file, normalised and augmented."""
        with self._open(entry) as file:
            first = self._fragment(file, entry, rng)
            second = first if self.shared_crop else self._fragment(file, entry, rng)
        return self._finished(first, entry, rng), self._finished(second, entry, rng)

    def _open(self, entry: AudioEntry) -> AudioReader:
        return open_recording(entry)

    def _fragment(self, file: AudioReader, entry: AudioEntry, rng: Generator) -> np.ndarray:
        """(nr_samples,) of a place drawn uniformly; drawn again where there is only silence."""
        length = entry.samples(self.sample_rate)
        for _ in range(_TRIES_FOR_SOUND):
            start = int(rng.integers(max(0, length - self.nr_samples) + 1))
            audio = file.read(start, self.nr_samples, self.sample_rate)
            if len(audio) < min(self.nr_samples, length):
                raise AudioError(entry.path, f"ends before the {length} samples that it had when it was scanned")
            if np.abs(audio).max() >= SILENCE_PEAK:
                return peak_normalize(np.resize(audio, self.nr_samples))  # a file shorter than the window is repeated
        raise AudioError(entry.path, f"gave silence {_TRIES_FOR_SOUND} times in a row")

    def _finished(self, clip: np.ndarray, entry: AudioEntry, rng: Generator) -> np.ndarray:
        """(nr_samples,) float32 after the augmentation, checked."""
        if self.augmentation is not None:
            clip = np.asarray(self.augmentation(clip, self.sample_rate, rng), np.float32)
            if clip.shape != (self.nr_samples,):
                raise InputError(f"the augmentation made {clip.shape} samples of {self.nr_samples}; it must keep them")
            if not np.isfinite(clip).all():
                raise AudioError(entry.path, "became NaN or infinite in the augmentation")
        return clip


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch: "clip1", "clip2" (batch, samples), "group_name" list[str], "index" (batch,) int64, "failures" joined."""
    failures = [failure for item in items for failure in item["failures"]]
    batch = default_collate([{key: value for key, value in item.items() if key != "failures"} for item in items])
    return {**batch, "failures": failures}


def ignore_sigint(worker: int) -> None:
    """A terminal sends Ctrl-C to the workers too; they stay until the process that they read for ends the step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
