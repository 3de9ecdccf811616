"""Items of recordings, from (seed, epoch, item) and nothing else: two views of one recording, or one clip of it."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import Dataset, default_collate

from ssl_audio.audio import AudioError, is_silent, peak_normalize
from ssl_audio.data.failures import NoAudioError
from ssl_audio.data.index import AudioEntry, Group, LeftOut
from ssl_audio.data.int16 import AudioReader
from ssl_audio.data.sampler import Draw
from ssl_audio.data.store import open_recording
from ssl_audio.errors import InputError

ClipAugmentation = Callable[[np.ndarray, int, Generator], np.ndarray]
"""(audio (samples,) float32, sample_rate, rng) -> (samples,) float32."""

Open = Callable[[AudioEntry], AudioReader]
"""Opens a recording, to read parts of it."""

SamplingMode = Literal["sample_clips", "sample_groups"]

Positives = Literal["same_recording", "same_group"]

_TRIES_FOR_SOUND = 32  # fragments drawn from a recording before its silence is called a failure
_TRIES_FOR_A_FILE = 16  # recordings tried for one item before training is stopped


@dataclass(frozen=True)
class Crop:
    """How a clip is cut out of a recording.

    Attributes:
        nr_samples: of a clip, at `sample_rate`; a shorter recording is repeated until it fills the clip.
        sample_rate: Hz; recordings of other rates are resampled.
        augmentation: per clip, or None.
        normalize: scale each fragment so that its peak is 1, and draw another where there is only silence. If False,
            the fragment keeps the level of its recording.
    """

    nr_samples: int
    sample_rate: int
    augmentation: ClipAugmentation | None = None
    normalize: bool = True

    def draw(self, file: AudioReader, entry: AudioEntry, rng: Generator) -> np.ndarray:
        """(nr_samples,) float32 from a uniformly drawn place. Raises AudioError: cut short, or silent throughout."""
        length = entry.samples(self.sample_rate)
        for _ in range(_TRIES_FOR_SOUND):
            start = int(rng.integers(max(0, length - self.nr_samples) + 1))
            audio = file.read(start, self.nr_samples, self.sample_rate)
            if len(audio) < min(self.nr_samples, length):
                raise AudioError(entry.path, f"ends before the {length} samples that it had when it was scanned")
            if not self.normalize:
                return np.resize(audio, self.nr_samples)
            if not is_silent(audio):
                return peak_normalize(np.resize(audio, self.nr_samples))
        raise AudioError(entry.path, f"gave silence {_TRIES_FOR_SOUND} times in a row")

    def augment(self, clip: np.ndarray, entry: AudioEntry, rng: Generator) -> np.ndarray:
        """(nr_samples,) float32 after the augmentation.

        Raises:
            InputError: the augmentation changes the length.
            AudioError: it made samples that are not finite.
        """
        if self.augmentation is None:
            return clip
        clip = np.asarray(self.augmentation(clip, self.sample_rate, rng), np.float32)
        if clip.shape != (self.nr_samples,):
            raise InputError(f"the augmentation made {clip.shape} samples of {self.nr_samples}; it must keep them")
        if not np.isfinite(clip).all():
            raise AudioError(entry.path, "became NaN or infinite in the augmentation")
        return clip


class RecordingDataset(Dataset):
    """One item for each recording, or for each group; a subclass implements `read`.

    `dataset[Draw(epoch, item)]` is what `read` returns, with "index" int (position of the recording in `entries`) and
    "failures" (list of `LeftOut`: recordings that could not be read, in whose place another recording of the same group
    was drawn). `collate` makes batches of them.

    Args:
        groups: see `AudioIndex.split`.
        crop: see `Crop`.
        seed: every random number comes from (seed, epoch, item), so it is the same for any number of workers.
        batch_sampling_mode: "sample_clips": an epoch visits each recording; "sample_groups": each group, with a random
            recording of it.
        multi_epoch: how many times an epoch repeats that, with other fragments each time.
        open: how a recording is opened.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        crop: Crop,
        seed: int = 0,
        batch_sampling_mode: SamplingMode = "sample_clips",
        multi_epoch: int = 1,
        open: Open = open_recording,
    ) -> None:
        self.groups = list(groups)
        self.entries = [entry for group in groups for entry in group.entries]
        self.crop = crop
        self.seed = seed
        self.batch_sampling_mode = batch_sampling_mode
        self.multi_epoch = multi_epoch
        self.open = open
        sizes = [len(group.entries) for group in groups]
        self._first = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)  # of each group's files in `entries`

    @abstractmethod
    def read(self, index: int, group: int, rng: Generator) -> dict[str, Any]:
        """What an item of a recording and its group, by their numbers, holds.

        Raises:
            AudioError: another recording should take its place.
        """

    def __len__(self) -> int:
        visited = self.groups if self.batch_sampling_mode == "sample_groups" else self.entries
        return len(visited) * self.multi_epoch

    def __getitem__(self, draw: Draw | int) -> dict[str, Any]:
        draw = Draw.of(draw)
        rng = np.random.default_rng([self.seed, draw.epoch, draw.item])
        group, index = self.choose(draw.item // self.multi_epoch, rng)
        failures: list[LeftOut] = []
        while True:
            try:
                content = self.read(index, group, rng)
                break
            except AudioError as error:
                failed = index
                failures.append(LeftOut(error.path, error.reason))
                if len(failures) >= _TRIES_FOR_A_FILE:
                    raise NoAudioError(
                        f"{len(failures)} files in a row could not be read, the last {error}; is the disk still there?"
                    ) from None
                if len(failures) > _TRIES_FOR_A_FILE // 2 or (index := self._another(group, index, rng)) == failed:
                    index = int(rng.integers(len(self.entries)))
                    group = self.group_of(index)
        return {**content, "index": index, "failures": failures + content.get("failures", [])}

    def choose(self, position: int, rng: Generator) -> tuple[int, int]:
        """(group, index) of the recording that an epoch reads at a position."""
        if self.batch_sampling_mode == "sample_groups":
            return position, int(rng.integers(self._first[position], self._first[position + 1]))
        return self.group_of(position), position

    def group_of(self, index: int) -> int:
        """The group of a recording."""
        return int(np.searchsorted(self._first, index, side="right")) - 1

    def _another(self, group: int, index: int, rng: Generator) -> int:
        """Another recording of the same group; the same one if the group has no other."""
        first, end = int(self._first[group]), int(self._first[group + 1])
        if end - first < 2:
            return index
        return first + (index - first + int(rng.integers(1, end - first))) % (end - first)


class TwoViewDataset(RecordingDataset):
    """Random fragments of the same recording, each scaled to a peak of 1, then augmented on its own: two, or more.

    An item has "clip1", "clip2", ... (samples,) and "local1", "local2", ... (local_samples,) float32 tensors,
    "group_name" str, and what `RecordingDataset` adds.

    Args:
        groups, seed, batch_sampling_mode, multi_epoch, open: see `RecordingDataset`.
        nr_samples, sample_rate, augmentation, normalize: see `Crop`.
        shared_crop: all clips are the same fragment and differ by the augmentation alone.
        positives: "same_recording"; or "same_group": clips with an even number come from another recording of the
            group, if it has one. An item then has "group", the number of the group, and "index2", the position of the
            other recording.
        views: number of clips.
        local_views: number of short clips, each drawn from the whole recording, as for DINO.
        local_samples: of a short clip.
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
        open: Open = open_recording,
        normalize: bool = True,
        views: int = 2,
        local_views: int = 0,
        local_samples: int = 0,
        positives: Positives = "same_recording",
    ) -> None:
        crop = Crop(nr_samples, sample_rate, augmentation, normalize)
        super().__init__(groups, crop, seed, batch_sampling_mode, multi_epoch, open)
        self.shared_crop = shared_crop
        self.positives = positives
        self.crops = {f"clip{number}": crop for number in range(1, views + 1)}
        local_crop = replace(crop, nr_samples=local_samples)
        self.crops |= {f"local{number}": local_crop for number in range(1, local_views + 1)}

    def read(self, index: int, group: int, rng: Generator) -> dict[str, Any]:
        """All clips of one opened recording, or of two.

        If the other one cannot be read, all come from the first.
        """
        other, failures = index, []
        if self.positives == "same_group":
            other = self._another(group, index, rng)
        clips: dict[str, np.ndarray] = {}
        self._draw(clips, [name for name in self.crops if other == index or not _of_other(name)], index, rng)
        rest = [name for name in self.crops if name not in clips]
        try:
            if rest:
                self._draw(clips, rest, other, rng)
        except AudioError as error:
            failures, other = [LeftOut(error.path, error.reason)], index
            self._draw(clips, rest, other, rng)
        content: dict[str, Any] = {"failures": failures}
        for name, crop in self.crops.items():
            entry = self.entries[other if _of_other(name) else index]
            content[name] = torch.from_numpy(crop.augment(clips[name], entry, rng))
        content["group_name"] = self.groups[group].name
        return content if self.positives == "same_recording" else {**content, "group": group, "index2": other}

    def _draw(self, clips: dict[str, np.ndarray], names: Sequence[str], index: int, rng: Generator) -> None:
        """Add the clips of these names from a recording. Raises AudioError."""
        entry = self.entries[index]
        with self.open(entry) as file:
            for name in names:
                shared = self.shared_crop and name.startswith("clip") and "clip1" in clips
                clips[name] = clips["clip1"] if shared else self.crops[name].draw(file, entry, rng)


def _of_other(name: str) -> bool:
    """Whether a clip comes from the other recording of a group: those with an even number."""
    return int(name.removeprefix("clip").removeprefix("local")) % 2 == 0


class LabelledDataset(RecordingDataset):
    """One random fragment of each recording, at its own level, with what is to be predicted of it.

    An item has "clip" (nr_samples,) float32, "target" int64 or (classes,) float32, and what `RecordingDataset` adds.

    Args:
        targets: {path: class number, or (classes,) float32 of 0 and 1}.
        arguments: of `RecordingDataset`.
    """

    def __init__(self, targets: Mapping[str, Any], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.targets = targets

    def read(self, index: int, group: int, rng: Generator) -> dict[str, Any]:
        """The fragment and its target."""
        entry = self.entries[index]
        with self.open(entry) as file:
            clip = self.crop.draw(file, entry, rng)
        clip = self.crop.augment(clip, entry, rng)
        return {"clip": torch.from_numpy(clip), "target": torch.as_tensor(self.targets[entry.path])}


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch: tensors stacked, numbers as int64, texts as a list, "failures" joined."""
    failures = [failure for item in items for failure in item["failures"]]
    batch = default_collate([{key: value for key, value in item.items() if key != "failures"} for item in items])
    return {**batch, "failures": failures}
