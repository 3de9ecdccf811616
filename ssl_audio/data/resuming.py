"""The position of a run in its epoch, and how to continue from it. Nothing else touches Lightning's own counters."""

import warnings
from typing import Any

from pytorch_lightning import Trainer

from ssl_audio.data.sampler import Draw, EpochSampler
from ssl_audio.errors import InputError


class ResumePoint:
    """The state of a data module in a checkpoint: the epoch, the items of its order that are done, items of a step.

    A run that resumes within an epoch continues with the items not yet seen, also with another batch size or number of
    processes. Only where the order itself depends on them (batch compositions of windows) is that refused.
    """

    def __init__(self) -> None:
        self._resumed = Draw(0, 0)
        self._step_items: int | None = None  # of the run that is resumed
        self._sampler: EpochSampler | None = None
        self._counted_from = (0, 0, 0)  # an epoch, items of its order, and Lightning's count of batches at that item

    def begin(self, sampler: EpochSampler, batches: int, trainer: Trainer | None) -> None:
        """Have a sampler of training batches continue from here.

        Args:
            batches: of a whole epoch, on each process.
            trainer: restored, before its first batch; None outside of a training.

        Raises:
            InputError: see `realign_batch_counter`.
        """
        self._sampler = sampler
        sampler.resume(*self._resumed)
        if self._step_items is None or trainer is None:
            return
        realign_batch_counter(trainer.fit_loop, sampler, self._step_items, batches)
        self._step_items = None  # once
        if self._resumed.item:
            self._counted_from = (*self._resumed, _batches_done(trainer))

    def state_dict(self, trainer: Trainer | None) -> dict[str, int]:
        """The epoch, items of its order that all processes have trained on, and items of a step; {} before a start."""
        if trainer is None or self._sampler is None:
            return {}
        batches, epoch, step_items = _batches_done(trainer), self._sampler.epoch, self._sampler.step_items
        if batches >= trainer.num_training_batches:
            return {"epoch": epoch + 1, "items": 0, "step_items": step_items}
        begun, items, counted = self._counted_from
        if epoch != begun:
            items = counted = 0
        return {"epoch": epoch, "items": items + (batches - counted) * step_items, "step_items": step_items}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue from there with the next `begin`."""
        if state:
            warnings.filterwarnings("ignore", ".*your dataloader is not resumable")  # it is, by this class
            self._resumed = Draw(state["epoch"], state["items"])
            self._step_items = state.get("step_items")


def _batches_done(trainer: Trainer) -> int:
    """Lightning's count of the batches of the epoch that are done."""
    count: Any = trainer.fit_loop.epoch_loop.batch_progress.current
    return count.processed


def realign_batch_counter(loop: Any, sampler: EpochSampler, step_items: int, batches: int) -> None:
    """Set Lightning's count of batches to the batches of the epoch that `sampler.resumed` leaves undone.

    Lightning counts batches. Where a step takes another number of items than before, it would end the epoch too early
    or too late. A checkpoint written at an epoch's last step still marks that epoch as open; resuming from such a
    checkpoint twice would train the epoch twice, so it is closed here.

    Args:
        loop: the trainer's fit loop, restored, before its first batch.
        sampler: of the training batches; it knows where to begin.
        step_items: items of a step over all processes, in the run that saved the checkpoint.
        batches: of a whole epoch now, on each process.

    Raises:
        InputError: the rest of the epoch is not determined, because its order depends on the items of a step.
    """
    done, count = sampler.resumed.item, loop.epoch_loop.batch_progress.current
    if step_items != sampler.step_items:
        if done and sampler.order_depends_on_step:
            raise InputError(
                f"the checkpoint is from the middle of an epoch of {step_items} items a step, and data.batch_size x "
                f"processes is {sampler.step_items} now, which changes the rest of its order; set data.batch_size to "
                f"{step_items / sampler.num_replicas:g}, or resume from the end of an epoch"
            )
        left = -(-sum(1 for _ in sampler) // sampler.batch_size) if done else 0
        shift = batches - left - count.processed
        for name in ("ready", "started", "processed", "completed"):
            setattr(count, name, getattr(count, name) + shift)
    if not done and count.completed < count.processed:  # saved by the last step of an epoch
        for progress in (loop.epoch_progress.current, loop.epoch_progress.total):
            progress.started = progress.processed = progress.completed = progress.ready
        loop.restarting = True  # the loop's setter looks again and finds that no epoch is left unfinished
