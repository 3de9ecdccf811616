"""Consecutive windows of recordings, for methods that take one clip at a time, such as CPC."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset, get_worker_info

from ssl_audio.audio import AudioError, peak_normalize
from ssl_audio.augmentations.base import ClipTransform
from ssl_audio.data.base import RecordingDataModule
from ssl_audio.data.batch_composition import Composition, CompositionSampler
from ssl_audio.data.batch_spec import BatchSpec
from ssl_audio.data.dataset import ClipAugmentation, Crop, Open
from ssl_audio.data.failures import NoAudioError
from ssl_audio.data.index import AudioEntry, FileCopy, Group, LeftOut
from ssl_audio.data.items import LocalViews, Short
from ssl_audio.data.loading import Loading, identity
from ssl_audio.data.sampler import Draw, EpochSampler
from ssl_audio.data.scan import SILENCE_PEAK
from ssl_audio.data.sources import Source
from ssl_audio.data.sources.corpus import folders_or_corpus
from ssl_audio.data.sources.labelled import with_labels
from ssl_audio.data.store import StoredFile, open_recording, stored_bytes
from ssl_audio.errors import InputError

__all__ = ["MappedRecordings", "WindowDataModule", "WindowDataset", "Windows", "identity"]

_TRIES = 8  # recordings tried for one window before training is stopped


class MappedRecordings:
    """Parts of recordings, with at most so many bytes of them mapped at a time.

    Stored copies (`ssl-audio cache`) are mapped, and stay mapped, while there is room. Parts of other recordings are
    read from their files each time, and nothing of them is kept. The samples are the same.

    Args:
        room: bytes, shared among the workers of a DataLoader.
        sample_rate: Hz.
        open: how a recording is opened that is not mapped.
    """

    def __init__(self, room: int, sample_rate: int, open: Open = open_recording) -> None:
        self.room = room
        self.sample_rate = sample_rate
        self.open = open
        self.mapped = 0
        self._copies: dict[str, StoredFile] = {}

    def read(self, entry: AudioEntry, start: int, into: np.ndarray) -> int:
        """Fill `into` (samples,) float32 from sample `start` on; returns how many there were. Raises AudioError."""
        path = entry.location.path if isinstance(entry.location, FileCopy) else ""
        copy = self._copies.get(path)
        if copy is None and path and self._has_room(entry):
            copy = self._copies[path] = StoredFile(path, mapped=True)
            self.mapped += stored_bytes(entry, self.sample_rate)
        if copy is not None:
            return copy.read_into(start, into)
        with self.open(entry) as file:
            part = file.read(start, len(into), self.sample_rate)
        into[: len(part)] = part
        return len(part)

    def _has_room(self, entry: AudioEntry) -> bool:
        worker = get_worker_info()
        room = self.room // (worker.num_workers if worker else 1)
        return self.mapped + stored_bytes(entry, self.sample_rate) <= room

    def __getstate__(self) -> dict[str, Any]:  # maps do not travel to worker processes
        return {**self.__dict__, "_copies": {}, "mapped": 0}


class WindowDataset(Dataset):
    """All windows of all recordings, one after the other; no window spans two recordings.

    `dataset[Draw(epoch, item)]` is {"clip1", "clip2": (nr_samples,) float32 tensors, "group_name": str, the recording,
    "index": int, its position in `entries`, "start": int, first sample, "failures"}. The clips are the same window,
    each augmented on its own. With `targets`, "clip" and "target" are in the place of the two.

    Args:
        groups: see `AudioIndex.split`; recordings shorter than a window have none.
        nr_samples: of a window, at `sample_rate`; also the hop.
        sample_rate: Hz.
        seed: decides the offsets.
        moving: the first window of each recording begins at a random sample, drawn each epoch, so that each epoch has
            other windows. Recordings of 1.5 windows and more can move by at least half a window. If False, it begins
            at sample 0.
        room, open: see `MappedRecordings`.
        categories: category of each recording by path; None: its group.
        augmentation: per clip, or None.
        normalize: scale each window to a peak of 1. If False, windows keep the level of their recording, so that
            consecutive windows fit together.
        targets: by the recording's path; see `Labels`. None: there are none.
        repeat: a recording that is shorter than a window is repeated until it fills one.
        local_views: short clips "local1", ... of an item, cut out of its window, which alone is read.
        local_samples: of a short clip.
    """

    def __init__(
        self,
        groups: Sequence[Group],
        nr_samples: int,
        sample_rate: int,
        seed: int = 0,
        moving: bool = True,
        room: int = 1 << 30,
        categories: Mapping[str, str] | None = None,
        open: Open = open_recording,
        augmentation: ClipAugmentation | None = None,
        normalize: bool = False,
        targets: Mapping[str, Any] | None = None,
        repeat: bool = False,
        local_views: int = 0,
        local_samples: int = 0,
    ) -> None:
        self.nr_samples, self.sample_rate, self.seed, self.moving = nr_samples, sample_rate, seed, moving
        self.crop = Crop(nr_samples, sample_rate, augmentation, normalize)
        self.local_crop = replace(self.crop, nr_samples=local_samples)
        self.local_views = local_views
        self.targets = targets
        self.views = 2 if augmentation is not None and targets is None else 1
        found = [(group, entry) for group in groups for entry in group.entries]
        self.entries = [entry for _, entry in found]
        self.names = [_name(group, entry) for group, entry in found]
        lengths = np.array([entry.samples(sample_rate) for entry in self.entries], np.int64)
        counts = lengths // nr_samples
        if repeat:
            counts = np.maximum(1, counts)
        if moving:  # leave half a window to move in, where the recording is long enough
            counts = np.minimum(counts, np.maximum(1, (2 * lengths - nr_samples) // (2 * nr_samples)))
        self.slack = np.maximum(0, lengths - counts * nr_samples)
        self.first = np.concatenate([[0], np.cumsum(counts)])  # position of each recording's first window
        self.sequences = np.repeat(np.arange(len(counts)), counts)
        kinds = [group.key if categories is None else categories.get(entry.path, "") for group, entry in found]
        self.categories = np.unique(kinds, return_inverse=True)[1][self.sequences] if kinds else self.sequences
        self.recordings = MappedRecordings(room, sample_rate, open)
        self._offsets = (-1, self.slack)  # of the epoch that was read last

    def __len__(self) -> int:
        return int(self.first[-1])

    def __getitem__(self, draw: Draw | int) -> dict[str, Any]:
        batch = self.__getitems__([Draw.of(draw)])
        return {key: value if key == "failures" else value[0] for key, value in batch.items()} | {
            key: int(batch[key][0]) for key in ("index", "start")
        }

    def __getitems__(self, draws: Sequence[Draw]) -> dict[str, Any]:
        """A whole batch, written row by row without copies; a DataLoader calls this if it exists."""
        clips = np.empty((self.views, len(draws), self.nr_samples), np.float32)
        short = np.empty((self.local_views, len(draws), self.local_crop.nr_samples), np.float32)
        filled = map(self._fill, map(Draw.of, draws), clips.swapaxes(0, 1), short.swapaxes(0, 1))
        names, indices, starts, failures = zip(*filled, strict=True)
        first, last = torch.from_numpy(clips[0]), torch.from_numpy(clips[-1])  # one tensor if there is one view
        content: dict[str, Any] = {"clip1": first, "clip2": first if self.views == 1 else last}
        if self.targets is not None:
            targets = [torch.as_tensor(self.targets[self.entries[index].path]) for index in indices]
            content = {"clip": first, "target": torch.stack(targets)}
        content |= {f"local{number}": torch.from_numpy(clip) for number, clip in enumerate(short, 1)}
        return {
            **content,
            "group_name": list(names),
            "index": torch.tensor(indices),
            "start": torch.tensor(starts),
            "failures": [failure for part in failures for failure in part],
        }

    def _fill(self, draw: Draw, clips: np.ndarray, short: np.ndarray) -> tuple[str, int, int, list[LeftOut]]:
        """Write the window of a draw into `clips` (views, nr_samples), and parts of it into `short`.

        Returns name, recording, first sample, failures. A window that cannot be used is replaced by another.
        """
        failures: list[LeftOut] = []
        item = draw.item
        while True:
            index = int(self.sequences[item])
            start = self.offset(draw.epoch, index) + (item - int(self.first[index])) * self.nr_samples
            try:
                got = self.recordings.read(self.entries[index], start, clips[0])
                if got < min(self.nr_samples, self.entries[index].samples(self.sample_rate)):
                    raise AudioError(self.entries[index].path, "is shorter than it was when it was scanned")
                clips[0, got:] = np.resize(clips[0, :got], self.nr_samples)[got:]
                self._prepare(clips, short, draw, self.entries[index])
                break
            except AudioError as error:
                failures.append(LeftOut(error.path, error.reason))
                if len(failures) >= _TRIES:
                    raise NoAudioError(
                        f"{len(failures)} recordings in a row could not be read, the last {error}; is the disk there?"
                    ) from None
                item = int(np.random.default_rng([self.seed, *draw, len(failures)]).integers(len(self)))
        # A window that replaces another continues nothing, so its name must differ from that of the row before.
        return f"{self.names[index]}#{start}" if failures else self.names[index], index, start, failures

    def _prepare(self, clips: np.ndarray, short: np.ndarray, draw: Draw, entry: AudioEntry) -> None:
        """Make the views (views, nr_samples) of a window from the first row, in place, and its parts in `short`.

        Raises:
            AudioError: the augmentation made samples that are not finite.
        """
        window = clips[0]
        if self.crop.normalize and np.abs(window).max() >= SILENCE_PEAK:
            window[:] = peak_normalize(window)
        if self.crop.augmentation is None and not len(short):
            return
        rng, window = np.random.default_rng([self.seed, *draw]), window.copy()
        for clip in clips:
            clip[:] = self.crop.augment(window, entry, rng)
        for clip in short:
            start = int(rng.integers(len(window) - len(clip) + 1))
            clip[:] = self.local_crop.augment(window[start : start + len(clip)], entry, rng)

    def offset(self, epoch: int, recording: int) -> int:
        """The first sample of a recording's first window in an epoch."""
        if not self.moving:
            return 0
        if self._offsets[0] != epoch:
            drawn = np.random.default_rng([self.seed, epoch, len(self)]).integers(self.slack + 1)
            self._offsets = epoch, drawn
        return int(self._offsets[1][recording])


