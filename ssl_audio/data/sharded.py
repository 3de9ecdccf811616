"""Training from shards: the clips of `AudioDataModule`, from another source."""

from typing import Literal

from ssl_audio.augmentations.base import ClipTransform
from ssl_audio.data.base import RecordingDataModule
from ssl_audio.data.dataset import SamplingMode
from ssl_audio.data.items import Short, clips_of_recordings
from ssl_audio.data.loading import Loading
from ssl_audio.data.sources import Shards
from ssl_audio.data.sources.labelled import with_labels


class ShardDataModule(RecordingDataModule):
    """Clips of recordings from shards (`ssl-audio shard`), split by singer; batches as of `AudioDataModule`.

    Every process looks for its shards in `setup`; if one lacks any, all stop.

    Args:
        shards, cache, cache_bytes: see `ssl_audio.data.sources.Shards`.
        sample_rate: must be that of the shards.
        nr_samples, batch_size, num_workers, eval_frac, seed, batch_sampling_mode, multi_epoch, augmentation,
        shared_crop, short, max_failures, prefetch_factor, pin_memory, normalize, batch_size_val: see `AudioDataModule`.
        labels: one clip of each recording, with its group as the class; see `AudioDataModule`.
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
        short: Short = "exclude",
        max_failures: float = 0.05,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
        normalize: bool | None = None,
        batch_size_val: int | None = None,
        labels: bool = False,
    ) -> None:
        items = clips_of_recordings(
            labels,
            normalize,
            shared_crop,
            nr_samples=nr_samples,
            sample_rate=sample_rate,
            seed=seed,
            batch_sampling_mode=batch_sampling_mode,
            multi_epoch=multi_epoch,
            augmentation=augmentation,
            short=short,
        )
        loading = Loading(batch_size, num_workers, prefetch_factor, pin_memory, seed, batch_size_val)
        source = Shards(shards, cache, cache_bytes)
        super().__init__(with_labels(source) if labels else source, items, loading, eval_frac, max_failures)
