"""Labelled clips for supervised training."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from ssl_audio.data.datamodule import AudioDataModule
from ssl_audio.data.dataset import LabelledDataset
from ssl_audio.data.items import LabelledClips
from ssl_audio.data.sources.labelled import ListedFiles

__all__ = ["LabelledClips", "LabelledDataModule", "LabelledDataset"]


class LabelledDataModule(AudioDataModule):
    """`AudioDataModule` with `labels`: clips with what is to be predicted of them.

    Args:
        dataset_dirs: the one folder of the corpus, or of `class/**/file`.
        labels: true; a config that is written for any data module gives it.
        **options: see `AudioDataModule`.
    """

    def __init__(
        self, dataset_dirs: list[str] | str | None = None, labels: Literal[True] = True, **options: Any
    ) -> None:
        super().__init__(dataset_dirs, labels=labels, **options)

    @classmethod
    def of(
        cls,
        paths: Sequence[Any],
        targets: np.ndarray,
        classes: Sequence[str],
        train: Sequence[int] | np.ndarray,
        validation: Sequence[int] | np.ndarray,
        **options: Any,
    ) -> "LabelledDataModule":
        """A data module of listed files; shorter ones are repeated.

        Args:
            paths, targets, classes, train, validation: see `ListedFiles`.
            options: of the class.
        """
        source = ListedFiles(paths, targets, classes, train, validation)
        if not len(validation):
            options["eval_frac"] = 0.0
        return cls(source=source, short="repeat", **options)
