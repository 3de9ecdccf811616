"""A progress bar that shows how long training waits for data."""

import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import TQDMProgressBar

from ssl_audio.callbacks.timing import Stopwatch


class DataWaitProgressBar(TQDMProgressBar):
    """Adds `data_wait` to the bar and the log: the fraction of the epoch between a step's end and the next batch.

    Args:
        refresh_rate: steps between two updates of the bar; showing the loss makes the host wait for the device.
        leave: keep the finished bar of each epoch on the screen.
    """

    def __init__(self, refresh_rate: int = 10, leave: bool = False) -> None:
        super().__init__(refresh_rate=refresh_rate, leave=leave)
        self.leave = leave
        self._clock = Stopwatch()
        self._step_ended: float | None = None

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        super().on_train_epoch_start(trainer, *_)
        self._clock.restart()
        self._step_ended = time.perf_counter()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self._step_ended is not None:
            self._clock.add(time.perf_counter() - self._step_ended)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        # Lightning uses the same condition for the step of a row in the log.
        if trainer.global_step % trainer.log_every_n_steps == 0:  # type: ignore[attr-defined]
            pl_module.log("data_wait", self._clock.fraction, on_step=True, on_epoch=False)
        self._step_ended = time.perf_counter()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._step_ended = None  # validation is not waiting for data

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        metrics = super().get_metrics(trainer, pl_module)
        step_loss = {"loss": metrics["loss/train_step"]} if "loss/train_step" in metrics else {}
        return {**step_loss, "data_wait": f"{self._clock.fraction:.0%}"}
