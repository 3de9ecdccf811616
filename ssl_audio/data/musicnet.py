"""MusicNet as training data: windows of its training recordings."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from ssl_audio.augmentations.base import ClipTransform
from ssl_audio.data.base import RecordingDataModule
from ssl_audio.data.batch_composition import Composition
from ssl_audio.data.corpora import musicnet
from ssl_audio.data.index import AudioIndex
from ssl_audio.data.items import Short
from ssl_audio.data.loading import Loading
from ssl_audio.data.sources import Folders, Labels
from ssl_audio.data.windows import Windows
from ssl_audio.errors import InputError


class MusicNetRecordings(Folders):
    """The recordings of `root/train_data`, each a group of its own; `root/test_data` is never touched.

    Args:
        root: folder in MusicNet's layout, see `ssl_audio.data.corpora.musicnet`. No labels are needed.
        category: column of the table that gives the categories; None: there are none.
        store, copy_at: see `Folders`.
    """

    def __init__(
        self, root: str, category: str | None = None, store: str | None = None, copy_at: int | None = None
    ) -> None:
        super().__init__(str(Path(root) / "train_data"), group_by_artist=False, store=store, copy_at=copy_at)
        self.root = root
        self.category = category
        self._categories: dict[str, str] | None = None

    def scan(self, progress: bool = True) -> AudioIndex:
        """As the base. Raises InputError: missing files, and what to put where; a recording without a category."""
        found = [item for item in musicnet.recordings(self.root, labels=False) if item.split == "train"]
        if self.category is not None:
            bare = [item.id for item in found if not item.metadata.get(self.category)]
            if bare:
                raise InputError(
                    f"{self.root}: {', '.join(bare[:5])} have no {self.category} in the table "
                    f"({' or '.join(musicnet.METADATA)}); set data.category to one of its columns"
                )
            self._categories = {str(item.path): item.metadata[self.category] for item in found}
        return super().scan(progress)

    def categories(self) -> Mapping[str, str] | None:
        return self._categories

    def labels(self) -> Labels:
        """The category of each recording as its class."""
        categories = self._categories or {}
        classes = sorted(set(categories.values()))
        targets = {path: np.int64(classes.index(name)) for path, name in categories.items()}
        return Labels(targets, tuple(classes), multi_label=False)


class MusicNetDataModule(RecordingDataModule):
    """Windows of MusicNet's training recordings, split by recording; batches as of `WindowDataModule`.

    Args:
        root: folder in MusicNet's layout, see `ssl_audio.data.corpora.musicnet`. No labels are needed.
        category: column of the table by which "samecategory" composes batches, such as ensemble or composer.
        sample_rate, nr_samples, batch_size, composition, num_workers, eval_frac, seed, max_audio_in_memory, cache,
        max_failures, prefetch_factor, pin_memory, store, augmentation, normalize, batch_size_val, short,
        shared_crop: see `WindowDataModule`.
        labels: windows with their category as the target, for `methods.Supervised`.
    """

    def __init__(
        self,
        root: str,
        category: str = "ensemble",
        sample_rate: int = 16000,
        nr_samples: int = 20480,
        batch_size: int = 8,
        composition: Composition = "uniform",
        num_workers: int | Literal["auto"] = "auto",
        eval_frac: float = 0.1,
        seed: int = 0,
        max_audio_in_memory: int = 2_000_000_000,
        cache: bool = False,
        max_failures: float = 0.05,
        prefetch_factor: int = 4,
        pin_memory: bool | None = None,
        store: str | None = None,
        augmentation: ClipTransform | None = None,
        normalize: bool = False,
        batch_size_val: int | None = None,
        labels: bool = False,
        short: Short = "exclude",
        shared_crop: Literal[True] = True,
    ) -> None:
        used = category if labels or composition == "samecategory" else None
        source = MusicNetRecordings(root, used, store, copy_at=sample_rate if cache else None)
        items = Windows(
            nr_samples=nr_samples,
            sample_rate=sample_rate,
            seed=seed,
            composition=composition,
            room=max_audio_in_memory,
            augmentation=augmentation,
            normalize=normalize,
            labels=labels,
            short=short,
        )
        loading = Loading(batch_size, num_workers, prefetch_factor, pin_memory, seed, batch_size_val)
        super().__init__(source, items, loading, eval_frac, max_failures)
