"""Verification on a held-out folder while training runs: the metric to choose a checkpoint by."""

import os
import warnings
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities.seed import isolate_rng

from ssl_audio import audio
from ssl_audio.callbacks.timing import Stopwatch
from ssl_audio.data.base import recording_data
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.errors import InputError
from ssl_audio.evaluation.comparison import TestSet, evaluate_model, load_test_set

CHANCE = 0.5


class Verification(Callback):
    """Embeds a folder every few epochs and logs `verification/eer`, `/mnr` and `/probe` (accuracy of naming singers).

    Singers of the folder must not be in the training data, or the metrics choose the checkpoint that memorised best; a
    file that is in both is refused. The epochs between log the last metrics again, so that a checkpoint with
    `monitor="verification/eer"` finds them at any time. The first rank computes, the others get its metrics. No random
    state is touched: training continues as it would have without this callback.
    `verification/time_share` is the fraction of the run that this took.

    Args:
        folder: `singer/**/file`.
        every_n_epochs: how often.
        trials: a list; None takes all pairs, or `max_trials` of them drawn once.
        metadata: see `ssl_audio.evaluation.recordings.find_recordings`.
        max_trials: half of them are same-singer trials, where there are so many.
        probe: "knn" or "linear"; None logs no probe.
        batch_size: of clips of one length; None suits the device.
        seed: for drawing trials and the probe's folds.

    Raises:
        InputError: a number out of its range; before the first step, a folder that cannot be used, recordings that are
            trained on or too short for the model.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        every_n_epochs: int = 1,
        trials: str | os.PathLike | None = None,
        metadata: str | os.PathLike | None = None,
        max_trials: int = 40_000,
        probe: Literal["knn", "linear"] | None = "knn",
        batch_size: int | None = None,
        seed: int = 0,
    ) -> None:
        if every_n_epochs < 1:
            raise InputError(f"every_n_epochs must be at least 1, got {every_n_epochs}")
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch_size of the verification must be at least 1, or null, got {batch_size}")
        if seed < 0:
            raise InputError(f"seed of the verification must not be negative, got {seed}")
        self.folder = folder
        self.every_n_epochs = every_n_epochs
        self.trials = trials
        self.metadata = metadata
        self.max_trials = max_trials
        self.probe = probe
        self.batch_size = batch_size
        self.seed = seed
        self.metrics: dict[str, float] = {}
        self._test_set: TestSet | None = None
        self._clock = Stopwatch()

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """List and decode the folder once, so that what is wrong with it is said before the first step."""
        self._clock.restart()
        if not trainer.is_global_zero:
            return
        self._test_set = load_test_set(self.folder, self.trials, self.metadata, self.seed, self.max_trials)
        data = recording_data(trainer)
        trained = {Path(entry.path).resolve() for entry in data.training_entries} if data is not None else set()
        for path in self._test_set.recordings.paths():
            if path.resolve() in trained:
                raise InputError(f"{path} is trained on too; verification needs a folder of singers who are held out")
        model: Any = pl_module.embedding_model()  # type: ignore[operator]
        needed = model.minimum_samples / model.sample_rate
        for path in self._test_set.recordings.paths():
            if audio.info(path).seconds < needed:
                raise InputError(f"{path} is shorter than the {needed:.2f} s that the model needs; remove it")

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self._run(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.enable_validation:
            self._run(trainer, pl_module)

    def _run(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.current_epoch % self.every_n_epochs == 0 or not self.metrics:
            with self._clock.measure():
                found = self._verify(pl_module) if trainer.is_global_zero else {}
                self.metrics = trainer.strategy.broadcast(found, src=0)
        values = {**self.metrics, "time_share": self._clock.fraction}
        pl_module.log_dict({f"verification/{name}": value for name, value in values.items()}, rank_zero_only=False)

    def _verify(self, pl_module: LightningModule) -> dict[str, float]:
        assert self._test_set is not None
        model = EvalProtocol(pl_module.embedding_model())  # type: ignore[operator]
        paths = self._test_set.recordings.paths()
        with isolate_rng():
            try:
                embeddings = embed_recordings(model, paths, self.batch_size, pl_module.device, "verification")
                result = evaluate_model("", embeddings, self._test_set, resamples=0, seed=self.seed, probe=self.probe)
            except InputError as error:  # collapsed or diverged; other callbacks say so and may end the run
                warnings.warn(f"verification is at chance: {error}", UserWarning, stacklevel=2)
                return {"eer": CHANCE, "mnr": CHANCE} | ({"probe": 0.0} if "probe" in self.metrics else {})
        assert result.verification.eer is not None and result.verification.mnr is not None
        metrics = {"eer": result.verification.eer, "mnr": result.verification.mnr}
        if result.probe is not None:
            metrics["probe"] = result.probe.metrics.summary["accuracy"]
        return metrics

    def state_dict(self) -> dict[str, Any]:
        return {"figures": self.metrics}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.metrics = dict(state_dict["figures"])
