"""Schedules: the learning rate with warm-up and cosine, and functions of a step for other values.

In `linear`, and in the warm-up of `warmup_cosine`, the first step has the first value and the last step has the last
value, as in the code of DINO.
"""

import math
import time
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from ssl_audio.errors import InputError


class WarmupCosine(LRScheduler):
    """Linear warm-up from 0, then half a cosine down to `final` times the peak (Loshchilov and Hutter, 2017).

    https://arxiv.org/abs/1608.03983. The learning rate changes before each optimiser step. With the unit "minutes",
    `total` or trainer.max_time is required, and a repeated run does not give identical weights.

    Args:
        optimizer: optimiser; its learning rate is the peak.
        warmup: length of the warm-up, in `unit`.
        total: end of the cosine, in `unit`. None: the end of the training.
        unit: "epochs" (also fractions), "steps", or "minutes" of training.
        final: learning rate at the end, as a fraction of the peak; in [0, 1].

    Raises:
        InputError: an argument is out of its range.

    Example:
        >>> import torch
        >>> optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        >>> schedule = WarmupCosine(optimizer, warmup=10, total=110, unit="steps")
        >>> [round(schedule.factor(step), 3) for step in (5, 10, 60, 110)]
        [0.5, 1.0, 0.5, 0.0]
    """

    interval = "step"

    def __init__(
        self,
        optimizer: Optimizer,
        warmup: float = 10,
        total: float | None = None,
        unit: Literal["epochs", "steps", "minutes"] = "epochs",
        final: float = 0.0,
    ) -> None:
        if warmup < 0 or (total is not None and total <= warmup):
            raise InputError(f"WarmupCosine needs 0 <= warmup < total, got warmup {warmup} and total {total} {unit}")
        if not 0 <= final <= 1:
            raise InputError(f"WarmupCosine.final must be from 0 to 1, got {final}")
        self.warmup = warmup
        self.total = total
        self.unit = unit
        self.final = final
        self.steps_per_unit = 1.0
        self.elapsed = 0.0  # seconds of training; saved with the schedule
        self._clock: float | None = None
        super().__init__(optimizer)

    def bind(self, trainer: Any) -> None:
        """Take the length of an epoch and of the training from the trainer. Called once, before the first step.

        Raises:
            InputError: the training has no end, or is not longer than the warm-up.
        """
        steps = trainer.estimated_stepping_batches
        if self.unit == "epochs":
            batches = trainer.num_training_batches if math.isfinite(trainer.num_training_batches) else steps
            # the last batches of an epoch are a step, however few
            self.steps_per_unit = max(1.0, math.ceil(batches / trainer.accumulate_grad_batches))
        if self.total is None:
            self.total = self._training_length(trainer, steps)
            if self.total <= self.warmup:
                raise InputError(
                    f"a warm-up of {self.warmup} {self.unit} takes the whole training ({self.total:g} {self.unit}); "
                    "set model.lr_scheduler.init_args.warmup lower, or train longer"
                )
        self._set()

    def _training_length(self, trainer: Any, steps: float) -> float:
        if self.unit == "minutes":
            from pytorch_lightning.callbacks import Timer

            for timer in trainer.callbacks:
                if isinstance(timer, Timer) and (left := timer.time_remaining()) is not None:
                    return (timer.time_elapsed() + left) / 60
            raise InputError("WarmupCosine counts minutes; give its total, or trainer.max_time")
        if not math.isfinite(steps):
            raise InputError(
                "the training has no end for WarmupCosine; give its total, trainer.max_epochs or trainer.max_steps"
            )
        return steps / self.steps_per_unit

    def progress(self) -> float:
        """The progress of the training, in `unit`."""
        if self.unit == "minutes":
            now = time.monotonic()
            self.elapsed += now - (self._clock if self._clock is not None else now)
            self._clock = now
            return self.elapsed / 60
        return self.last_epoch / self.steps_per_unit

    def factor(self, progress: float) -> float:
        """The learning rate at `progress`, as a fraction of the peak."""
        if progress < self.warmup:
            # Above 0 even at the start: a first step with learning rate 0 would be wasted.
            return max(progress, min(1.0, self.warmup) * 1e-3) / self.warmup
        if self.total is None:
            return 1.0
        fraction = min(1.0, (progress - self.warmup) / (self.total - self.warmup))
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * fraction)) / 2

    def get_lr(self) -> list[float]:  # type: ignore[override]
        factor = self.factor(self.progress())
        return [float(peak) * factor for peak in self.base_lrs]

    def _set(self) -> None:
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        # Only the progress is saved. The trainer that resumes the run says how long the training is.
        keys = ("base_lrs", "last_epoch", "_step_count", "_last_lr", "elapsed")
        return {key: value for key, value in super().state_dict().items() if key in keys}


