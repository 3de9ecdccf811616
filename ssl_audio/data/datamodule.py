"""What a training run asks for its data: folders in, batches of two views out."""

import logging
import math
import os
import warnings
from collections import defaultdict
from typing import Any, Literal

import torch
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader, Subset

from ssl_audio.augmentations.base import ClipTransform
from ssl_audio.data.corpora import Corpus
from ssl_audio.data.corpus_index import TRAIN, VALID, read_corpus, scan_corpus
from ssl_audio.data.dataset import SamplingMode, TwoViewDataset, collate, ignore_sigint
from ssl_audio.data.index import AudioIndex, Group, write_report
from ssl_audio.data.resuming import realign_batch_counter
from ssl_audio.data.sampler import Draw, EpochSampler
from ssl_audio.data.store import attach
from ssl_audio.errors import InputError
from ssl_audio.utils.cpu import cores_per_process

logger = logging.getLogger(__name__)

REPORT_NAME = "data_report.csv"


class AudioDataModule(LightningDataModule):
    """Two views of each recording from folders laid out as `dataset/singer/**/file`, split by singer.

    A batch: {"clip1", "clip2": (batch, nr_samples) float32, "group_name": list[str], "index": (batch,) int64}.

    Files that cannot be used are left out before training, and files that fail in training are replaced by another of
    the same group; both are written to `data_report.csv` in the run folder (`data_report.rank1.csv`, ... by other
    processes for what failed there). Everything random comes from the seed, the epoch and the item.

    The order is part of checkpoints: a run that resumes in the middle of an epoch goes on with the items not yet seen.
    Lightning does this by itself through `state_dict` and `load_state_dict`, whatever the number of workers. So does a
    run with another batch size or number of processes; only where the order itself depends on them (compositions of
    windows) it is refused.

    Args:
        dataset_dirs: data set folders; the share `eval_frac` of the groups of each is for validation.
        sample_rate: Hz of the clips; files of other rates are resampled.
        nr_samples: length of a clip in samples.
        batch_size: items (pairs of clips) a step, on each device.
        num_workers: processes that read and augment; "auto" takes the cores of this process but one, 16 at most (those
            of the task under SLURM, else an equal share of the machine's).
        eval_frac: share of each data set's groups for validation, in [0, 1); 0 trains on all and validates nothing.
        seed: of split, order, fragments and per-clip augmentation.
        batch_sampling_mode: "sample_clips": an epoch visits each file; "sample_groups": each group, with a random file.
        multi_epoch: how many times an epoch repeats that.
        max_groups: use at most so many groups, drawn by the seed.
        group_by_artist: each first-level folder is a group; if False each file is a group of its own.
        group_name_is_folder: batches carry the folder's name; if False "unknown".
        augmentation: per clip on the CPU, in training only.
        shared_crop: both views are the same fragment, and differ by the augmentation alone.
        short: files shorter than `nr_samples` are left out and reported ("exclude"), or repeated until they fill the
            clip ("repeat"). They are never padded: silence in place of audio would be learned.
        max_failures: share of drawn clips that may fail in training before it stops (counted from 100 draws on).
        prefetch_factor: batches that each worker prepares ahead.
        pin_memory: page-locked batches; None decides: on where there is a CUDA device.
        corpus: a named corpus in the one folder of `dataset_dirs`, as {name: fma, subset: small}: train on its official
            training tracks alone, validate on its validation tracks (where it has none, on `eval_frac` of the others,
            and not at all if that is 0). Groups are its artists or speakers. None: all files of the folders.
        store: where `ssl-audio cache --store` has put the copies; None: in the data sets' folders.

    Attributes:
        can_repeat: whether `short` can be "repeat".
    """

    can_repeat = True

    def __init__(
        self,
        dataset_dirs: list[str] | str,
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
        short: Literal["exclude", "repeat"] = "exclude",
        max_failures: float = 0.05,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
        corpus: dict[str, Any] | None = None,
        store: str | None = None,
    ) -> None:
        super().__init__()
        counts = {"sample_rate": sample_rate, "nr_samples": nr_samples, "batch_size": batch_size,
                  "multi_epoch": multi_epoch, "prefetch_factor": prefetch_factor}  # fmt: skip
        for name, value in counts.items():
            if value < 1:
                raise InputError(f"data.{name} is {value}; it must be at least 1")
        if seed < 0:
            raise InputError(f"data.seed is {seed}; it must not be negative")
        if num_workers != "auto" and num_workers < 0:
            raise InputError(f"data.num_workers is {num_workers}; it must be 0 or more, or auto")
        if not 0 <= eval_frac < 1:
            raise InputError(f"data.eval_frac is {eval_frac}; it must be at least 0 and below 1 (0.2 keeps a fifth)")
        if not 0 <= max_failures <= 1:
            raise InputError(f"data.max_failures is {max_failures}; it must be from 0 to 1")
        if max_groups is not None and max_groups < 1:
            raise InputError(f"data.max_groups is {max_groups}; it must be at least 1, or null for all groups")
        if not dataset_dirs:
            raise InputError("data.dataset_dirs is empty; name at least one folder laid out as dataset/singer/file")
        self.dataset_dirs = [dataset_dirs] if isinstance(dataset_dirs, str) else list(dataset_dirs)
        self.sample_rate = sample_rate
        self.nr_samples = nr_samples
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.eval_frac = eval_frac
        self.seed = seed
        self.batch_sampling_mode: SamplingMode = batch_sampling_mode
        self.multi_epoch = multi_epoch
        self.max_groups = max_groups
        self.group_by_artist = group_by_artist
        self.group_name_is_folder = group_name_is_folder
        self.augmentation = augmentation
        self.shared_crop = shared_crop
        self.short = short
        self.max_failures = max_failures
        self.prefetch_factor = prefetch_factor
        self.pin_memory = torch.cuda.is_available() if pin_memory is None else pin_memory
        self.corpus = corpus
        self.store = store
        self.index: AudioIndex | None = None
        self._refused = ""
        self.train_groups: list[Group] = []
        self.val_groups: list[Group] = []
        self._folder: str | None = None  # of the report; asked for once, because asking is a broadcast between ranks
        self._resumed = Draw(0, 0)
        self._counted_from = (0, 0, 0)  # an epoch, items of its order and Lightning's count of batches, at one time
        self._step_items: int | None = None  # of the run that is resumed
        self._sampler: EpochSampler | None = None
        self._drawn = self._failed = 0

    def prepare_data(self) -> None:
        """On one process a machine: scan once, so that the others find the cached index; what is wrong `setup` says."""
        try:
            self._prepare()
        except InputError as error:  # the others wait until this one returns, so that it must not end here
            self._refused = str(error)

    def _prepare(self) -> None:
        self._scan()

    def _raise_together(self, problem: str) -> None:
        """Raise on every process what one of them found, "" for nothing."""
        found = [problem]
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            found = [""] * torch.distributed.get_world_size()
            torch.distributed.all_gather_object(found, problem)
        for rank, message in enumerate(found):
            if message:
                raise InputError(f"process {rank}: {message}" if len(found) > 1 else message)

    def setup(self, stage: str | None = None) -> None:
        """Scan, split and check, once.

        Raises:
            InputError: a folder is missing or has nothing usable, there are too few singers, files or samples.
        """
        if self.index is not None:
            return
        self._raise_together(self._refused)
        index = self._scan(progress=self._rank == 0)
        if self.short == "exclude":
            longest = max(entry.samples(self.sample_rate) for group in index.groups for entry in group.entries)
            index = index.at_least(self.nr_samples, self.sample_rate)
            if not index.groups:
                remedy = "make nr_samples smaller" + (", or set data.short to repeat" if self.can_repeat else "")
                raise InputError(
                    f"none of the files in {', '.join(self.dataset_dirs)} is as long as data.nr_samples = "
                    f"{self.nr_samples} at {self.sample_rate} Hz; the longest has {longest}; {remedy}"
                )
        index, stored, unstored = attach(index, self.sample_rate, self.store)
        if unstored:
            rank_zero_warn(
                f"{unstored} recordings have no current copy in the cache and are decoded each time; to make them: "
                f"ssl-audio cache {' '.join(self.dataset_dirs)} --sample_rate {self.sample_rate}"
                f"{f' --store {self.store}' if self.store is not None else ''}"
            )
        self.train_groups, self.val_groups = self._split(index)
        self._check(len(index.groups))
        self.index = index
        self._find_folder()
        where = self._report()
        text = f"data: {index.summary()}{f', {stored} of them cached' if stored else ''}"
        text += f"; {len(self.train_groups)} groups for training, {len(self.val_groups)} for validation"
        rank_zero_info(f"{text}; see {where}" if where and index.left_out else text)

    def read_corpus(self) -> Corpus:
        """The corpus that `corpus` names (InputError: none, or not all of its files are there)."""
        return read_corpus(self.dataset_dirs, self.corpus or {})

    def _scan(self, progress: bool = True) -> AudioIndex:
        if self.corpus is not None:
            corpus = self.read_corpus()
            found = scan_corpus(self.dataset_dirs[0], corpus, self.group_by_artist, progress)
            return found.limited(self.max_groups, self.seed)
        return AudioIndex.scan(
            self.dataset_dirs,
            group_by_artist=self.group_by_artist,
            group_name_is_folder=self.group_name_is_folder,
            max_groups=self.max_groups,
            seed=self.seed,
            progress=progress,
        )

    def _split(self, index: AudioIndex) -> tuple[list[Group], list[Group]]:
        """(training, validation) groups: the corpus's own, else by `eval_frac`."""
        official = [[g for g in index.groups if g.dataset == side] for side in (TRAIN, VALID)]
        if self.corpus is None or not official[1] or not self.eval_frac:
            return index.split(self.eval_frac, self.seed)
        return official[0], official[1]

    def _check(self, groups: int) -> None:
        """Refuse what could only fail later."""
        if self.eval_frac and not self.val_groups:
            raise InputError(
                f"{', '.join(self.dataset_dirs)}: only {groups} usable singer, and data.eval_frac = {self.eval_frac:g} "
                "keeps some apart for validation; add singers, or set eval_frac to 0, or group_by_artist to false"
            )
        train, needed = len(self._dataset(training=True)), self.batch_size * self._world_size
        if train < needed:
            what = "singers" if self.batch_sampling_mode == "sample_groups" else "files"
            times = f" x multi_epoch {self.multi_epoch}" if self.multi_epoch > 1 else ""
            raise InputError(
                f"the training set has {train // self.multi_epoch} {what}{times}, fewer than a batch of {needed}; "
                f"set data.batch_size to at most {train // self._world_size}, or data.multi_epoch to at least "
                f"{-(-needed * self.multi_epoch // train)}, or add recordings"
            )
        if self.val_groups and len(self._dataset(training=False)) < 2 * self._world_size:
            raise InputError(
                f"the validation set has {len(self._dataset(training=False))} item, too few to compare; "
                "make data.eval_frac larger, set it to 0, or add singers"
            )

    def _dataset(self, training: bool) -> TwoViewDataset:
        return TwoViewDataset(
            self.train_groups if training else self.val_groups,
            self.nr_samples,
            self.sample_rate,
            self.seed,
            self.batch_sampling_mode,
            self.multi_epoch if training else 1,
            self.augmentation if training else None,
            self.shared_crop,
        )

    def plain_training_sets(self, max_files: int) -> list[Subset]:
        """A window of each training file as it is, not augmented; one `Subset` a data set, files evenly taken.

        Raises:
            InputError: this data module has no pairs of clips.
        """
        dataset: Any = self._dataset(training=True)
        if not isinstance(dataset, TwoViewDataset):
            raise InputError(f"{type(self).__name__} has no pairs of clips; take ssl_audio.data.AudioDataModule")
        dataset.augmentation, dataset.batch_sampling_mode, dataset.multi_epoch = None, "sample_clips", 1
        files: dict[int, list[Draw]] = defaultdict(list)
        for group in dataset.groups:
            for _ in group.entries:
                files[group.dataset].append(Draw(0, sum(map(len, files.values()))))
        chosen = [draws[:: math.ceil(len(draws) / max_files)] for draws in files.values()]
        return [Subset(dataset, draws) for draws in chosen]  # type: ignore[arg-type]  # a Draw is this data set's index

    def train_dataloader(self) -> DataLoader:
        """Batches of `batch_size`, in a new order each epoch; what does not fill one waits for another epoch."""
        self._find_folder()
        dataset = self._dataset(training=True)
        self._sampler = self._ordered(dataset, shuffle=True, drop_last=True)
        self._sampler.resume(*self._resumed)
        loader = self._loader(dataset, self._sampler)
        if self._step_items is not None and self.trainer is not None:
            realign_batch_counter(self.trainer.fit_loop, self._sampler, self._step_items, len(loader))
            self._step_items = None  # once
            if self._resumed.item:
                self._counted_from = (*self._resumed, self._batches.processed)
        return loader

    def val_dataloader(self) -> DataLoader | list:
        """The same fragments in the same order each time, no augmentation; an empty list without validation groups.

        The order is mixed, because neighbours in a batch serve as negatives. What does not fill a last batch is left
        out if there is at least one full batch, so that figures which depend on the batch size stay comparable.
        """
        if not self.val_groups:
            return []
        dataset = self._dataset(training=False)
        full = len(dataset) >= self.batch_size * self._world_size
        return self._loader(dataset, self._ordered(dataset, shuffle=False, drop_last=full))

    def _ordered(self, dataset: TwoViewDataset, shuffle: bool, drop_last: bool) -> EpochSampler:
        return EpochSampler(
            dataset, self.batch_size, self.seed, shuffle, drop_last, num_replicas=self._world_size, rank=self._rank
        )

    def _loader(self, dataset: TwoViewDataset, sampler: EpochSampler) -> DataLoader:
        cores = cores_per_process(self._processes_here)
        workers = min(16, max(1, cores - 1), sampler.steps) if self.num_workers == "auto" else self.num_workers
        return DataLoader(
            dataset,
            self.batch_size,
            sampler=sampler,
            drop_last=sampler.drop_last,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=self.pin_memory,
            worker_init_fn=ignore_sigint,
            generator=torch.Generator().manual_seed(self.seed),  # a DataLoader else draws from torch's global numbers
            persistent_workers=workers > 0,
            prefetch_factor=self.prefetch_factor if workers else None,
        )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Take the failures out of a batch, report them, and stop if there are too many (InputError)."""
        failures = batch.pop("failures", [])
        self._drawn += len(batch["index"])
        self._failed += len(failures)
        if failures and self.index is not None:
            known = {item.path for item in self.index.left_out}
            fresh = {item.path: item for item in failures if item.path not in known}
            self.index.left_out += fresh.values()
            if fresh:
                where = self._report()
                for item in fresh.values():
                    logger.warning("%s: %s; another file takes its place (see %s)", item.path, item.reason, where)
        if self._drawn >= 100 and self._failed > self.max_failures * self._drawn:
            raise InputError(
                f"{self._failed} of {self._drawn} clips drawn in training could not be used, more than "
                f"data.max_failures = {self.max_failures:g} allows; the last: {self._last_failure()}"
            )
        return batch

    def _last_failure(self) -> str:
        return " ".join(self.index.left_out[-1]) if self.index and self.index.left_out else ""

    def _find_folder(self) -> None:
        if self._folder is None and self.trainer is not None:
            self._folder = self.trainer.log_dir or self.trainer.default_root_dir

    def _report(self) -> str:
        """Write what was left out into the run folder; returns the file's name, "" without a trainer."""
        if self._folder is None or self.index is None:
            return ""
        path = os.path.join(self._folder, REPORT_NAME if self._rank == 0 else f"data_report.rank{self._rank}.csv")
        write_report(path, self.index.left_out)
        return path

    def state_dict(self) -> dict[str, int]:
        """Where the run is: the epoch, how many items of its order all processes have been trained on, items a step."""
        if self.trainer is None or self._sampler is None:
            return {}
        batches, epoch = self._batches.processed, self._sampler.epoch
        if batches >= self.trainer.num_training_batches:
            return {"epoch": epoch + 1, "items": 0, "step_items": self._sampler.step_items}
        begun, items, counted = self._counted_from
        if epoch != begun:
            items = counted = 0
        items += (batches - counted) * self._sampler.step_items
        return {"epoch": epoch, "items": items, "step_items": self._sampler.step_items}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Continue from there with the next `train_dataloader`."""
        if state_dict:
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable")  # it is, by this
            self._resumed = Draw(state_dict["epoch"], state_dict["items"])
            self._step_items = state_dict.get("step_items")

    @property
    def _batches(self) -> Any:
        """Lightning's count of the batches of the epoch."""
        return self.trainer.fit_loop.epoch_loop.batch_progress.current  # type: ignore[union-attr]

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
