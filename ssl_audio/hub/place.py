"""A path that may hold a model. Its checkpoint is read once, however many readers look at it."""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_audio.errors import InputError
from ssl_audio.utils.checkpoints import checkpoints
from ssl_audio.weights import UnsafeFileError, read_weights, read_without_code

logger = logging.getLogger("ssl_audio.hub")


@dataclass(frozen=True)
class Options:
    """Options of `load_model` for the readers.

    Attributes:
        projection: whether to include the projection head.
        trusted: whether the description of the model may name classes outside of `ssl_audio`.
        calibration: whether to load the calibration in the folder, too.
    """

    projection: bool = False
    trusted: bool = False
    calibration: bool = True


class Place:
    """A file or a folder that a reader may recognise.

    Args:
        path: the file or folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, *names: str) -> bool:
        """Whether the place is a folder with a file of one of these names."""
        return any((self.path / name).is_file() for name in names)

    @cached_property
    def checkpoint(self) -> Path | None:
        """The file itself, or the checkpoint of a run folder (the best, else the last); None if there is none."""
        if self.path.is_file():
            return self.path
        return next(iter(checkpoints(self.path)), None)

    @cached_property
    def content(self) -> "Content":
        """The content of the checkpoint.

        Raises:
            InputError: the checkpoint is damaged or not a file of torch.
        """
        assert self.checkpoint is not None, "a reader must check `checkpoint` before it uses `content`"
        try:
            return Content(read_weights(self.checkpoint))
        except UnsafeFileError as refusal:
            try:
                return Content(read_without_code(self.checkpoint), refusal)
            except InputError:
                raise refusal from None


@dataclass(frozen=True)
class Content:
    """The content of a checkpoint.

    Attributes:
        values: {name: tensor or plain data}.
        refusal: the error if the file contains objects of other classes. `values` then has placeholders for them. A
            reader that does not need these objects ignores the error; every other reader raises it.
    """

    values: Mapping[str, Any]
    refusal: UnsafeFileError | None = None

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The state dict: the value of `state_dict`, or all values without this key."""
        weights = self.values.get("state_dict", self.values)
        return weights if isinstance(weights, Mapping) else {}


def newest_run(folder: Path) -> Path | None:
    """The newest run of a name, `runs/byol/2` of `runs/byol`; None if the folder holds no runs with checkpoints.

    It is said which run is taken.
    """
    numbers = [int(entry.name) for entry in folder.iterdir() if entry.name.isdigit() and checkpoints(entry)]
    if not numbers:
        return None
    newest = folder / str(max(numbers))
    logger.warning(f"{folder} holds {len(numbers)} run{'s'[: len(numbers) != 1]}; the newest is taken, {newest}")
    return newest


def find_checkpoint(path: str | os.PathLike) -> Path:
    """The checkpoint of a path.

    Args:
        path: a checkpoint, or a run folder, of which the best checkpoint is taken, else the last; or a folder of
            runs, of which the newest is taken.

    Raises:
        InputError: there is no checkpoint.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such checkpoint or run folder")
    found = checkpoints(path) or checkpoints(newest_run(path) or path)
    if not found:
        raise InputError(f"{path} holds no checkpoints/*.ckpt; wait until the run has saved one")
    return found[0]