@dataclass(frozen=True, kw_only=True)
class Windows(LocalViews):
    """Windows of recordings; in training they move, in validation they do not.

    Attributes:
        composition: see `ssl_audio.data.batch_composition`; validation is "uniform" in place of "sequential".
        room: see `MappedRecordings`.
        augmentation: per clip on the CPU, in training only.
        labels: windows with the targets of their recordings; the source must have labels.
        short: leave recordings that are shorter than a window out ("exclude") or repeat them ("repeat").
        local_views, nr_samples_local: see `LocalViews`.
    """

    composition: Composition = "uniform"
    room: int = 1 << 30
    augmentation: ClipTransform | None = None
    normalize: bool = False
    labels: bool = False
    short: Short = "exclude"

    @property
    def excludes_short(self) -> bool:
        return self.short == "exclude"

    @property
    def short_remedy(self) -> str:
        return "make data.nr_samples smaller, or set data.short to repeat"

    @property
    def keys(self) -> tuple[str, ...]:  # type: ignore[override]
        clips = ("clip", "target") if self.labels else ("clip1", "clip2", *self.local_keys)
        return (*clips, "group_name", "index", "start")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.room < 1:
            raise InputError(f"data.max_audio_in_memory is {self.room}; it is a number of bytes, above 0")

    def dataset(self, groups: Sequence[Group], source: Source, training: bool) -> WindowDataset:
        return WindowDataset(
            groups,
            self.nr_samples,
            self.sample_rate,
            self.seed,
            moving=training,
            room=self.room,
            categories=source.categories(),
            open=source.open,
            augmentation=self.augmentation if training else None,
            normalize=self.normalize,
            targets=source.labels().targets if self.labels else None,
            repeat=self.short == "repeat",
            local_views=0 if self.labels else self.local_views,
            local_samples=self.local_samples,
        )

    def sampler(self, dataset: Any, source: Source, training: bool, **arguments: Any) -> CompositionSampler:
        composition = self.composition if training or self.composition != "sequential" else "uniform"
        return CompositionSampler(dataset, composition, seed=self.seed, shuffle=training, **arguments)

    def collate(self, items: Any) -> dict[str, Any]:
        return identity(items)  # the data set makes whole batches

    def check(self, dataset: Any, sampler: EpochSampler, training: bool) -> None:
        """Windows that make no batch."""
        if not len(sampler):
            part = "training" if training else "validation"
            raise InputError(
                f"the {len(dataset)} windows for {part} make no batch of {sampler.batch_size} for each of "
                f"{sampler.num_replicas} processes with data.composition {self.composition!r}; make data.batch_size or "
                "data.nr_samples smaller, or take the composition uniform"
            )

    def spec(self, batch_size: int) -> BatchSpec:
        return replace(super().spec(batch_size), continues=self.composition == "sequential")

    @property
    def needs_all(self) -> str:
        return "training on windows"


