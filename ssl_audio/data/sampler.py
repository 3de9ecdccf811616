"""The order in which items are drawn: from the seed and the epoch alone, split over processes, resumable anywhere."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset, DistributedSampler


class Draw(NamedTuple):
    """What a dataset is asked for: item `item` as epoch `epoch` sees it. All randomness of an item comes from these."""

    epoch: int
    item: int


class EpochSampler(DistributedSampler):
    """Yields `Draw(epoch, item)`; each epoch is a permutation of the items, from (seed, epoch).

    Items go to the processes in turn: item k of the permutation to process `k % num_replicas`. So that all processes
    do equally many steps, the end of the permutation that would not fill a batch on each is left out of that epoch
    (`drop_last`), or the fewer than `num_replicas` items that have no counterpart. No item is ever drawn twice.

    It is a `DistributedSampler` because Lightning replaces samplers that are not, and calls `set_epoch` on it.

    Attributes:
        resumed: the epoch that is not whole, and how many of its draws over all processes come before it begins.

    Args:
        dataset: only its length is used.
        batch_size: of one process.
        seed: non-negative.
        shuffle: a new permutation each epoch. If False, the permutation and the draws of epoch 0, always: validation
            sees the same crops each time.
        drop_last: leave out what does not fill a batch on every process.
        num_replicas, rank: number of processes, and this one's.
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
        """Whether the order depends on how many items a step takes; then an epoch is not resumed with another."""
        return False

    def resume(self, epoch: int, items: int) -> None:
        """Begin `epoch` after its first `items` draws over all processes; other epochs are whole."""
        self.epoch = epoch
        self.resumed = Draw(epoch, items)

    def order(self, epoch: int) -> np.ndarray:
        """The items of an epoch over all processes, of which they take one in turn.

        Where a data set repeats what it visits (`multi_epoch`), each repetition is a permutation of its own, so that a
        batch holds a group or a file once: a second clip of a voice would be taken for another voice.
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
        """Items of a whole epoch on this process, also when an epoch is resumed midway."""
        each = len(self.dataset) // self.num_replicas  # type: ignore[arg-type]
        return each - each % self.batch_size if self.drop_last else each
