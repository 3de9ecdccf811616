"""Labelled clips for supervised training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.random import Generator

from ssl_audio.augmentations.base import ClipTransform
from ssl_audio.data.base import RecordingDataModule
from ssl_audio.data.batch_spec import BatchSpec
from ssl_audio.data.dataset import Crop, RecordingDataset, SamplingMode
from ssl_audio.data.index import AudioEntry, Group
from ssl_audio.data.items import RecordingItems, Short
from ssl_audio.data.loading import Loading
from ssl_audio.data.sources import NamedCorpus, Source
from ssl_audio.data.sources.labelled import GroupsAsClasses, ListedFiles


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

    def read(self, entry: AudioEntry, group: Group, rng: Generator) -> dict[str, Any]:
        """The fragment and its target."""
        with self.open(entry) as file:
            clip = self.crop.draw(file, entry, rng)
        clip = self.crop.augment(clip, entry, rng)
        return {"clip": torch.from_numpy(clip), "target": torch.as_tensor(self.targets[entry.path])}


@dataclass(frozen=True, kw_only=True)
class LabelledClips(RecordingItems):
    """A clip of each recording with its target; the source must have labels."""

    keys: ClassVar[tuple[str, ...]] = ("clip", "target", "index")
    normalize: ClassVar[bool] = False

    def dataset(self, groups: Sequence[Group], source: Source, training: bool) -> LabelledDataset:
        augmentation = self.augmentation if training else None
        return LabelledDataset(
            source.labels().targets,
            groups,
            Crop(self.nr_samples, self.sample_rate, augmentation, self.normalize),
            self.seed,
            self.batch_sampling_mode,
            self.multi_epoch if training else 1,
            source.open,
        )


class LabelledDataModule(RecordingDataModule):
    """Clips with labels, of a named corpus (`corpus`), of a folder `class/**/file`, or of another source.

    A batch: {"clip": (batch, nr_samples) float32, "target": (batch,) int64, or (batch, classes) float32 where a file
    may have several labels, "index": (batch,) int64}. Training and validation follow the corpus's split; test files
    are never read.

    Args:
        dataset_dirs: the one folder of the corpus, or of `class/**/file`.
        sample_rate, nr_samples, batch_size, num_workers, eval_frac, seed, batch_sampling_mode, multi_epoch, max_groups,
        group_by_artist, augmentation, short, max_failures, prefetch_factor, pin_memory, store: see `AudioDataModule`.
        group_name_is_folder, shared_crop: without effect; configs of 0.1 have them.
        corpus: a named corpus, as {name: esc10, fold: 5}; None: the first level of folders is the class.
        source: any other place, instead of `dataset_dirs` and `corpus`. If it has no labels of its own (shards), its
            groups are the classes, and `eval_frac` of each class is for validation.

    Attributes:
        classes: names, in the order of the targets; after `setup`.
        multi_label: whether a file may have several.
    """

    def __init__(
        self,
        dataset_dirs: list[str] | str | None = None,
        sample_rate: int = 44100,
        nr_samples: int = 176000,
        batch_size: int = 140,
        num_workers: int | Literal["auto"] = "auto",
        eval_frac: float = 0.2,
        seed: int = 0,
        batch_sampling_mode: SamplingMode = "sample_clips",
        multi_epoch: int = 1,
        max_groups: int | None = None,
        group_by_artist: bool = True,
        group_name_is_folder: bool = True,
        augmentation: ClipTransform | None = None,
        shared_crop: bool = False,
        short: Short = "exclude",
        max_failures: float = 0.05,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
        corpus: dict[str, Any] | None = None,
        store: str | None = None,
        source: Source | None = None,
    ) -> None:
        if source is None:
            spec = {"name": "folder", "seed": seed} if corpus is None else corpus
            source = NamedCorpus(dataset_dirs, spec, group_by_artist, max_groups, seed, store)
        elif not source.has_labels:
            source = GroupsAsClasses(source)
        items = LabelledClips(
            nr_samples=nr_samples,
            sample_rate=sample_rate,
            seed=seed,
            batch_sampling_mode=batch_sampling_mode,
            multi_epoch=multi_epoch,
            augmentation=augmentation,
            short=short,
        )
        loading = Loading(batch_size, num_workers, prefetch_factor, pin_memory, seed)
        super().__init__(source, items, loading, eval_frac, max_failures)
        self.classes: list[str] = []
        self.multi_label = False

    @classmethod
    def of(
        cls,
        paths: Sequence[Any],
        targets: np.ndarray,
        classes: Sequence[str],
        train: Sequence[int] | np.ndarray,
        validation: Sequence[int] | np.ndarray,
        **options: Any,
    ) -> "LabelledDataModule":
        """A data module of listed files; shorter ones are repeated.

        Args:
            paths, targets, classes, train, validation: see `ListedFiles`.
            options: of the class.
        """
        source = ListedFiles(paths, targets, classes, train, validation)
        if not len(validation):
            options["eval_frac"] = 0.0
        return cls(source=source, short="repeat", **options)

    def setup(self, stage: str | None = None) -> None:
        """As the base; the classes are known then."""
        super().setup(stage)
        labels = self.source.labels()
        self.classes, self.multi_label = list(labels.classes), labels.multi_label

    @property
    def batch_spec(self) -> BatchSpec:
        return replace(super().batch_spec, classes=tuple(self.classes), multi_label=self.multi_label)