class WindowDataModule(RecordingDataModule):
    """Windows of recordings from folders, with a choice of which windows share a batch.

    A batch: {"clip1", "clip2": (batch, nr_samples), the same tensor without `augmentation`; with `labels`, "clip" and
    "target" in their place; "group_name": list[str] of the recordings, "index": (batch,), "start": (batch,)}. With
    "sequential", a row continues the same row of the batch before wherever its `group_name` is the same, as
    `methods.CPC(carry_state=True)` needs it; validation is "uniform" then.

    Args:
        dataset_dirs, sample_rate, nr_samples, batch_size, num_workers, eval_frac, seed, group_by_artist, max_failures,
        prefetch_factor, pin_memory, store: see `AudioDataModule`.
        composition: which windows share a batch, see `ssl_audio.data.batch_composition`. A category is a group
            (singer).
        max_audio_in_memory: bytes of mapped audio over all workers of a process. Larger corpora train too, mixed as a
            whole.
        cache: copy the recordings as 16 bit integers first (see `ssl_audio.data.store`; 115 MB an hour at 16 kHz), and
            check the copies that are there: damaged and outdated ones are made anew and counted in the log.
        source: any other place (see `ssl_audio.data.sources`), instead of `dataset_dirs` and what is about these.
            Shards: {class_path: ssl_audio.data.sources.Shards, init_args: {shards: data/shards}}.
        corpus, labels, batch_size_val, short: see `AudioDataModule`.
        shared_crop: true; the two clips of windows are always the same. Configs for any data module give it.
        views: 2; a window has two clips.
        local_views: short clips of `nr_samples_local` (None: half a window), cut out of the window, for DINO.
        augmentation: per clip on the CPU, in training only. Both clips are the same window, each augmented on its own.
        normalize: scale each window to a peak of 1. If False, windows keep the level of their recording.
    """

    def __init__(
        self,
        dataset_dirs: list[str] | str | None = None,
        sample_rate: int = 16000,
        nr_samples: int = 20480,
        batch_size: int = 8,
        composition: Composition = "uniform",
        num_workers: int | Literal["auto"] = "auto",
        eval_frac: float = 0.1,
        seed: int = 0,
        max_audio_in_memory: int = 2_000_000_000,
        cache: bool = False,
        group_by_artist: bool = True,
        max_failures: float = 0.05,
        prefetch_factor: int = 4,
        pin_memory: bool | None = None,
        store: str | None = None,
        source: Source | None = None,
        corpus: dict[str, Any] | None = None,
        augmentation: ClipTransform | None = None,
        normalize: bool = False,
        batch_size_val: int | None = None,
        labels: bool = False,
        short: Short = "exclude",
        shared_crop: Literal[True] = True,
        views: Literal[2] = 2,
        local_views: int = 0,
        nr_samples_local: int | None = None,
    ) -> None:
        copy_at = sample_rate if cache else None
        if source is None:
            source = folders_or_corpus(
                dataset_dirs, corpus, labels, group_by_artist, seed=seed, store=store, copy_at=copy_at
            )
        items = Windows(
            nr_samples=nr_samples,
            sample_rate=sample_rate,
            seed=seed,
            composition=composition,
            room=max_audio_in_memory,
            augmentation=augmentation,
            normalize=normalize,
            labels=labels,
            short=short,
            local_views=local_views,
            nr_samples_local=nr_samples_local,
        )
        loading = Loading(batch_size, num_workers, prefetch_factor, pin_memory, seed, batch_size_val)
        super().__init__(with_labels(source) if labels else source, items, loading, eval_frac, max_failures)


def _name(group: Group, entry: AudioEntry) -> str:
    """A name that no other recording has: the data set's name and the path within the data set."""
    return f"{group.key.partition('/')[0]}/{os.path.relpath(entry.path, group.folder)}"
