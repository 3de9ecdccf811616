"""Batch composition: which windows share a batch, and hence which negatives CPC sees.

A batch here is what all processes together see in a step, because negatives come from all of it.

- "uniform": windows of the whole corpus, mixed.
- "samesequence": each batch from one recording, so that neither player nor room distinguishes its windows.
- "samecategory": each batch from one category (ensemble, composer, singer, ...).
- "sequential": row i of each batch continues row i of the batch before, for a recurrent state that is carried.
"""

from typing import Literal, Protocol

import numpy as np

from ssl_audio.data.sampler import EpochSampler

Composition = Literal["uniform", "samesequence", "samecategory", "sequential"]


class Windows(Protocol):
    """What a sampler reads from a data set of windows.

    Attributes:
        sequences: (windows,) int, the recording of each; windows of one recording lie together and in order.
        categories: (windows,) int, the category of each.
    """

    sequences: np.ndarray
    categories: np.ndarray

    def __len__(self) -> int: ...


class CompositionSampler(EpochSampler):
    """`EpochSampler` in which each step of all processes together is a batch of a composition.

    The order comes from (seed, epoch), is dealt to the processes batch by batch, and uses no window twice. What does
    not fill a batch on every process is left out of that epoch; other epochs leave out other windows. The items of a
    step are the same for any number of processes with the same number of items a step.

    Args:
        dataset: windows.
        composition: see above. "uniform" is the order of `EpochSampler` itself.
        batch_size, seed, shuffle, num_replicas, rank: see `EpochSampler`.
        drop_last: see `EpochSampler`; only "uniform" can keep an incomplete batch.
    """

    def __init__(
        self,
        dataset: Windows,
        composition: Composition,
        batch_size: int,
        seed: int,
        shuffle: bool = True,
        drop_last: bool = True,
        num_replicas: int = 1,
        rank: int = 0,
    ) -> None:
        super().__init__(dataset, batch_size, seed, shuffle, drop_last or composition != "uniform", num_replicas, rank)  # type: ignore[arg-type]
        self.windows = dataset
        self.composition = composition
        self._length = len(self.order(0)) // num_replicas if composition != "uniform" else 0

    def order(self, epoch: int) -> np.ndarray:
        """(items,) of an epoch over all processes; process r takes items r, r + num_replicas, ..."""
        if self.composition == "uniform":
            return super().order(epoch)
        rng, together = np.random.default_rng([self.seed, epoch]), self.batch_size * self.num_replicas
        if self.composition == "sequential":
            batches = streams(self.windows.sequences, together, rng)
        else:
            of = self.windows.sequences if self.composition == "samesequence" else self.windows.categories
            batches = batches_of_one_kind(of, together, rng)
        return batches.reshape(-1, self.num_replicas, self.batch_size).transpose(0, 2, 1).ravel()

    @property
    def order_depends_on_step(self) -> bool:
        """See `EpochSampler`."""
        return self.composition != "uniform"

    def __len__(self) -> int:
        return super().__len__() if self.composition == "uniform" else self._length


def batches_of_one_kind(kinds: np.ndarray, batch_size: int, rng: np.random.Generator) -> np.ndarray:
    """`(batches, batch_size)` positions: each batch from one kind, in a random order of batches.

    What does not fill a batch of a kind is left out.

    Args:
        kinds: (items,) int.
    """
    order = rng.permutation(len(kinds))
    order = order[np.argsort(kinds[order], kind="stable")]  # sorted by kind, random within a kind
    _, sizes = np.unique(kinds, return_counts=True)
    full = [part[: len(part) - len(part) % batch_size] for part in np.split(order, np.cumsum(sizes)[:-1])]
    batches = np.concatenate(full).reshape(-1, batch_size)
    return batches[rng.permutation(len(batches))]


def streams(sequences: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`(steps, count)` positions: column i plays recordings through, one after the other, in a random order.

    Args:
        sequences: (items,) int; items of one recording lie together and in order.
    """
    starts = np.flatnonzero(np.diff(sequences, prepend=-1))
    parts = np.split(np.arange(len(sequences)), starts[1:])
    played = np.concatenate([parts[i] for i in rng.permutation(len(parts))])
    steps = len(played) // count
    first = rng.integers(len(played) - steps * count + 1)  # so that not always the end is left out
    return played[first : first + steps * count].reshape(count, steps).T
