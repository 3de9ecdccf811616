"""Folders of recordings, with the decoded copies that `ssl-audio cache` makes of them."""

from collections.abc import Sequence

from pytorch_lightning.utilities import rank_zero_info, rank_zero_warn

from ssl_audio.data.index import AudioIndex
from ssl_audio.data.sources.base import Source
from ssl_audio.data.store import UnwritableStoreError, attach, build
from ssl_audio.errors import InputError


class Folders(Source):
    """Data sets laid out as `dataset/singer/**/file`.

    Args:
        dataset_dirs: folders, each a data set.
        group_by_artist, group_name_is_folder, max_groups, seed: see `AudioIndex.scan`.
        store: where `ssl-audio cache --store` has put the copies; None: in the data sets' folders.
        copy_at: `prepare` makes and checks the copies at this rate, Hz; None makes none.

    Raises:
        InputError: no folder is named, or `max_groups` is below 1.
    """

    def __init__(
        self,
        dataset_dirs: Sequence[str] | str | None,
        group_by_artist: bool = True,
        group_name_is_folder: bool = True,
        max_groups: int | None = None,
        seed: int = 0,
        store: str | None = None,
        copy_at: int | None = None,
    ) -> None:
        if not dataset_dirs:
            raise InputError("data.dataset_dirs is empty; name at least one folder laid out as dataset/singer/file")
        check_max_groups(max_groups)
        self.dataset_dirs = [dataset_dirs] if isinstance(dataset_dirs, str) else list(dataset_dirs)
        self.group_by_artist = group_by_artist
        self.group_name_is_folder = group_name_is_folder
        self.max_groups = max_groups
        self.seed = seed
        self.store = store
        self.copy_at = copy_at

    def __str__(self) -> str:
        return ", ".join(self.dataset_dirs)

    def scan(self, progress: bool = True) -> AudioIndex:
        """See `AudioIndex.scan`."""
        return AudioIndex.scan(
            self.dataset_dirs,
            group_by_artist=self.group_by_artist,
            group_name_is_folder=self.group_name_is_folder,
            max_groups=self.max_groups,
            seed=self.seed,
            progress=progress,
        )

    def prepare(self) -> None:
        """Scan once a machine, and bring the copies up to date; where they cannot be written, warn."""
        self.scan()
        for folder in self.dataset_dirs if self.copy_at is not None else ():
            make_copies(folder, self.copy_at or 0, self.store)

    def find_copies(self, index: AudioIndex, sample_rate: int) -> tuple[AudioIndex, int]:
        """See `current_copies`."""
        return current_copies(index, self.dataset_dirs, sample_rate, self.store)

    def more_groups(self) -> str:
        return ", or data.group_by_artist to false" if self.group_by_artist else ""


def check_max_groups(max_groups: int | None) -> None:
    """Raise InputError for a number of groups that leaves none."""
    if max_groups is not None and max_groups < 1:
        raise InputError(f"data.max_groups is {max_groups}; it must be at least 1, or null for all groups")


def make_copies(folder: str, sample_rate: int, store: str | None) -> None:
    """Make missing and damaged copies of a data set anew; a place that cannot be written is a warning."""
    try:
        copies, made, _ = build(folder, sample_rate, check=True, store=store)
        rank_zero_info(f"{folder}: {copies} recordings cached, {made} of them (again) now")
    except UnwritableStoreError as error:
        rank_zero_warn(f"{error}; without copies, recordings are decoded each time")
    except OSError as error:
        rank_zero_warn(f"{folder}: its cache cannot be written ({error.strerror}); recordings are decoded each time")


def current_copies(
    index: AudioIndex, dataset_dirs: Sequence[str], sample_rate: int, store: str | None
) -> tuple[AudioIndex, int]:
    """The index with its current copies, and how many; warns where a stored data set has recordings without one."""
    index, found, missing = attach(index, sample_rate, store)
    if missing:
        place = "" if store is None else f" --store {store}"
        rank_zero_warn(
            f"{missing} recordings have no current copy in the cache and are decoded each time; to make them: "
            f"ssl-audio cache {' '.join(dataset_dirs)} --sample_rate {sample_rate}{place}"
        )
    return index, found
