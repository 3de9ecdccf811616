"""Shards as a source: recordings inside a few large files, in a folder or at an address."""

from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ssl_audio.data.index import AudioEntry, AudioIndex
from ssl_audio.data.int16 import Int16Recording
from ssl_audio.data.sampler import EpochSampler
from ssl_audio.data.shards import ShardSet, windows
from ssl_audio.data.sources.base import Source
from ssl_audio.errors import InputError


class Shards(Source):
    """Recordings that `ssl-audio shard` wrote.

    Args:
        shards: a folder, or an address from which shards are fetched; see `ssl_audio.data.shards.ShardSet`.
        cache: folder on a fast local disk for shards from an address.
        cache_bytes: size limit of that folder. If it holds all shards, the order of an epoch is a permutation of all
            recordings. Else recordings are mixed within half of the limit at a time, and the other half is for the
            shards that come next.
    """

    def __init__(self, shards: str, cache: str | None = None, cache_bytes: int = 50_000_000_000) -> None:
        self.shards, self.cache, self.cache_bytes = shards, cache, cache_bytes

    def __str__(self) -> str:
        return self.shards

    @cached_property
    def set(self) -> ShardSet:
        """The shards, their index read once. Raises InputError."""
        return ShardSet(self.shards, self.cache, self.cache_bytes)

    def problem(self, sample_rate: int, needs_all: str) -> str:
        """Another rate, shards that are missing or cut short, a cache that is too small."""
        try:
            found = self.set
        except InputError as error:
            return str(error)
        if found.sample_rate != sample_rate:
            return (
                f"data.sample_rate is {sample_rate} and the shards in {self.shards} are at {found.sample_rate} Hz; "
                "set it to that, or write shards at the other rate"
            )
        sizes = [shard.size for shard in found.shards]
        if found.remote and self.cache_bytes < sum(sizes):
            if needs_all:
                return f"{needs_all} needs all shards; raise cache_bytes to {sum(sizes)}"
            if max(sizes) > self.cache_bytes // 2:
                return (
                    f"cache_bytes is {self.cache_bytes}, and half of it must hold the largest shard; set it to at "
                    f"least {2 * max(sizes)}, or write smaller shards with ssl-audio shard --shard_mb"
                )
        if missing := found.missing():
            more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
            return f"the shard {missing[0]}{more} missing or cut short; copy the shards again"
        return ""

    def scan(self, progress: bool = True) -> AudioIndex:
        return self.set.index()

    def open(self, entry: AudioEntry) -> Int16Recording:
        return self.set.open(entry)

    @property
    def budget(self) -> int | None:
        """Bytes of shards that an order may need at a time; None for all: a folder is read in place."""
        if not self.set.remote or sum(shard.size for shard in self.set.shards) <= self.cache_bytes:
            return None
        return self.cache_bytes // 2

    def sampler(self, dataset: Dataset, **arguments: Any) -> EpochSampler:
        """See `ShardSampler`."""
        return ShardSampler(dataset, self.set, budget=self.budget, **arguments)


class ShardSampler(EpochSampler):
    """`EpochSampler` whose order needs only so many bytes of shards at a time.

    Shards are permuted; as many as fit into the budget are taken together, and their recordings permuted. Each
    recording still comes once a repetition. Without a budget, the order is that of `EpochSampler`.

    Args:
        dataset: its `entries` are recordings of the shards.
        shards: the set that they are in.
        budget: bytes, or None for no limit.
        **arguments: see `EpochSampler`.
    """

    def __init__(self, dataset: Any, shards: ShardSet, budget: int | None = None, **arguments: Any) -> None:
        super().__init__(dataset, **arguments)
        self.sizes = [shard.size for shard in shards.shards]
        self.budget = budget
        self._within: list[np.ndarray] = []  # positions of each shard's recordings
        if budget is not None:
            home = np.array([entry.location.shard for entry in dataset.entries])
            self._within = [np.flatnonzero(home == shard) for shard in range(len(self.sizes))]

    def order(self, epoch: int) -> np.ndarray:
        """See `EpochSampler.order`."""
        if self.budget is None or sum(self.sizes) <= self.budget:
            return super().order(epoch)
        rng = np.random.default_rng([self.seed, epoch])
        times = self.dataset.multi_epoch  # type: ignore[attr-defined]
        parts = []
        for turn in range(times):
            for window in windows(self.sizes, rng.permutation(len(self.sizes)).tolist(), self.budget):
                recordings = np.concatenate([self._within[shard] for shard in window])
                parts.append(rng.permutation(recordings) * times + turn)
        return np.concatenate(parts)
