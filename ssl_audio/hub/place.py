"""A path that may hold a model, and the checkpoint in it, which is read once whichever readers look at it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ssl_audio.errors import InputError
from ssl_audio.weights import UnsafeFileError, read_weights, read_without_code


@dataclass(frozen=True)
class Options:
    """What `load_model` was asked for besides a place.

    Attributes:
        projection: with the projection head on top.
        trusted: a config may name classes outside of `ssl_audio`.
        calibration: with the calibration beside it, where there is one.
    """

    projection: bool = False
    trusted: bool = False
    calibration: bool = True


class Place:
    """A file or a folder that a reader may recognise.

    Attributes:
        path: what was given.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def has(self, *names: str) -> bool:
        """Whether it is a folder with a file of one of these names."""
        return any((self.path / name).is_file() for name in names)

    @cached_property
    def checkpoint(self) -> Path | None:
        """The file itself, or the checkpoint of a run folder: the best one, else the last."""
        if self.path.is_file():
            return self.path
        return next(iter(checkpoints(self.path)), None)

    @cached_property
    def content(self) -> "Content":
        """What is in the checkpoint.

        Raises:
            InputError: no torch file, or a damaged one.
        """
        assert self.checkpoint is not None, "recognise a place by its checkpoint before reading it"
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
        values: tensors and plain data by name.
        refusal: the file names classes, for which `values` has empty stand-ins; a reader of such files ignores this,
            any other raises it.
    """

    values: Mapping[str, Any]
    refusal: UnsafeFileError | None = None

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The state dict, under its key or bare."""
        weights = self.values.get("state_dict", self.values)
        return weights if isinstance(weights, Mapping) else {}


def find_checkpoint(path: str | os.PathLike) -> Path:
    """The checkpoint itself, or that of a run folder: the best one, else the last.

    Raises:
        InputError: there is none.
    """
    path = Path(path)
    if path.is_file():
        return path
    if not path.is_dir():
        raise InputError(f"{path}: no such checkpoint or run folder")
    found = checkpoints(path)
    if not found:
        raise InputError(f"{path} holds no checkpoints/*.ckpt; has the run saved one yet?")
    return found[0]


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run: what run.json calls best, then the last, then others, the newest first."""
    found = [*folder.glob("checkpoints/*.ckpt"), *folder.glob("*.ckpt")]
    best = None
    if (folder / "run.json").is_file():
        try:
            best = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("best_checkpoint")
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"{folder / 'run.json'}: damaged; name a checkpoint itself, or delete this file"
            ) from error
    rank = {"best": 1, "last": 2}

    def order(path: Path) -> tuple[int, float]:
        is_best = best is not None and path == folder / best
        return 0 if is_best else rank.get(path.stem.split("-")[0], 3), -path.stat().st_mtime

    return sorted(found, key=order)
