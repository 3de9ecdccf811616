"""What a data module asks of the place that its recordings come from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

from torch.utils.data import Dataset

from ssl_audio.data.index import AudioEntry, AudioIndex, Group
from ssl_audio.data.int16 import AudioReader
from ssl_audio.data.sampler import EpochSampler
from ssl_audio.data.store import open_recording


class Labels(NamedTuple):
    """What is to be predicted of each recording.

    Attributes:
        targets: by the recording's path: the class's number (int64), or (classes,) float32 of 0 and 1.
        classes: names, in the order of the targets.
        multi_label: whether a recording may have several.
    """

    targets: Mapping[str, Any]
    classes: tuple[str, ...]
    multi_label: bool


class Source(ABC):
    """A place that recordings come from. `scan` says what there is; the other answers suit files in folders.

    `str(source)` names the place in messages.

    Attributes:
        has_labels: whether the place says what is to be predicted of each recording.
    """

    has_labels: ClassVar[bool] = False

    @abstractmethod
    def __str__(self) -> str: ...

    @abstractmethod
    def scan(self, progress: bool = True) -> AudioIndex:
        """The usable recordings, in groups.

        Raises:
            InputError: the place is missing or has nothing usable.
        """

    def prepare(self) -> None:  # noqa: B027  # most sources share nothing
        """On one process of a machine, before the others scan: make what they share, such as a cached index.

        Raises:
            InputError: as `scan`.
        """

    def problem(self, sample_rate: int, needs_all: str) -> str:
        """What this process cannot do with the place, in one line; "" if nothing.

        Args:
            sample_rate: that clips must have, Hz.
            needs_all: what in the config reads any recording at any time; "" if recordings are read in the order of the
                sampler alone.
        """
        return ""

    def find_copies(self, index: AudioIndex, sample_rate: int) -> tuple[AudioIndex, int]:
        """The index with the locations of current decoded copies, and how many there are."""
        return index, 0

    def split(self, index: AudioIndex, eval_frac: float, seed: int) -> tuple[list[Group], list[Group]]:
        """(training, validation) groups: the place's own split if it has one, else by seed and name."""
        return index.split(eval_frac, seed)

    def open(self, entry: AudioEntry) -> AudioReader:
        """One recording, to read parts of it. Raises AudioError."""
        return open_recording(entry)

    def sampler(self, dataset: Dataset, **arguments: Any) -> EpochSampler:
        """The order of an epoch; arguments of `EpochSampler`."""
        return EpochSampler(dataset, **arguments)

    def categories(self) -> Mapping[str, str] | None:
        """The category of each recording by path; None: its group."""
        return None

    def labels(self) -> Labels:
        """The labels of what was scanned, where `has_labels`."""
        raise NotImplementedError(f"{type(self).__name__} has no labels")

    def more_groups(self) -> str:
        """Another way to more groups than adding recordings, for a message; "" if there is none."""
        return ""
