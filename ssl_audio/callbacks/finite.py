"""Stops a run at the first loss that is not finite, and names the clips of that batch; saves no such weights."""

from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ssl_audio.data.base import recording_data
from ssl_audio.errors import InputError
from ssl_audio.weights import first_not_finite

_MAX_NAMED = 12  # clips of a batch that the message names
_REMEDY = "Lower model.optimizer's lr, or set trainer.precision to 32-true"


class FiniteLoss(Callback):
    """On a CPU, raises before the weights are changed. On another device, where a check makes the host wait, it checks
    every few steps and before each checkpoint, so that none is written after a loss that is not finite.

    A finite loss can have gradients that are not. So the weights are checked before each checkpoint too, and the last
    finite checkpoint stays.

    Args:
        every_n_steps: how often to check on devices other than the CPU.

    Raises:
        InputError: the loss or a weight is not finite.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._index: Tensor | None = None
        self._bad_step: Tensor | None = None
        self._bad_index: Tensor | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        index = batch.get("index")
        self._index = index if isinstance(index, Tensor) else None

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        finite = loss.detach().isfinite()
        step = trainer.global_step
        if loss.device.type == "cpu":
            if not finite:
                raise InputError(_message(step, self._index, trainer))
            return
        if self._bad_step is None:
            self._bad_step = torch.full((), -1, device=loss.device)
        is_first = ~finite & (self._bad_step < 0)
        self._bad_step = torch.where(is_first, step, self._bad_step)
        if self._index is not None:
            index = self._index.to(loss.device)
            if self._bad_index is None or self._bad_index.shape != index.shape:
                self._bad_index = index.clone()
            self._bad_index = torch.where(is_first, index, self._bad_index)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._check(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check(trainer)
        wrong = first_not_finite(pl_module)
        if not trainer.strategy.reduce_boolean_decision(wrong is None):  # all ranks stop, or the others would wait
            raise InputError(
                f"the weights are not finite at step {trainer.global_step}{f' ({wrong})' if wrong else ''}; training "
                f"stopped and earlier checkpoints are kept. {_REMEDY}"
            )

    def _check(self, trainer: Trainer) -> None:
        if self._bad_step is not None and self._bad_step >= 0:
            raise InputError(_message(int(self._bad_step), self._bad_index, trainer))


def _message(step: int, index: Tensor | None, trainer: Trainer) -> str:
    places = [] if index is None else index.flatten().tolist()
    data = recording_data(trainer)
    entries = [] if data is None else data.training_entries
    names = [entries[place].path if entries else str(place) for place in places[:_MAX_NAMED]]
    more = f" and {len(places) - _MAX_NAMED} more" if len(places) > _MAX_NAMED else ""
    clips = f" on a batch of clips from {', '.join(names)}{more}" if names else ""
    return (
        f"the loss is not finite at step {step}{clips}; training stopped and earlier checkpoints are kept. "
        f"{_REMEDY}, or look at these clips"
    )
