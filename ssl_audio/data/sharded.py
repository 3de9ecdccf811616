"""Training from shards: the data module of folders, with another place that recordings come from."""

from typing import Any, Literal

import numpy as np

from ssl_audio.augmentations.base import ClipTransform
from ssl_audio.data.datamodule import AudioDataModule
from ssl_audio.data.dataset import SamplingMode, TwoViewDataset
from ssl_audio.data.index import AudioEntry, AudioIndex
from ssl_audio.data.int16 import Int16Recording
from ssl_audio.data.sampler import EpochSampler
from ssl_audio.data.shards import ShardSet, windows
from ssl_audio.errors import InputError


class ShardedTwoViewDataset(TwoViewDataset):
    """`TwoViewDataset` over the recordings of shards; `shards` is where they are, the rest as there."""

    def __init__(self, shards: ShardSet, *args: Any) -> None:
        super().__init__(*args)
        self.shards = shards

    def _open(self, entry: AudioEntry) -> Int16Recording:  # type: ignore[override]
        return self.shards.open(entry)


class ShardSampler(EpochSampler):
    """`EpochSampler` whose order needs only so many bytes of shards at a time.

    Shards are permuted; as many as fit into the budget are taken together, and their recordings permuted. Each
    recording still comes once a repetition. With a budget for all shards the order is a permutation of everything.

    Args:
        budget: bytes, or None for no bound.
    """

    def __init__(self, dataset: ShardedTwoViewDataset, *args: Any, budget: int | None = None, **kwargs: Any) -> None:
        super().__init__(dataset, *args, **kwargs)
        self.sizes = [shard.size for shard in dataset.shards.shards]
        self.budget = budget
        home = np.array([entry.location.shard for entry in dataset.entries])  # type: ignore[union-attr]
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


class ShardDataModule(AudioDataModule):
    """Two views of each recording from shards (`ssl-audio shard`), split by singer; batches as of `AudioDataModule`.

    Args:
        shards: a folder, or an address from which they are fetched; see `ssl_audio.data.shards.ShardSet`.
        cache: folder on a quick local disk for shards from an address.
        cache_bytes: what may lie there. The order of an epoch is a permutation of everything if that holds all shards;
            else recordings are mixed within half of it at a time, and the other half is for the shards that come next.
        sample_rate: must be that of the shards.
        nr_samples, batch_size, num_workers, eval_frac, seed, batch_sampling_mode, multi_epoch, augmentation,
        shared_crop, short, max_failures, prefetch_factor, pin_memory: see `AudioDataModule`.
    """

    def __init__(
        self,
        shards: str,
        cache: str | None = None,
        cache_bytes: int = 50_000_000_000,
        sample_rate: int = 44100,
        nr_samples: int = 176000,
        batch_size: int = 140,
        num_workers: int | Literal["auto"] = "auto",
        eval_frac: float = 0.2,
        seed: int = 0,
        batch_sampling_mode: SamplingMode = "sample_clips",
        multi_epoch: int = 1,
        augmentation: ClipTransform | None = None,
        shared_crop: bool = False,
        short: Literal["exclude", "repeat"] = "exclude",
        max_failures: float = 0.05,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
    ) -> None:
        super().__init__(
            [shards], sample_rate, nr_samples, batch_size, num_workers, eval_frac, seed, batch_sampling_mode,
            multi_epoch, augmentation=augmentation, shared_crop=shared_crop, short=short, max_failures=max_failures,
            prefetch_factor=prefetch_factor, pin_memory=pin_memory,
        )  # fmt: skip
        self.shards, self.cache, self.cache_bytes = shards, cache, cache_bytes
        self._set: ShardSet | None = None

    def _scan(self, progress: bool = True) -> AudioIndex:
        if self._set is None:
            self._set = ShardSet(self.shards, self.cache, self.cache_bytes)
            if self._set.sample_rate != self.sample_rate:
                raise InputError(
                    f"data.sample_rate is {self.sample_rate} and the shards in {self.shards} are at "
                    f"{self._set.sample_rate} Hz; set it to that, or write shards at the other rate"
                )
        return self._set.index()

    def prepare_data(self) -> None:
        """Nothing to scan: `setup` reads the index."""

    def setup(self, stage: str | None = None) -> None:
        """As for folders, after every process has looked for its shards.

        Raises:
            InputError: on all processes, if one of them lacks a shard; or as for folders.
        """
        self._raise_together(self._problem())
        super().setup(stage)

    def _problem(self) -> str:
        """What this process finds wrong with its shards, "" if nothing."""
        try:
            self._scan()
            assert self._set is not None
            total = sum(shard.size for shard in self._set.shards)
            if self._set.remote and self.cache_bytes < total:
                if self.batch_sampling_mode == "sample_groups":
                    return f"data.batch_sampling_mode sample_groups needs all shards; raise data.cache_bytes to {total}"
                sizes = [shard.size for shard in self._set.shards]
                if max(sizes) > self.cache_bytes // 2:
                    return (
                        f"data.cache_bytes is {self.cache_bytes}, and half of it must hold the largest shard; set it "
                        f"to at least {2 * max(sizes)}, or write smaller ones with ssl-audio shard --shard_mb"
                    )
        except InputError as error:
            return str(error)
        if missing := self._set.missing():
            more = f" and {len(missing) - 1} more are" if len(missing) > 1 else " is"
            return f"the shard {missing[0]}{more} missing or cut short; copy the shards again"
        return ""

    @property
    def _budget(self) -> int | None:
        """Bytes of shards that an order may need at a time; a folder is read in place, whatever its size."""
        if self._set is None or not self._set.remote:
            return None
        return self.cache_bytes if sum(s.size for s in self._set.shards) <= self.cache_bytes else self.cache_bytes // 2

    def _dataset(self, training: bool) -> ShardedTwoViewDataset:
        assert self._set is not None
        return ShardedTwoViewDataset(
            self._set,
            self.train_groups if training else self.val_groups,
            self.nr_samples,
            self.sample_rate,
            self.seed,
            self.batch_sampling_mode,
            self.multi_epoch if training else 1,
            self.augmentation if training else None,
            self.shared_crop,
        )

    def _ordered(self, dataset: Any, shuffle: bool, drop_last: bool) -> EpochSampler:
        world, rank = self._world_size, self._rank
        return ShardSampler(dataset, self.batch_size, self.seed, shuffle, drop_last, world, rank, budget=self._budget)
