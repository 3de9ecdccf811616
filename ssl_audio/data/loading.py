"""How items become batches: size, workers, prefetching, pinned memory."""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch.utils.data import DataLoader, Dataset

from ssl_audio.data.sampler import EpochSampler
from ssl_audio.errors import InputError
from ssl_audio.utils.cpu import cores_per_process

_MAX_AUTO_WORKERS = 16


@dataclass(frozen=True)
class Loading:
    """Checks its values when it is made.

    Attributes:
        batch_size: items of a step on each device.
        num_workers: processes that read and augment; "auto": the cores of this process but one, 16 at most.
        prefetch_factor: batches that each worker prepares ahead.
        pin_memory: page-locked batches; None: where there is a CUDA device.
        seed: of the loader's own generator, which a DataLoader would else take from torch's global one.
        batch_size_val: items of a validation step on each device; None: as `batch_size`.

    Raises:
        InputError: a value out of its range; the message names the key.
    """

    batch_size: int
    num_workers: int | Literal["auto"] = "auto"
    prefetch_factor: int = 2
    pin_memory: bool | None = None
    seed: int = 0
    batch_size_val: int | None = None

    def __post_init__(self) -> None:
        check_at_least(1, batch_size=self.batch_size, prefetch_factor=self.prefetch_factor)
        check_at_least(0, seed=self.seed)
        if self.batch_size_val is not None:
            check_at_least(1, batch_size_val=self.batch_size_val)
        if self.num_workers != "auto" and self.num_workers < 0:
            raise InputError(f"data.num_workers is {self.num_workers}; it must be 0 or more, or auto")

    def items_of_a_step(self, training: bool) -> int:
        """On each device."""
        return self.batch_size if training or self.batch_size_val is None else self.batch_size_val

    def workers(self, steps: int, processes: int) -> int:
        """How many workers a loader gets.

        Args:
            steps: batches of an epoch; more workers would have nothing to do.
            processes: training processes that share this machine's cores.
        """
        if self.num_workers != "auto":
            return self.num_workers
        return min(_MAX_AUTO_WORKERS, max(1, cores_per_process(processes) - 1), steps)

    def loader(
        self,
        dataset: Dataset,
        sampler: EpochSampler,
        collate: Callable[[Any], dict[str, Any]],
        processes: int = 1,
    ) -> DataLoader:
        """Batches of a data set in the order of the sampler; `processes` as for `workers`."""
        workers = self.workers(sampler.steps, processes)
        return DataLoader(
            dataset,
            sampler.batch_size,
            sampler=sampler,
            drop_last=sampler.drop_last,
            num_workers=workers,
            collate_fn=collate,
            pin_memory=torch.cuda.is_available() if self.pin_memory is None else self.pin_memory,
            worker_init_fn=ignore_sigint,
            generator=torch.Generator().manual_seed(self.seed),
            persistent_workers=workers > 0,
            prefetch_factor=self.prefetch_factor if workers else None,
        )


def check_at_least(least: int, **counts: int) -> None:
    """Raise InputError for the first of the keys `data.<name>` whose value is below `least`."""
    for name, value in counts.items():
        if value < least:
            least_words = "must not be negative" if least == 0 else f"must be at least {least}"
            raise InputError(f"data.{name} is {value}; it {least_words}")


def ignore_sigint(worker: int) -> None:
    """Ignore SIGINT in a loader's worker: a terminal signals all processes, but only the main one decides to stop."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def identity(batch: dict[str, Any]) -> dict[str, Any]:
    """For data sets whose `__getitems__` makes whole batches: nothing is left to collate."""
    return batch
