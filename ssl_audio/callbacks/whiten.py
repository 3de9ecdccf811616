"""Whitening of the finished embedding, fitted on the training's own recordings."""

from collections.abc import Iterator
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor
from tqdm import tqdm

from ssl_audio.callbacks.timing import Stopwatch
from ssl_audio.data.base import RecordingDataModule, recording_data
from ssl_audio.encoders.whitened import Whitening
from ssl_audio.errors import InputError
from ssl_audio.utils.modes import evaluating


class Whiten(Callback):
    """Fits a `Whitening` on a clip of each training recording and puts it behind the encoder of what is saved.

    Each data set has the same weight. The training itself does not change. The whitening is fitted every few epochs and
    at the end, so that checkpoints hold it; before the first time it is the identity. The first rank fits it for all.
    `whitening/time_share` is the fraction of the run that this took.

    Args:
        shrinkage: see `ssl_audio.encoders.Whitening`.
        every_n_epochs: how often, beside the end.
        max_files: of each data set, evenly taken.
        batch_size: of clips in a forward pass.

    Raises:
        InputError: an argument below 1; before the first step, a data module that is not one of recordings.
    """

    def __init__(
        self, shrinkage: float = 4.0, every_n_epochs: int = 5, max_files: int = 2000, batch_size: int = 64
    ) -> None:
        if min(every_n_epochs, max_files, batch_size) < 1:
            raise InputError("Whiten's every_n_epochs, max_files and batch_size must be at least 1")
        self.shrinkage, self.every_n_epochs = shrinkage, every_n_epochs
        self.max_files, self.batch_size = max_files, batch_size
        self._clock = Stopwatch()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the whitening before a checkpoint is read, so that the one in the checkpoint has a place."""
        method: Any = pl_module
        if method.whitening is None:
            method.whitening = Whitening(method.encoder.dim, self.shrinkage).to(method.device)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock.restart()
        if recording_data(trainer) is None:
            raise InputError(
                "callbacks.whiten needs a data module of recordings, such as data.class_path "
                "ssl_audio.data.AudioDataModule; set callbacks.whiten to null"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if (trainer.current_epoch + 1) % self.every_n_epochs and not trainer.fit_loop.done:
            return
        with self._clock.measure():
            whitening: Any = pl_module.whitening
            data = recording_data(trainer)
            if trainer.is_global_zero and data is not None:
                whitening.fit(self.embeddings(data, pl_module))
            state = trainer.strategy.broadcast({k: v.cpu() for k, v in whitening.state_dict().items()}, src=0)
            whitening.load_state_dict(state)
        pl_module.log("whitening/time_share", self._clock.fraction, rank_zero_only=False)

    def embeddings(self, data: RecordingDataModule, pl_module: Any) -> list[Tensor]:
        """[(files, dim)] of each data set, as the encoder gives them, on the CPU."""
        with evaluating(pl_module), isolate_rng(), torch.no_grad():
            return [
                torch.cat([pl_module(clips.to(pl_module.device)).float().cpu() for clips in self._batches(dataset)])
                for dataset in data.plain_training_sets(self.max_files)
            ]

    def _batches(self, dataset: Any) -> Iterator[Tensor]:
        steps = range(0, len(dataset), self.batch_size)
        for start in tqdm(steps, "whitening", leave=False, disable=len(steps) < 10):
            yield torch.stack([dataset[i]["clip1"] for i in range(start, min(start + self.batch_size, len(dataset)))])
