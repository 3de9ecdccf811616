"""The data module of all kinds of recordings: it scans, splits, orders, loads and resumes; its parts say the rest."""

import math
import os
from collections import defaultdict
from dataclasses import replace
from typing import Any

import torch
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from torch.utils.data import DataLoader, Dataset, Subset

from ssl_audio.data.batch_spec import BatchSpec
from ssl_audio.data.failures import FailureLog
from ssl_audio.data.index import AudioEntry, AudioIndex, Group
from ssl_audio.data.items import Items
from ssl_audio.data.loading import Loading
from ssl_audio.data.resuming import ResumePoint
from ssl_audio.data.sampler import Draw, EpochSampler
from ssl_audio.data.sources.base import Source
from ssl_audio.errors import InputError

REPORT_NAME = "data_report.csv"


class RecordingDataModule(LightningDataModule):
    """Joins a source of recordings, the kind of items, and a loader. Subclasses are constructors with flat arguments.

    Recordings that cannot be used are left out before training. Recordings that fail in training are replaced by
    another of the same group. Both are written to `data_report.csv` in the run folder (`data_report.rank1.csv`, ... by
    other processes for what failed there). All randomness comes from the seed, the epoch and the item.

    The order is part of checkpoints: a run that resumes in the middle of an epoch continues with the items not yet
    seen, whatever the number of workers (see `ResumePoint`).

    Args:
        source: where recordings come from.
        items: what an item and a batch are.
        loading: how batches are loaded.
        eval_frac: fraction of each data set's groups for validation, in [0, 1); 0 trains on all and validates nothing.
        max_failures: see `FailureLog`.

    Attributes:
        index: what the scan found and the run uses; None before `setup`.
        train_groups, val_groups: both sides of the split.
        classes: names, in the order of the targets; empty before `setup`, and where batches hold no targets.
        multi_label: whether a recording may have several.

    Raises:
        InputError: a value out of its range; the message names the key.
    """

    def __init__(
        self, source: Source, items: Items, loading: Loading, eval_frac: float = 0.2, max_failures: float = 0.05
    ) -> None:
        super().__init__()
        if not 0 <= eval_frac < 1:
            raise InputError(f"data.eval_frac is {eval_frac}; it must be at least 0 and below 1 (0.2 keeps a fifth)")
        self.source = source
        self.items = items
        self.loading = loading
        self.eval_frac = eval_frac
        self.index: AudioIndex | None = None
        self.classes: list[str] = []
        self.multi_label = False
        self.train_groups: list[Group] = []
        self.val_groups: list[Group] = []
        self.failures = FailureLog(max_failures)
        self.resume_point = ResumePoint()
        self._problem = ""  # that `prepare_data` found

    @property
    def batch_spec(self) -> BatchSpec:
        """What the batches hold; a method asks for it in its `setup`."""
        spec = self.items.spec(self.loading.batch_size)
        return replace(spec, classes=tuple(self.classes), multi_label=self.multi_label)

    @property
    def sample_rate(self) -> int:
        """Of the clips, Hz."""
        return self.items.sample_rate

    @property
    def nr_samples(self) -> int:
        """Of a clip."""
        return self.items.nr_samples

    @property
    def batch_size(self) -> int:
        """Items of a step on each device."""
        return self.loading.batch_size

    @property
    def training_entries(self) -> list[AudioEntry]:
        """The recordings of the training set; a batch's "index" counts them."""
        return [entry for group in self.train_groups for entry in group.entries]

    def prepare_data(self) -> None:
        """On one process of a machine: scan, so that the others find the index in the cache. `setup` says problems."""
        try:
            self.source.prepare()
        except InputError as error:  # the others wait until this call returns, so it must not end in an error
            self._problem = str(error)

    def setup(self, stage: str | None = None) -> None:
        """Scan, split and check, once.

        Raises:
            InputError: a place is missing or has nothing usable; too few groups, recordings or samples.
        """
        if self.index is not None:
            return
        raise_together(self._problem or self.source.problem(self.sample_rate, self.items.needs_all))
        index = self._long_enough(self.source.scan(progress=self._rank == 0))
        index, copies = self.source.find_copies(index, self.sample_rate)
        self.train_groups, self.val_groups = self.source.split(index, self.eval_frac, self.loading.seed)
        self._check(len(index.groups))
        if "target" in self.items.keys:
            labels = self.source.labels()
            self.classes, self.multi_label = list(labels.classes), labels.multi_label
        self.index = index
        self.failures.begin(index.left_out, self._report_path())
        text = f"data: {index.summary()}{f', {copies} of them cached' if copies else ''}"
        text += f"; {len(self.train_groups)} groups for training, {len(self.val_groups)} for validation"
        rank_zero_info(f"{text}; see {self.failures.path}" if self.failures.path and index.left_out else text)

    def _long_enough(self, index: AudioIndex) -> AudioIndex:
        """The index without recordings shorter than a clip, where the items leave these out."""
        if not self.items.excludes_short:
            return index
        long_enough = index.at_least(self.nr_samples, self.sample_rate)
        if not long_enough.groups:
            longest = max(entry.samples(self.sample_rate) for group in index.groups for entry in group.entries)
            raise InputError(
                f"none of the files in {self.source} is as long as data.nr_samples = {self.nr_samples} at "
                f"{self.sample_rate} Hz; the longest has {longest}; {self.items.short_remedy}"
            )
        return long_enough

    def _check(self, groups: int) -> None:
        """Refuse what could only fail later."""
        if self.eval_frac and not self.val_groups:
            raise InputError(
                f"{self.source}: only {groups} usable singer, and data.eval_frac = {self.eval_frac:g} keeps some apart "
                f"for validation; add singers, or set data.eval_frac to 0{self.source.more_groups()}"
            )
        for training in (True, False) if self.val_groups else (True,):
            dataset = self.dataset(training)
            self.items.check(dataset, self.sampler(dataset, training), training)

    def dataset(self, training: bool) -> Dataset:
        """The items of one side of the split."""
        return self.items.dataset(self.train_groups if training else self.val_groups, self.source, training)

    def sampler(self, dataset: Any, training: bool) -> EpochSampler:
        """The order of the items on this process.

        In validation the order is mixed but always the same, because neighbours in a batch serve as negatives. What
        does not fill a last batch is left out if there is a full batch, so that metrics which depend on the batch size
        stay comparable.
        """
        batch_size = self.loading.items_of_a_step(training)
        full = len(dataset) >= batch_size * self._world_size
        return self.items.sampler(
            dataset,
            self.source,
            training,
            batch_size=batch_size,
            drop_last=training or full,
            num_replicas=self._world_size,
            rank=self._rank,
        )

    def plain_training_sets(self, max_files: int) -> list[Subset]:
        """A clip of each training recording as it is, not augmented, as "clip1" of the items.

        Args:
            max_files: of each data set, evenly taken.

        Returns:
            One `Subset` a data set.
        """
        dataset = self.items.plain(self.train_groups, self.source)
        draws: dict[int, list[Draw]] = defaultdict(list)
        position = 0
        for group in self.train_groups:
            for _ in group.entries:
                draws[group.dataset].append(Draw(0, position))
                position += 1
        chosen = [of_set[:: math.ceil(len(of_set) / max_files)] for of_set in draws.values()]
        return [Subset(dataset, of_set) for of_set in chosen]  # type: ignore[arg-type]  # a Draw is the index here

    def train_dataloader(self) -> DataLoader:
        """Batches in a new order each epoch; what does not fill one waits for another epoch."""
        if not self.failures.path:
            self.failures.path = self._report_path()
        dataset = self.dataset(training=True)
        sampler = self.sampler(dataset, training=True)
        loader = self._loader(dataset, sampler)
        self.resume_point.begin(sampler, len(loader), self.trainer)
        return loader

    def val_dataloader(self) -> DataLoader | list:
        """The same fragments in the same order each time, not augmented; an empty list without validation groups."""
        if not self.val_groups:
            return []
        dataset = self.dataset(training=False)
        return self._loader(dataset, self.sampler(dataset, training=False))

    def _loader(self, dataset: Dataset, sampler: EpochSampler) -> DataLoader:
        return self.loading.loader(dataset, sampler, self.items.collate, self._processes_here)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Take the failures out of a batch, report them, and stop if there are too many (InputError)."""
        self.failures.count(len(batch["index"]), batch.pop("failures", []))
        return batch

    def state_dict(self) -> dict[str, int]:
        """See `ResumePoint.state_dict`."""
        return self.resume_point.state_dict(self.trainer)

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue from there with the next `train_dataloader`."""
        self.resume_point.load_state_dict(state_dict)

    def _report_path(self) -> str:
        """Of this process in the run folder; "" without one. A collective call: all processes or none."""
        if self.trainer is None or getattr(self.trainer, "fast_dev_run", False) or self.trainer.state.fn != "fit":
            return ""
        folder = self.trainer.log_dir or self.trainer.default_root_dir
        return os.path.join(folder, REPORT_NAME if self._rank == 0 else f"data_report.rank{self._rank}.csv")

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    @property
    def _processes_here(self) -> int:
        """Training processes that share this machine's cores."""
        return max(1, self._world_size // self.trainer.num_nodes) if self.trainer is not None else 1


def recording_data(trainer: Trainer) -> RecordingDataModule | None:
    """The data module of a trainer if it is one of recordings; None for loaders and other data modules."""
    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, RecordingDataModule) else None


def raise_together(problem: str) -> None:
    """Raise on every process what one of them found, "" for nothing. A collective call: all processes or none.

    Raises:
        InputError: on all processes, with the number of the one that has the problem.
    """
    found = [problem]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        found = [""] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(found, problem)
    for rank, message in enumerate(found):
        if message:
            raise InputError(f"process {rank}: {message}" if len(found) > 1 else message)