def linear(step: float, steps: int, start: float, final: float) -> float:
    """Linear from `start` at step 0 to `final` at step `steps - 1`, and `final` afterwards.

    Args:
        step: step, from 0.
        steps: number of steps from `start` to `final`, at least 1. A single step has the value `final`.
        start, final: values.

    Example:
        >>> [round(linear(epoch, 30, start=0.04, final=0.07), 3) for epoch in (0, 29, 99)]  # DINO's teacher temperature
        [0.04, 0.07, 0.07]
    """
    return final if step >= steps - 1 else start + (final - start) * step / (steps - 1)


def warmup_cosine(
    step: float, steps: int, peak: float, warmup: int = 0, start: float = 0.0, final: float = 0.0
) -> float:
    """Linear from `start` to `peak` in `warmup` steps, then half a cosine to `final` over the remaining steps.

    Args:
        step: step, from 0. After the training, the value is `final`.
        steps: number of steps of the training.
        peak: value at the last step of the warm-up, and at the first step after it.
        warmup: number of steps of the warm-up, below `steps`.
        start: value at step 0, if there is a warm-up.
        final: value one step after the last one.

    Raises:
        InputError: the warm-up is not shorter than the training.

    Example:
        >>> steps = 1000  # DINO's learning rate, momentum of the teacher and weight decay, at the first step:
        >>> warmup_cosine(0, steps, peak=0.1, warmup=100, final=2.5e-5)
        0.0
        >>> [round(warmup_cosine(0, steps, peak, final=final), 3) for peak, final in ((0.996, 1.0), (0.04, 0.4))]
        [0.996, 0.04]
    """
    if not 0 <= warmup < steps:
        raise InputError(f"a warm-up of {warmup} steps must be shorter than the training, which has {steps} steps")
    if step < warmup:
        return linear(step, warmup, start, peak)
    fraction = min(1.0, (step - warmup) / (steps - warmup))
    return final + (peak - final) * (1 + math.cos(math.pi * fraction)) / 2


def margin_ramp(at: float, begin: float, end: float, start: float = 0.0, final: float = 0.2) -> float:
    """The schedule of wespeaker for the margin of a `MarginHead`: from `start` at `begin` to `final` at `end`.

    Between them it is `start + (final - start) (1 - 0.001^u)`, where u rises linearly from 0 to 1. Most of it
    changes early.

    Args:
        at: step or epoch.
        begin, end: in the same unit.
        start, final: margins.

    Raises:
        InputError: `begin` is not before `end`.

    Example:
        >>> [round(margin_ramp(epoch, begin=20, end=40), 3) for epoch in (0, 20, 25, 41)]
        [0.0, 0.0, 0.164, 0.2]
    """
    if begin >= end:
        raise InputError(f"the margin's ramp must begin before it ends, got begin {begin} and end {end}")
    if at > end:
        return final
    fraction = max(0.0, (at - begin) / (end - begin))
    return start + (final - start) * (1 - 1e-3**fraction)
