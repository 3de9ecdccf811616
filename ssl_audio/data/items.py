"""What an item of an epoch is. A data module joins it with a source, a split and a loader."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch.utils.data import Dataset

from ssl_audio.augmentations.base import ClipTransform
from ssl_audio.data.batch_spec import BatchSpec
from ssl_audio.data.dataset import Crop, LabelledDataset, SamplingMode, TwoViewDataset, collate
from ssl_audio.data.index import Group
from ssl_audio.data.loading import check_at_least
from ssl_audio.data.sampler import EpochSampler
from ssl_audio.data.sources.base import Source
from ssl_audio.errors import InputError

Short = Literal["exclude", "repeat"]


@dataclass(frozen=True, kw_only=True)
class Items(ABC):
    """Makes the data set of a split, its order and its batches. Frozen, and without state of a run.

    Attributes:
        nr_samples: of a clip.
        sample_rate: of the clips, Hz.
        seed: of order, fragments and augmentation.
        normalize: clips are scaled to a peak of 1; if False they keep the level of their recording.
        keys: of a batch.

    Raises:
        InputError: a value out of its range; the message names the key.
    """

    nr_samples: int
    sample_rate: int
    seed: int = 0
    normalize: bool = True

    keys: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        check_at_least(1, sample_rate=self.sample_rate, nr_samples=self.nr_samples)

    @abstractmethod
    def dataset(self, groups: Sequence[Group], source: Source, training: bool) -> Dataset:
        """The items of a split; augmented, and as many as `multi_epoch` says, in training only."""

    def sampler(self, dataset: Any, source: Source, training: bool, **arguments: Any) -> EpochSampler:
        """The order of an epoch; other arguments as of `EpochSampler`."""
        return source.sampler(dataset, seed=self.seed, shuffle=training, **arguments)

    def collate(self, items: Any) -> dict[str, Any]:
        """A batch of items."""
        return collate(items)

    @abstractmethod
    def check(self, dataset: Any, sampler: EpochSampler, training: bool) -> None:
        """Raise InputError for a data set that is too small, with the keys to change."""

    def spec(self, batch_size: int) -> BatchSpec:
        """What the batches hold."""
        level = "peak" if self.normalize else "none"
        return BatchSpec(self.keys, batch_size, self.nr_samples, self.sample_rate, level=level)

    @property
    def excludes_short(self) -> bool:
        """Whether recordings shorter than a clip are left out."""
        return True

    @property
    def short_remedy(self) -> str:
        """What to do where all recordings are shorter than a clip."""
        return "make data.nr_samples smaller"

    @property
    def needs_all(self) -> str:
        """What in the config reads any recording at any time; "" if the order of the sampler says what is read."""
        return ""

    def plain(self, groups: Sequence[Group], source: Source) -> TwoViewDataset:
        """A clip of each recording as it is, not augmented: "clip1" of each item."""
        return TwoViewDataset(
            groups,
            self.nr_samples,
            self.sample_rate,
            self.seed,
            shared_crop=True,
            open=source.open,
            normalize=self.normalize,
        )


@dataclass(frozen=True, kw_only=True)
class RecordingItems(Items):
    """Items that visit recordings, or groups of them, and cut clips out of each.

    Attributes:
        batch_sampling_mode, multi_epoch: see `RecordingDataset`.
        augmentation: per clip on the CPU, in training only.
        short: leave recordings that are shorter than a clip out ("exclude") or repeat them ("repeat").
    """

    batch_sampling_mode: SamplingMode = "sample_clips"
    multi_epoch: int = 1
    augmentation: ClipTransform | None = None
    short: Short = "exclude"

    least_validation: ClassVar[int] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least(1, multi_epoch=self.multi_epoch)

    @property
    def excludes_short(self) -> bool:
        return self.short == "exclude"

    @property
    def short_remedy(self) -> str:
        return "make data.nr_samples smaller, or set data.short to repeat"

    @property
    def needs_all(self) -> str:
        return "data.batch_sampling_mode sample_groups" if self.batch_sampling_mode == "sample_groups" else ""

    def check(self, dataset: Any, sampler: EpochSampler, training: bool) -> None:
        """Fewer items than a batch on every process; a validation set with too few to compare."""
        count, processes = len(dataset), sampler.num_replicas
        if training and count < sampler.step_items:
            what = "singers" if self.batch_sampling_mode == "sample_groups" else "files"
            times = f" x multi_epoch {self.multi_epoch}" if self.multi_epoch > 1 else ""
            raise InputError(
                f"the training set has {count // self.multi_epoch} {what}{times}, fewer than a batch of "
                f"{sampler.step_items}; set data.batch_size to at most {count // processes}, or data.multi_epoch to at "
                f"least {-(-sampler.step_items * self.multi_epoch // count)}, or add recordings"
            )
        if not training and count < self.least_validation * processes:
            raise InputError(
                f"the validation set has {count} item, too few to compare; "
                "make data.eval_frac larger, set it to 0, or add singers"
            )


@dataclass(frozen=True, kw_only=True)
class TwoViews(RecordingItems):
    """Two views of each recording, see `TwoViewDataset`.

    Attributes:
        shared_crop: both views are the same fragment and differ by the augmentation alone.
    """

    shared_crop: bool = False

    keys: ClassVar[tuple[str, ...]] = ("clip1", "clip2", "group_name", "index")
    least_validation: ClassVar[int] = 2  # the views of one clip have no other clip to be compared with

    def dataset(self, groups: Sequence[Group], source: Source, training: bool) -> TwoViewDataset:
        return TwoViewDataset(
            groups,
            self.nr_samples,
            self.sample_rate,
            self.seed,
            self.batch_sampling_mode,
            self.multi_epoch if training else 1,
            self.augmentation if training else None,
            self.shared_crop,
            source.open,
            self.normalize,
        )


@dataclass(frozen=True, kw_only=True)
class LabelledClips(RecordingItems):
    """A clip of each recording with its target; the source must have labels."""

    normalize: bool = False

    keys: ClassVar[tuple[str, ...]] = ("clip", "target", "index")

    def dataset(self, groups: Sequence[Group], source: Source, training: bool) -> LabelledDataset:
        augmentation = self.augmentation if training else None
        return LabelledDataset(
            source.labels().targets,
            groups,
            Crop(self.nr_samples, self.sample_rate, augmentation, self.normalize),
            self.seed,
            self.batch_sampling_mode,
            self.multi_epoch if training else 1,
            source.open,
        )


def clips_of_recordings(
    labels: bool, normalize: bool | None, shared_crop: bool, **arguments: Any
) -> TwoViews | LabelledClips:
    """Two views of each recording, or with `labels` one clip with its target.

    Args:
        labels: see `AudioDataModule`.
        normalize: None: as is usual for these items.
        shared_crop: see `TwoViews`.
        **arguments: of `RecordingItems`.
    """
    if normalize is not None:
        arguments["normalize"] = normalize
    return LabelledClips(**arguments) if labels else TwoViews(shared_crop=shared_crop, **arguments)
