"""The order of an epoch's items: from seed and epoch alone, split over processes, resumable anywhere."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset, DistributedSampler


class Draw(NamedTuple):
    """The key of a data set: item `item` in epoch `epoch`. With the seed, it decides all randomness of the item."""

    epoch: int
    item: int

    @staticmethod
    def of(draw: "Draw | int") -> "Draw":
        """The draw; for a plain position, as trainer.overfit_batches gives it, that of epoch 0."""
        return draw if isinstance(draw, Draw) else Draw(0, int(draw))


class EpochSampler(DistributedSampler):
    """Yields `Draw(epoch, item)`; each epoch is a permutation of the items, from (seed, epoch).

    Items go to the processes in turn: item k of the permutation to process `k % num_replicas`. All processes do equally
    many steps. For that, the end of the permutation is left out of the epoch: what would not fill a batch on each
    process (`drop_last`), or else the remainder of a division by `num_replicas`. No item is drawn twice in an epoch.

    It is a `DistributedSampler` because Lightning replaces other samplers, and calls `set_epoch` on these.

    Attributes:
        resumed: the epoch that was resumed, and how many of its draws over all processes were done before.

    Args:
        dataset: only its length is used.
        batch_size: of one process.
        seed: not negative.
        shuffle: a new permutation each epoch. If False, always the permutation and the draws of epoch 0, so that
            validation sees the same clips each time.
        drop_last: leave out what does not fill a batch on every process.
        num_replicas, rank: number of processes, and the number of this one.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = True,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(dataset, num_replicas=num_replicas, rank=rank, shuffle=shuffle, seed=seed, drop_last=drop_last)
        self.batch_size = batch_size
        self.resumed = Draw(0, 0)

    @property
    def steps(self) -> int:
        """Batches of a whole epoch on each process."""
        return -(-len(self) // self.batch_size)

    @property
    def step_items(self) -> int:
        """Items of a step, over all processes."""
        return self.batch_size * self.num_replicas

    @property
    def order_depends_on_step(self) -> bool:
        """Whether an epoch's order depends on the items of a step; then only the same number can resume it."""
        return False

    def resume(self, epoch: int, items: int) -> None:
        """Begin `epoch` after its first `items` draws over all processes; other epochs stay whole."""
        self.epoch = epoch
        self.resumed = Draw(epoch, items)

    def order(self, epoch: int) -> np.ndarray:
        """(items,) of an epoch over all processes, which take them in turn.

        Where a data set repeats its groups or files (`multi_epoch`), each repetition is a permutation of its own, so
        that a batch has each of them once: two clips of one voice in a batch would be treated as different voices.
        """
        rng = np.random.default_rng([self.seed, epoch])
        times = getattr(self.dataset, "multi_epoch", 1)
        visited = len(self.dataset) // times  # type: ignore[arg-type]
        return np.concatenate([rng.permutation(visited) * times + turn for turn in range(times)])

    def __iter__(self) -> Iterator[Draw]:
        epoch = self.epoch if self.shuffle else 0
        done = self.resumed.item if epoch == self.resumed.epoch else 0
        order = self.order(epoch)[done:]
        unit = self.num_replicas * (self.batch_size if self.drop_last else 1)
        mine = order[: len(order) - len(order) % unit][self.rank :: self.num_replicas]
        return (Draw(epoch, int(item)) for item in mine)

    def __len__(self) -> int:
        """Items of a whole epoch on this process, also when an epoch is resumed in its middle."""
        each = len(self.dataset) // self.num_replicas  # type: ignore[arg-type]
        return each - each % self.batch_size if self.drop_last else each
