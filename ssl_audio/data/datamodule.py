"""Clips of recordings: two views of each for contrastive and siamese methods, or one with its label."""

from typing import Any, Literal

from ssl_audio.augmentations.base import ClipTransform
from ssl_audio.data.base import RecordingDataModule
from ssl_audio.data.dataset import Positives, SamplingMode
from ssl_audio.data.items import Short, clips_of_recordings
from ssl_audio.data.loading import Loading
from ssl_audio.data.sources import Source
from ssl_audio.data.sources.corpus import folders_or_corpus
from ssl_audio.data.sources.labelled import with_labels


class AudioDataModule(RecordingDataModule):
    """Two views of each recording from folders laid out as `dataset/singer/**/file`, split by singer.

    A batch: {"clip1", "clip2": (batch, nr_samples) float32, "group_name": list[str], "index": (batch,) int64}; with
    `local_views` also "local1", ...: (batch, nr_samples_local). With `labels`: {"clip": (batch, nr_samples), "target":
    (batch,) int64, or (batch, classes) float32 where a recording may have several labels, "index": (batch,)}. What is
    left out, reported and resumed: see `RecordingDataModule`.

    Args:
        dataset_dirs: data set folders; the fraction `eval_frac` of the groups of each is for validation.
        sample_rate: Hz of the clips; files of other rates are resampled.
        nr_samples: length of a clip in samples.
        batch_size: items (pairs of clips) a step, on each device.
        num_workers: processes that read and augment; "auto" takes the cores of this process but one, 16 at most (those
            of the task under SLURM, else an equal part of the machine's).
        eval_frac: fraction of each data set's groups for validation, in [0, 1); 0 trains on all and validates nothing.
        seed: decides the split, the order, the fragments and the per-clip augmentation.
        batch_sampling_mode: "sample_clips": an epoch visits each file; "sample_groups": each group, with a random file.
        multi_epoch: how many times an epoch repeats that.
        max_groups: use at most so many groups, drawn by the seed.
        group_by_artist: each first-level folder is a group; if False each file is a group of its own.
        group_name_is_folder: batches carry the folder's name; if False "unknown".
        augmentation: per clip on the CPU, in training only.
        shared_crop: both views are the same fragment and differ by the augmentation alone.
        short: files shorter than `nr_samples` are left out and reported ("exclude"), or repeated until they fill the
            clip ("repeat"). They are never padded: a model would learn the silence in place of audio.
        max_failures: fraction of drawn clips that may fail in training before it stops (counted from 100 clips on).
        prefetch_factor: batches that each worker prepares ahead.
        pin_memory: page-locked batches; None decides: on where there is a CUDA device.
        corpus: a named corpus in the one folder of `dataset_dirs`, as {name: fma, subset: small}: train on its official
            training tracks alone, validate on its validation tracks (where it has none, on `eval_frac` of the others,
            and not at all if that is 0). Groups are its artists or speakers. None: all files of the folders.
        store: where `ssl-audio cache --store` has put the copies; None: in the data sets' folders.
        normalize: scale each clip to a peak of 1 before the augmentation. If False, clips keep the level of their
            recording. None: two views are scaled, labelled clips are not.
        batch_size_val: items of a validation step, on each device; None: as `batch_size`.
        labels: clips with what is to be predicted of them, for `methods.Supervised`: the labels of the corpus; of the
            one folder of `dataset_dirs`, laid out as `class/**/file`; of another source, whose groups are the classes
            if it has no labels (shards). Training and validation follow the corpus's split.
        views: clips of each recording, drawn from the whole of it: 2; `methods.DINO` takes any number.
        local_views: short clips of each recording, for DINO.
        nr_samples_local: length of a short clip in samples; None: half of `nr_samples`.
        positives: the second view is of the "same_recording"; or of another recording of the "same_group" (singer),
            where it has one. A batch then has "group" and "index2", the numbers of the group and of the second
            recording, and NTXent, Contrastive, SupCon and MoCo take no clip of the same group as a negative.
        source: any other place (see `ssl_audio.data.sources`), instead of `dataset_dirs`, `corpus` and what is about
            these. Shards: {class_path: ssl_audio.data.sources.Shards, init_args: {shards: data/shards}}.
    """

    def __init__(
        self,
        dataset_dirs: list[str] | str | None = None,
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
        short: Short = "exclude",
        max_failures: float = 0.05,
        prefetch_factor: int = 2,
        pin_memory: bool | None = None,
        corpus: dict[str, Any] | None = None,
        store: str | None = None,
        source: Source | None = None,
        normalize: bool | None = None,
        batch_size_val: int | None = None,
        labels: bool = False,
        views: int = 2,
        local_views: int = 0,
        nr_samples_local: int | None = None,
        positives: Positives = "same_recording",
    ) -> None:
        if source is None:
            source = folders_or_corpus(
                dataset_dirs, corpus, labels, group_by_artist, group_name_is_folder, max_groups, seed, store
            )
        items = clips_of_recordings(
            labels,
            normalize,
            {
                "shared_crop": shared_crop,
                "views": views,
                "local_views": local_views,
                "nr_samples_local": nr_samples_local,
                "positives": positives,
            },
            nr_samples=nr_samples,
            sample_rate=sample_rate,
            seed=seed,
            batch_sampling_mode=batch_sampling_mode,
            multi_epoch=multi_epoch,
            augmentation=augmentation,
            short=short,
        )
        loading = Loading(batch_size, num_workers, prefetch_factor, pin_memory, seed, batch_size_val)
        super().__init__(with_labels(source) if labels else source, items, loading, eval_frac, max_failures)
