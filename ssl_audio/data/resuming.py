"""Going on in the middle of an epoch with another batch size or number of processes than before."""

from typing import Any

from ssl_audio.data.sampler import EpochSampler
from ssl_audio.errors import InputError


def realign_batch_counter(loop: Any, sampler: EpochSampler, step_items: int, batches: int) -> None:
    """Set Lightning's count of batches to what `sampler.resumed` leaves of its epoch.

    Lightning counts batches, and would end an epoch too early or too late where a step takes other items than before.
    A checkpoint that the last step of an epoch saved has that epoch unfinished; resumed twice from such, Lightning
    would train one epoch twice, so it is closed here.

    Args:
        loop: the trainer's fit loop, restored, before its first batch.
        sampler: of the training batches, which was told where to begin.
        step_items: items of a step over all processes, of the run that saved the checkpoint.
        batches: of a whole epoch now, on each process.

    Raises:
        InputError: the rest of the epoch cannot be told, because its order depends on the items of a step.
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
        loop.restarting = True  # it looks again, and finds nothing left to be done of that epoch
