"""MusicNet as training data: windows of its training recordings."""

from pathlib import Path
from typing import Literal

from ssl_audio.data.batch_composition import Composition
from ssl_audio.data.corpora import musicnet
from ssl_audio.data.windows import WindowDataModule
from ssl_audio.errors import InputError


class MusicNetDataModule(WindowDataModule):
    """Windows of `root/train_data`, split by recording; `root/test_data` is never touched. No labels are needed.

    Args:
        root: folder in MusicNet's layout, see `ssl_audio.data.corpora.musicnet`.
        category: column of the table by which "samecategory" composes batches, such as ensemble or composer.
        others: see `WindowDataModule`.
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
    ) -> None:
        super().__init__(
            [str(Path(root) / "train_data")], sample_rate, nr_samples, batch_size, composition, num_workers, eval_frac,
            seed, max_audio_in_memory, cache, False, max_failures, prefetch_factor, pin_memory,
            store,
        )  # fmt: skip
        self.root = root
        self.category = category

    def _prepare(self) -> None:
        """Check that the files are there, then as the base. Raises InputError: what to put where."""
        musicnet.recordings(self.root, labels=False)
        super()._prepare()

    def setup(self, stage: str | None = None) -> None:
        """As the base. Raises InputError: a recording without the category, where batches go by it."""
        found = [item for item in musicnet.recordings(self.root, labels=False) if item.split == "train"]
        if self.composition == "samecategory":
            bare = [item.id for item in found if not item.metadata.get(self.category)]
            if bare:
                raise InputError(
                    f"{self.root}: {', '.join(bare[:5])} have no {self.category} in the table "
                    f"({' or '.join(musicnet.METADATA)}); set data.category to one of its columns"
                )
            self.categories = {str(item.path): item.metadata[self.category] for item in found}
        super().setup(stage)
