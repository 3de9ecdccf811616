"""Ctrl-C ends a run after the current step, with a checkpoint to continue from."""

import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer


class SaveOnInterrupt(Callback):
    """The first Ctrl-C lets the step end, writes `checkpoints/last.ckpt` and stops; a second one stops at once.

    Without this callback, a stop in the middle of a step could leave half-updated weights, or lose the epoch. Several
    processes would not stop at the same step; with them Ctrl-C does what Lightning does.
    """

    def __init__(self) -> None:
        self._asked = False
        self._previous: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self._asked = True
        self._restore()  # the next Ctrl-C is handled as before the training
        with suppress(RuntimeError):  # the signal came while the progress bar was being written
            print("\ninterrupted: finishing the step, then saving (Ctrl-C again stops at once)", flush=True)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not self._asked:
            return
        self._asked = False
        if trainer.log_dir is not None:
            checkpoint = Path(trainer.log_dir) / "checkpoints" / "last.ckpt"
            trainer.save_checkpoint(checkpoint)
            print(f"saved {checkpoint} at step {trainer.global_step}; --ckpt_path continues from it", flush=True)
        raise KeyboardInterrupt

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._restore()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._restore()

    def _restore(self) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
