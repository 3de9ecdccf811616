"""Clips with a teacher's embedding of exactly this clip, from tables that `ssl-audio embed --window` wrote."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.random import Generator

from ssl_audio.audio import AudioError
from ssl_audio.augmentations.base import ClipTransform
from ssl_audio.data.base import RecordingDataModule
from ssl_audio.data.batch_spec import BatchSpec
from ssl_audio.data.dataset import Crop, RecordingDataset, SamplingMode
from ssl_audio.data.index import Group
from ssl_audio.data.items import RecordingItems
from ssl_audio.data.loading import Loading
from ssl_audio.data.sources import Source
from ssl_audio.data.sources.corpus import folders_or_corpus
from ssl_audio.data.teacher_table import TeacherTable, windows
from ssl_audio.errors import InputError

CHANGES_TARGET = ("PitchShift", "FormantShift", "TimeStretch", "Shift", "PitchShiftPolyphonic", "Speed")
"""Augmentations after which a teacher would say something else. A stored embedding does not follow them."""


class TaughtDataset(RecordingDataset):
    """A random window of each recording among those of the tables, at its own level, with what the teachers said of it.

    An item has "clip1" (nr_samples,) float32, "targets" (sum of the teachers' sizes,) float32, "group_name" str,
    "start" int (first sample), and what `RecordingDataset` adds.

    Args:
        tables: one a teacher, with the same windows.
        clusters: draw recordings so that each of this many k-means clusters of the first teacher's embeddings is drawn
            as often as any other, with replacement; 0 visits recordings as `batch_sampling_mode` says.
        arguments, options: of `RecordingDataset`.

    Raises:
        InputError: the tables lack recordings or have other windows.
    """

    def __init__(self, tables: Sequence[TeacherTable], clusters: int, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.tables = tables
        rows = windows(tables, self.entries, self.crop.nr_samples, self.crop.sample_rate)
        self.rows = dict(zip((entry.path for entry in self.entries), rows, strict=True))
        self.weights = _balanced(tables[0], self.rows, clusters, self.seed) if clusters else None
        if self.weights is not None:
            self._odds = np.cumsum([self.weights[entry.path].sum() for entry in self.entries])

    def choose(self, position: int, rng: Generator) -> tuple[int, int]:
        """As the base; balanced, any recording in proportion to the weights of its windows."""
        if self.weights is None:
            return super().choose(position, rng)
        index = int(np.searchsorted(self._odds, rng.random() * self._odds[-1], side="right"))
        index = min(index, len(self.entries) - 1)
        return self.group_of(index), index

    def read(self, index: int, group: int, rng: Generator) -> dict[str, Any]:
        """One window and its targets."""
        entry = self.entries[index]
        rows, samples, rate = self.rows[entry.path], self.crop.nr_samples, self.crop.sample_rate
        if not len(rows):
            raise AudioError(entry.path, "has no window of this length in the table")
        number = int(rng.integers(len(rows)))
        if self.weights is not None:
            weights = self.weights[entry.path]
            number = int(rng.choice(len(rows), p=weights / weights.sum()))
        start = round(float(self.tables[0].start[rows[number][0]]) * rate)
        start = max(0, min(start, entry.samples(rate) - samples))  # the last window ends with the file at any rate
        with self.open(entry) as file:
            clip = file.read(start, samples, rate)
        if len(clip) < samples:
            raise AudioError(entry.path, "is shorter than it was when it was scanned")
        clip = self.crop.augment(clip, entry, rng)
        targets = np.concatenate([table.row(int(row)) for table, row in zip(self.tables, rows[number], strict=True)])
        found = {"clip1": torch.from_numpy(clip), "targets": torch.from_numpy(targets)}
        return {**found, "group_name": self.groups[group].name, "start": start}


def _balanced(table: TeacherTable, rows: Mapping[str, np.ndarray], clusters: int, seed: int) -> dict[str, np.ndarray]:
    """For each recording the weights (windows,) of its windows: 1 over the size of a window's cluster.

    Raises:
        InputError: more clusters than windows.
    """
    from sklearn.cluster import MiniBatchKMeans

    numbers = np.concatenate([of_entry[:, 0] for of_entry in rows.values()])
    if clusters > len(numbers):
        raise InputError(f"data.clusters is {clusters}, more than the {len(numbers)} windows; make it smaller")
    values = np.stack([table.row(int(number)) for number in numbers]).astype(np.float64)
    values /= np.linalg.norm(values, axis=1, keepdims=True).clip(1e-12)
    kmeans = MiniBatchKMeans(clusters, batch_size=10_000, n_init=10, reassignment_ratio=0.0, random_state=seed)
    labels = kmeans.fit_predict(values)
    weights = 1 / np.bincount(labels, minlength=clusters)[labels]
    ends = np.cumsum([len(of_entry) for of_entry in rows.values()])[:-1]
    return dict(zip(rows, np.split(weights, ends), strict=True))


@dataclass(frozen=True, kw_only=True)
class TaughtClips(RecordingItems):
    """Windows with targets, see `TaughtDataset`.

    Attributes:
        places: of the tables.
        float16, clusters: see `TaughtDataModule`.
    """

    places: tuple[str, ...]
    normalize: bool = False
    float16: bool = False
    clusters: int = 0

    keys: ClassVar[tuple[str, ...]] = ("clip1", "targets", "group_name", "start", "index")

    @cached_property
    def tables(self) -> list[TeacherTable]:
        """Opened when they are first asked for. Raises InputError: see `TeacherTable`."""
        return [TeacherTable(place, self.float16) for place in self.places]

    def dataset(self, groups: Sequence[Group], source: Source, training: bool) -> TaughtDataset:
        augmentation = self.augmentation if training else None
        return TaughtDataset(
            self.tables,
            self.clusters if training else 0,
            groups,
            Crop(self.nr_samples, self.sample_rate, augmentation, self.normalize),
            self.seed,
            self.batch_sampling_mode,
            self.multi_epoch if training else 1,
            source.open,
        )

    def spec(self, batch_size: int) -> BatchSpec:
        return replace(super().spec(batch_size), targets=tuple(table.target for table in self.tables))

    @property
    def short_remedy(self) -> str:
        return "make data.nr_samples smaller and embed with that --window"


class TaughtDataModule(RecordingDataModule):
    """Clips with their teachers' embeddings, for `methods.Distillation` without a teacher online.

    A batch: {"clip1": (batch, nr_samples) float32 at the level of the recording, "targets": (batch, sum of the
    teachers' sizes) float32, "group_name": list[str], "start", "index": (batch,) int64}. A clip is exactly one window
    of the tables, read at `sample_rate`, whatever the teacher's rate is. Recordings shorter than a window are left out.

    Args:
        dataset_dirs, sample_rate, batch_size, num_workers, eval_frac, seed, batch_sampling_mode, multi_epoch,
        max_groups, group_by_artist, group_name_is_folder, max_failures, prefetch_factor, pin_memory, corpus, store,
        source, batch_size_val: see `AudioDataModule`.
        tables: a table of each teacher: a file, or a pattern of its parts. `ssl-audio embed RECORDINGS --model TEACHER
            --window SECONDS --output teacher.parquet` writes one.
        nr_samples: length of a clip in samples; the length of the tables' windows.
        augmentation: per clip on the CPU, in training only, such as should not change what a teacher says: noise,
            equalisation, masks. Not pitch, formants, speed or shifts.
        float16: keep the copy of the table for access by row in half precision.
        clusters: draw windows so that this many clusters of the first teacher's embeddings are seen equally often; 0
            draws each recording once an epoch.

    Raises:
        InputError: tables that do not fit the recordings, see `TeacherTable`; an augmentation that changes the target.
    """

    def __init__(
        self,
        tables: list[str] | str,
        dataset_dirs: list[str] | str | None = None,
        sample_rate: int = 16000,
        nr_samples: int = 16000,
        batch_size: int = 64,
        num_workers: int | Literal["auto"] = "auto",
        eval_frac: float = 0.1,
        seed: int = 0,
        batch_sampling_mode: SamplingMode = "sample_clips",
        multi_epoch: int = 1,
        max_groups: int | None = None,
        group_by_artist: bool = True,
        group_name_is_folder: bool = True,
        augmentation: ClipTransform | None = None,
        float16: bool = False,
        clusters: int = 0,
        max_failures: float = 0.05,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
        corpus: dict[str, Any] | None = None,
        store: str | None = None,
        source: Source | None = None,
        batch_size_val: int | None = None,
    ) -> None:
        if source is None:
            source = folders_or_corpus(
                dataset_dirs, corpus, False, group_by_artist, group_name_is_folder, max_groups, seed, store
            )
        for part in [augmentation, *getattr(augmentation, "transforms", ())]:
            if type(part).__name__ in CHANGES_TARGET:
                raise InputError(
                    f"data.augmentation has {type(part).__name__}, which a stored target does not follow; leave it "
                    "out, or name model.teachers to ask the teacher online"
                )
        items = TaughtClips(
            nr_samples=nr_samples,
            sample_rate=sample_rate,
            seed=seed,
            batch_sampling_mode=batch_sampling_mode,
            multi_epoch=multi_epoch,
            augmentation=augmentation,
            places=tuple([tables] if isinstance(tables, str) else tables),
            float16=float16,
            clusters=clusters,
        )
        if not items.places:
            raise InputError("data.tables is empty; give the table of a teacher")
        if clusters < 0:
            raise InputError(f"data.clusters is {clusters}; it must be at least 0")
        loading = Loading(batch_size, num_workers, prefetch_factor, pin_memory, seed, batch_size_val)
        super().__init__(source, items, loading, eval_frac, max_failures)
