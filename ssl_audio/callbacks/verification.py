"""Verification of singers who are held out, while training runs: the metric to choose a checkpoint by."""

import os
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_info
from pytorch_lightning.utilities.seed import isolate_rng

from ssl_audio import audio
from ssl_audio.callbacks.held_out import HeldOut
from ssl_audio.callbacks.timing import Stopwatch
from ssl_audio.data.base import raise_together, recording_data
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.errors import InputError
from ssl_audio.evaluation.comparison import TestSet, evaluate_model, load_test_set

CHANCE = 0.5
RESAMPLES = 100  # of the singers, for the standard error
_CLIPS = 32  # in a forward pass, if `batch_size` is None


class Verification(Callback):
    """Embeds recordings of held-out singers every few epochs and logs `verification/eer`, by which `best` is chosen.

    Without a folder they are the validation groups of the data module, which are held out whole; see `HeldOut`. If
    fewer than three of these have two recordings, nothing is logged, and `BestCheckpoint` takes another metric.

    With a folder, `verification/mnr` and `/probe` (accuracy of naming singers) are logged too. Its singers must not be
    in the training data, or the metrics choose the checkpoint that memorised best; a file that is in both is refused.

    `verification/eer_se` is the standard error of the EER over singers, and `verification/time_share` the fraction of
    the run that all this took. It happens at the end of an epoch, also of one that is cut short by the end of the run,
    and at validations within epochs. Epochs between log the last metrics again, so that a checkpoint with
    `monitor="verification/eer"` finds them at any time. The first rank computes, the others get its metrics. No random
    state is touched: training continues as it would have without this callback.

    Args:
        folder: `singer/**/file`; None takes the validation groups.
        every_n_epochs: how often, beside the end.
        trials: a list for the folder; None takes all pairs, or `max_trials` of them drawn once.
        metadata: of the folder, see `ssl_audio.evaluation.recordings.find_recordings`.
        max_trials: half of them are same-singer trials, where there are so many.
        probe: "knn" or "linear", with a folder; None logs no probe.
        batch_size: of clips of one length; None suits the device.
        seed: for drawing recordings, trials and the probe's folds.
        max_recordings: of the validation groups, at most; about the same number of each.

    Attributes:
        active: whether there is something to verify on; known when the fit starts.
        step: the optimiser step of the last metrics.

    Raises:
        InputError: a number out of its range; before the first step, a folder that cannot be used, recordings that are
            trained on or too short for the model.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None = None,
        every_n_epochs: int = 1,
        trials: str | os.PathLike | None = None,
        metadata: str | os.PathLike | None = None,
        max_trials: int = 40_000,
        probe: Literal["knn", "linear"] | None = "knn",
        batch_size: int | None = None,
        seed: int = 0,
        max_recordings: int = 300,
    ) -> None:
        if every_n_epochs < 1:
            raise InputError(f"every_n_epochs must be at least 1, got {every_n_epochs}")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size of the verification must be at least 1, or null, got {batch_size}")
        if seed < 0:
            raise InputError(f"seed of the verification must not be negative, got {seed}")
        if max_recordings < 1:
            raise InputError(f"max_recordings of the verification must be at least 1, got {max_recordings}")
        if folder is None and (trials is not None or metadata is not None):
            raise InputError("callbacks.verification has trials or metadata and no folder; give the folder they are of")
        self.folder = folder
        self.every_n_epochs = every_n_epochs
        self.trials = trials
        self.metadata = metadata
        self.max_trials = max_trials
        self.probe = probe
        self.batch_size = batch_size
        self.seed = seed
        self.max_recordings = max_recordings
        self.metrics: dict[str, float] = {}
        self.active = False
        self.step = -1
        self._test_set: TestSet | HeldOut | None = None
        self._clock = Stopwatch()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """List and decode the folder once, so that what is wrong with it is said before the first step."""
        self._clock.restart()
        self.step = -1
        problem = ""
        if trainer.is_global_zero:
            try:
                self._test_set = self._held_out(trainer) if self.folder is None else self._folder(trainer, pl_module)
            except InputError as error:
                problem = str(error)
        raise_together(problem)
        self.active = trainer.strategy.broadcast(self._test_set is not None, src=0)

    def _held_out(self, trainer: Trainer) -> HeldOut | None:
        data = recording_data(trainer)
        if data is None or not data.val_groups:
            return None
        try:
            found = HeldOut(data, self.max_recordings, self.max_trials, self.seed)
        except InputError as error:
            rank_zero_info(f"verification: {error}")
            return None
        rank_zero_info(f"verification: {found}")
        return found

    def _folder(self, trainer: Trainer, pl_module: LightningModule) -> TestSet:
        assert self.folder is not None
        test_set = load_test_set(self.folder, self.trials, self.metadata, self.seed, self.max_trials)
        data = recording_data(trainer)
        trained = {Path(entry.path).resolve() for entry in data.training_entries} if data is not None else set()
        for path in test_set.recordings.paths():
            if path.resolve() in trained:
                raise InputError(f"{path} is trained on too; verification needs a folder of singers who are held out")
        model: Any = pl_module.embedding_model()  # type: ignore[operator]
        needed = model.minimum_samples / model.sample_rate
        for path in test_set.recordings.paths():
            if audio.info(path).seconds < needed:
                raise InputError(f"{path} is shorter than the {needed:.2f} s that the model needs; remove it")
        return test_set

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look at a validation within an epoch; at its end, `on_train_epoch_end` comes after all else is done."""
        within = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if within and not trainer.sanity_checking:
            self._run(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._run(trainer, pl_module)

    def _run(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.active:
            return
        if trainer.current_epoch % self.every_n_epochs == 0 or not self.metrics or _ends(trainer):
            with self._clock.measure():
                found = self._verify(pl_module) if trainer.is_global_zero else {}
                self.metrics = trainer.strategy.broadcast(found, src=0)
                self.step = trainer.global_step
        values = {**self.metrics, "time_share": self._clock.fraction}
        pl_module.log_dict({f"verification/{name}": value for name, value in values.items()}, rank_zero_only=False)

    def _verify(self, pl_module: LightningModule) -> dict[str, float]:
        with isolate_rng():
            try:
                if isinstance(self._test_set, HeldOut):
                    return self._test_set.metrics(pl_module, self.batch_size or _CLIPS, RESAMPLES)
                return self._of_folder(pl_module)
            except InputError as error:  # collapsed or diverged; other callbacks say so and may end the run
                warnings.warn(f"verification is at chance: {error}", UserWarning, stacklevel=2)
        at_chance = {"eer": CHANCE, "eer_se": 0.0} | ({} if self.folder is None else {"mnr": CHANCE})
        return at_chance | ({"probe": 0.0} if "probe" in self.metrics else {})

    def _of_folder(self, pl_module: LightningModule) -> dict[str, float]:
        test_set: Any = self._test_set
        model = EvalProtocol(pl_module.embedding_model())  # type: ignore[operator]
        embeddings = embed_recordings(
            model, test_set.recordings.paths(), self.batch_size, pl_module.device, "verification"
        )
        result = evaluate_model("", embeddings, test_set, resamples=RESAMPLES, seed=self.seed, probe=self.probe)
        assert result.verification.eer is not None and result.verification.mnr is not None
        deviation = float(np.nanstd(result.verification.resampled["eer"]))
        metrics = {"eer": result.verification.eer, "eer_se": deviation, "mnr": result.verification.mnr}
        if result.probe is not None:
            metrics["probe"] = result.probe.metrics.summary["accuracy"]
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"figures": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.metrics = dict(state_dict["figures"])


def _ends(trainer: Trainer) -> bool:
    """Whether training ends with this epoch. (`fit_loop.done` would change the number of the epoch.)"""
    last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= (trainer.max_epochs or 0)
    last_step = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    return last_epoch or last_step or trainer.should_stop
