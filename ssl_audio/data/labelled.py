"""Labelled clips for supervised training: the same folders, corpora, order and resuming as `AudioDataModule`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from ssl_audio import audio
from ssl_audio.data.corpora import folder as any_folder
from ssl_audio.data.corpora.base import Corpus
from ssl_audio.data.datamodule import AudioDataModule
from ssl_audio.data.dataset import TwoViewDataset
from ssl_audio.data.index import AudioEntry, AudioIndex, Group
from ssl_audio.data.sampler import Draw
from ssl_audio.data.store import open_recording
from ssl_audio.errors import InputError


class LabelledDataset(TwoViewDataset):
    """One random fragment of each file, as it is on disk, with what is to be predicted of it.

    `dataset[Draw(epoch, item)]`: "clip" (nr_samples,) float32, "target" int64 or (classes,) float32, "index" and
    "failures".

    Args:
        targets: {path: class number, or (classes,) float32 of 0 and 1}.
        arguments: of `TwoViewDataset`.
    """

    def __init__(self, targets: Mapping[str, Any], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.targets = targets

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        item = super().__getitem__(draw)
        target = torch.as_tensor(self.targets[self.entries[item["index"]].path])
        return {"clip": item["clip1"], "target": target, "index": item["index"], "failures": item["failures"]}

    def _views(self, entry: AudioEntry, rng: Generator) -> tuple[np.ndarray, np.ndarray]:
        """The fragment, twice."""
        length = entry.samples(self.sample_rate)
        with open_recording(entry) as file:
            start = int(rng.integers(max(0, length - self.nr_samples) + 1))
            clip = file.read(start, self.nr_samples, self.sample_rate)
        if not len(clip):
            raise audio.AudioError(entry.path, "holds no audio where it should")
        clip = self._finished(np.resize(clip, self.nr_samples), entry, rng)  # a short file is repeated
        return clip, clip


class LabelledDataModule(AudioDataModule):
    """Clips with labels, of a named corpus (`corpus`) or of a folder `class/**/file`.

    A batch: {"clip": (batch, nr_samples) float32, "target": (batch,) int64, or (batch, classes) float32 where a file
    may have several labels, "index": (batch,) int64}. Training and validation follow the corpus's split; test files
    are never read. Arguments are those of `AudioDataModule`.

    Attributes:
        classes: names, in the order of the targets; after `setup`.
        multi_label: whether a file may have several.
    """

    def __init__(self, dataset_dirs: list[str], **options: Any) -> None:
        super().__init__(dataset_dirs, **options)
        self.classes: list[str] = []
        self.multi_label = False
        self._targets: dict[str, Any] = {}

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
        """A data module of these files, ready; `train` and `validation` are positions."""
        module = cls(["files"], **options)
        module._label([str(path) for path in paths], targets, classes)
        sides = []
        for positions in (train, validation):
            infos = [audio.info(paths[i]) for i in positions]
            entries = [
                AudioEntry(str(paths[i]), f.frames, f.sample_rate) for i, f in zip(positions, infos, strict=True)
            ]
            sides.append([Group(entry.path, entry.path, 0, (entry,)) for entry in entries])
        module.train_groups, module.val_groups = sides
        module.index = AudioIndex(sides[0] + sides[1])
        return module

    def prepare_data(self) -> None:
        """Scan once, on one process a machine."""
        if self.index is None:
            super().prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Read the labels, then scan, split and check, once."""
        if self.index is None:
            corpus = self.read_corpus()
            targets = corpus.targets(corpus.tracks)
            self._label(
                [str(track.path) for track in corpus.tracks],
                targets if corpus.multi_label else targets.argmax(axis=1),
                corpus.label_names,
            )
        super().setup(stage)

    def read_corpus(self) -> Corpus:
        if self.corpus is not None:
            return super().read_corpus()
        if len(self.dataset_dirs) != 1:
            raise InputError(f"data.dataset_dirs must name one folder of class/**/file, got {self.dataset_dirs}")
        return any_folder.read(self.dataset_dirs[0], seed=self.seed)

    def _scan(self, progress: bool = True) -> AudioIndex:
        if self.corpus is None:
            self.corpus = {"name": "folder", "seed": self.seed}
        return super()._scan(progress)

    def _label(self, paths: Sequence[str], targets: np.ndarray, classes: Sequence[str]) -> None:
        self.classes, self.multi_label = list(classes), targets.ndim == 2
        kind = np.float32 if self.multi_label else np.int64
        self._targets = dict(zip(paths, targets.astype(kind), strict=True))

    def _dataset(self, training: bool) -> LabelledDataset:
        return LabelledDataset(
            self._targets,
            self.train_groups if training else self.val_groups,
            self.nr_samples,
            self.sample_rate,
            self.seed,
            self.batch_sampling_mode,
            self.multi_epoch if training else 1,
            self.augmentation if training else None,
        )
