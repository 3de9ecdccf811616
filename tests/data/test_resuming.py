"""The resume point against Lightning's real counters, without a training: what is saved, and how a loop continues."""

import pytest
from pytorch_lightning import Trainer

from ssl_audio.data.resuming import ResumePoint
from ssl_audio.data.sampler import EpochSampler
from ssl_audio.errors import InputError

ITEMS = 20


class FixedSampler(EpochSampler):
    """An order that depends on how many items a step takes."""

    @property
    def order_depends_on_step(self) -> bool:
        return True


def trainer_after(batches: int, batch_size: int, completed: int | None = None) -> Trainer:
    """A trainer whose loop has done so many batches of an epoch."""
    trainer = Trainer(logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu")
    trainer.fit_loop.epoch_loop.max_batches = ITEMS // batch_size  # type: ignore[attr-defined]
    trainer.fit_loop.max_batches = ITEMS // batch_size
    count = trainer.fit_loop.epoch_loop.batch_progress.current
    count.ready = count.started = count.processed = batches
    count.completed = batches if completed is None else completed
    return trainer


def begun(batch_size: int, trainer: Trainer, state: dict[str, int], epoch: int = 0) -> tuple[ResumePoint, EpochSampler]:
    point, sampler = ResumePoint(), EpochSampler(range(ITEMS), batch_size, seed=3)  # type: ignore[arg-type]
    point.load_state_dict(state)
    point.begin(sampler, len(sampler) // batch_size, trainer)
    sampler.set_epoch(epoch)
    return point, sampler


def test_nothing_is_saved_before_a_training_begins() -> None:
    assert ResumePoint().state_dict(None) == {}
    point = ResumePoint()
    point.begin(EpochSampler(range(ITEMS), 4, seed=0), 5, None)  # type: ignore[arg-type]
    assert point.state_dict(None) == {}


def test_the_state_counts_items_and_turns_to_the_next_epoch_at_the_end() -> None:
    for batches, state in ((0, (2, 0)), (3, (2, 12)), (5, (3, 0))):
        point, _ = begun(4, trainer_after(batches, 4), {}, epoch=2)
        expected = {"epoch": state[0], "items": state[1], "step_items": 4}
        assert point.state_dict(trainer_after(batches, 4)) == expected


@pytest.mark.parametrize("batch_size", [2, 4, 5])
def test_a_resumed_sampler_gives_what_is_left_and_the_count_of_batches_follows(batch_size: int) -> None:
    order = [draw.item for draw in EpochSampler(range(ITEMS), 4, seed=3)]  # type: ignore[arg-type]
    trainer = trainer_after(2, 4)
    trainer.fit_loop.epoch_loop.max_batches = trainer.fit_loop.max_batches = ITEMS // batch_size  # type: ignore[attr-defined]
    point, sampler = begun(batch_size, trainer, {"epoch": 0, "items": 8, "step_items": 4})
    left = [draw.item for draw in sampler]
    assert left == order[8 : 8 + len(left)] and len(left) == 12 - 12 % batch_size
    count = trainer.fit_loop.epoch_loop.batch_progress.current
    assert ITEMS // batch_size - count.processed == len(left) // batch_size
    assert point.state_dict(trainer)["items"] == 8
    count.processed += 1
    if count.processed < ITEMS // batch_size:
        assert point.state_dict(trainer) == {"epoch": 0, "items": 8 + batch_size, "step_items": batch_size}


def test_an_order_that_depends_on_the_step_is_not_resumed_with_another() -> None:
    point, sampler = ResumePoint(), FixedSampler(range(ITEMS), 5, seed=3)  # type: ignore[arg-type]
    point.load_state_dict({"epoch": 0, "items": 8, "step_items": 4})
    with pytest.raises(InputError, match=r"an epoch of 4 items a step, .* is 5 now.*set data\.batch_size to 4"):
        point.begin(sampler, 4, trainer_after(2, 4))


def test_an_epoch_that_its_last_step_saved_is_closed() -> None:
    trainer = trainer_after(5, 4, completed=4)
    progress = trainer.fit_loop.epoch_progress.current
    progress.ready, progress.completed = 1, 0
    trainer.fit_loop.restarting = True
    assert trainer.fit_loop.restarting  # Lightning would go into that epoch again
    begun(4, trainer, {"epoch": 1, "items": 0, "step_items": 4})
    assert progress.completed == progress.processed == 1 and not trainer.fit_loop.restarting


def test_a_state_of_0_1_without_the_items_of_a_step_is_read() -> None:
    point, sampler = ResumePoint(), EpochSampler(range(ITEMS), 4, seed=3)  # type: ignore[arg-type]
    point.load_state_dict({"epoch": 2, "items": 8})
    point.begin(sampler, 5, trainer_after(2, 4))
    assert sampler.epoch == 2 and len([*sampler]) == 12
