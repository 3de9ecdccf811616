"""The checkpoint that is verified best."""

import math
import shutil
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor

from ssl_audio.callbacks.checkpoint import Checkpoint
from ssl_audio.callbacks.in_batch import InBatchMetrics
from ssl_audio.callbacks.verification import Verification
from ssl_audio.data.base import recording_data
from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_atomically
from ssl_audio.weights import read_weights


class BestCheckpoint(Checkpoint):
    """Keeps the newest checkpoint whose metric cannot be told from the best one.

    The metric, unless `monitor` names one:

    1. `verification/eer`, where `callbacks.Verification` has something to verify on;
    2. else `eer_embeddings/val`, the EER of two views of each validation clip, where `InBatchMetrics` is there;
    3. else none: nothing is kept here, and `last.ckpt` is the checkpoint of the run.

    Few singers or clips give the metric a large error, and the least of many such values is a matter of chance. So
    the one-standard-error rule applies (Breiman et al., *Classification and Regression Trees*, 1984, section 3.4.3):
    of the checkpoints within `standard_errors` of the best value, the newest is kept, since it has trained longest. A
    metric without a standard error (its name with `eer_se` for `eer`) has an error of 0.

    A run that continues another one takes over its best checkpoint, which is looked for beside `--ckpt_path`. Every
    checkpoint that is saved has the metric of its step as "metric": {"name", "value", "step"}.

    Args:
        filename: of the checkpoint, without `.ckpt`.
        monitor: name of a logged metric; None chooses, see above.
        mode: "min" or "max": which values of the metric are good.
        standard_errors: 0 keeps the best value, and of equal ones the newest.
        **options: of `pytorch_lightning.callbacks.ModelCheckpoint`. With `save_top_k` other than 1 the rule does not
            apply.

    Raises:
        InputError: `standard_errors` is negative.
    """

    def __init__(
        self,
        filename: str = "best",
        monitor: str | None = None,
        mode: str = "min",
        standard_errors: float = 1.0,
        enable_version_counter: bool = False,
        **options: Any,
    ) -> None:
        if standard_errors < 0:
            raise InputError(f"standard_errors of the best checkpoint is {standard_errors}; it must not be negative")
        super().__init__(
            filename=filename, monitor=monitor, mode=mode, enable_version_counter=enable_version_counter, **options
        )
        self.standard_errors = standard_errors
        self.chooses = monitor is None
        self.best: tuple[float, float] | None = None  # the best value so far, and its standard error
        self._validated_step = -1
        self._metric: dict[str, Any] | None = None
        self._resumed: dict[str, Any] | None = None

    @property
    def state_key(self) -> str:
        return f"BestCheckpoint{{'filename': {self.filename!r}}}"  # what is monitored is not known yet

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self.chooses:
            self.monitor = verified_metric(trainer)
        if self._resumed is not None:
            self._take_over(trainer, self._resumed)
            self._resumed = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated_step = trainer.global_step
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:  # else `on_train_epoch_end` follows
            self._consider(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._consider(trainer)

    def _consider(self, trainer: Trainer) -> None:
        """Save if the metric was measured at this step and is good enough."""
        metrics = trainer.callback_metrics
        if self.monitor is None or self.monitor not in metrics or not self._is_new(trainer):
            return
        value = float(metrics[self.monitor])
        self._metric = {"name": self.monitor, "value": value, "step": trainer.global_step}
        if not self._should_skip_saving_checkpoint(trainer):
            self._save_topk_checkpoint(trainer, self._monitor_candidates(trainer))

    def _is_new(self, trainer: Trainer) -> bool:
        """Whether the metric is of this step: those that were logged before stay among the logged ones."""
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if str(self.monitor).startswith("verification/"):
            steps = [callback.step for callback in callbacks if isinstance(callback, Verification)]
            return not steps or trainer.global_step in steps
        return not str(self.monitor).endswith("/val") or self._validated_step == trainer.global_step

    def check_monitor_top_k(self, trainer: Trainer, current: Tensor | None = None) -> bool:
        """Whether to save: see the class."""
        if self.save_top_k != 1 or current is None:
            return super().check_monitor_top_k(trainer, current)
        value, sign = float(current), 1 if self.mode == "min" else -1
        name = str(self.monitor).replace("eer", "eer_se", 1)
        error = float(trainer.callback_metrics.get(name, 0.0)) if name != self.monitor else 0.0
        if self.best is None or sign * (value - self.best[0]) < 0:
            self.best = value, error
        good = sign * (value - self.best[0]) <= self.standard_errors * self.best[1]
        return bool(trainer.strategy.reduce_boolean_decision(good))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if self._metric is not None and self._metric["step"] == trainer.global_step:
            checkpoint["metric"] = dict(self._metric)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "best": self.best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._resumed = dict(state_dict)

    def _take_over(self, trainer: Trainer, state: dict[str, Any]) -> None:
        """Go on from the best checkpoint of the run that this one continues; from nothing if it is not there."""
        score, path = state["best_model_score"], state["best_model_path"]
        if state.get("monitor") != self.monitor or state.get("best") is None or score is None or self.save_top_k != 1:
            return
        source = Path(str(trainer.ckpt_path)).parent / Path(path).name
        target = Path(self.format_checkpoint_name({}))
        found = ("", "")
        if trainer.is_global_zero:
            found = _look_for(source, str(self.monitor), float(score), trainer.global_step)
            if found[0] == "same" and source.resolve() != target.resolve():
                with write_atomically(target) as temporary:
                    shutil.copyfile(source, temporary)
        kind, problem = trainer.strategy.broadcast(found, src=0)
        if problem:
            rank_zero_warn(f"{problem}; the best checkpoint is chosen among those from here on")
            return
        self.best = tuple(state["best"])
        if kind == "same":
            self.best_model_score, self.best_model_path = score, str(target)
            self.best_k_models = {str(target): score}
            self.kth_best_model_path, self.kth_value = str(target), score


def verified_metric(trainer: Trainer) -> str | None:
    """The metric that checkpoints of this training are chosen by, unless a config names one; None if there is none."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    if any(isinstance(callback, Verification) and callback.active for callback in callbacks):
        return "verification/eer"
    data = recording_data(trainer)
    validated = trainer.enable_validation and (data is None or bool(data.val_groups))
    for callback in callbacks if validated else ():
        if isinstance(callback, InBatchMetrics) and "val" in callback.stages:
            return f"eer_{callback.of[0]}/val"
    return None


def _look_for(path: Path, monitor: str, score: float, step: int) -> tuple[str, str]:
    """What a best checkpoint is to a run that goes on from a step, and what is wrong with it, "" if nothing.

    Returns:
        "same" for the one with this score; "newer" for one of a later step, which the run will come to again.
    """
    if not path.is_file():
        return "", f"{path} is not there"
    try:
        metric = read_weights(path).get("metric") or {}
    except InputError as error:
        return "", str(error)
    if metric.get("name") == monitor and metric["step"] > step:
        return "newer", ""
    if metric.get("name") == monitor and math.isclose(metric["value"], score, rel_tol=1e-6):
        return "same", ""
    return "", f"{path} is not the best checkpoint of the training up to step {step}"
