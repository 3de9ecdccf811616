"""What Lightning and torch raise during a fit, in one line that names the key to change."""

import re
import traceback
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping

from ssl_audio.errors import InputError

_OF_LIBRARIES = ("pytorch_lightning", "lightning_fabric", "lightning_utilities", "jsonargparse")
_OF_OPTIMISERS = "torch/optim"
_CONNECTION = re.compile(
    r"connection (closed|reset|refused)|broken pipe|gloo|nccl|processgroup|TCPStore|socket|timed out", re.IGNORECASE
)

_REMEDIES = (  # (in the message, what to change)
    ("val_check_interval", "set trainer.val_check_interval lower, or trainer.check_val_every_n_epoch to null"),
    ("limit_val_batches", "set trainer.limit_val_batches to 1.0"),
    ("lr_find", "remove the learning rate finder from callbacks, and set model.optimizer.lr"),
    ("learning rate finder", "remove the learning rate finder from callbacks, and set model.optimizer.lr"),
    ("batch_size", "remove the batch size finder from callbacks, and set data.batch_size"),
    ("total number of steps", "change the arguments of model.lr_scheduler"),
    ("Tried to step", "change the arguments of model.lr_scheduler"),
    ("DeviceStatsMonitor", "remove this callback, or set trainer.logger"),
)


def line_of(error: Exception, trainer: Trainer, config: Mapping[str, Any]) -> str | None:
    """One line if the mistake is in the config, or another process has ended; None for an error of the code."""
    text = " ".join(str(error).split()) or type(error).__name__
    if trainer.world_size > 1 and isinstance(error, RuntimeError) and _CONNECTION.search(text):
        return "another process of this run has ended, see its message; continue with --ckpt_path from last.ckpt"
    frames = traceback.extract_tb(error.__traceback__)
    innermost = PurePath(frames[-1].filename).as_posix() if frames else ""
    scheduler = (config.get("model") or {}).get("init_args", {}).get("lr_scheduler")
    of_optimiser = _OF_OPTIMISERS in innermost and ("lr_scheduler" not in innermost or scheduler is not None)
    if not of_optimiser and not any(f"/{name}/" in innermost for name in _OF_LIBRARIES):
        return None
    remedy = next((remedy for words, remedy in _REMEDIES if words in text), "change this key of trainer or callbacks")
    if of_optimiser:
        where = "lr_scheduler" if "lr_scheduler" in innermost else "optimizer"
        remedy = f"change the arguments of model.{where}"
    return f"{text[:300].rstrip('. ')}; {remedy}"


def refuse_what_cannot_train(trainer: Trainer) -> None:
    """Refuse settings of the trainer that cannot work with clips and mel frontends, before data is read.

    Raises:
        InputError: half or double precision of all weights, or a callback that looks for a setting by itself.
    """
    precision = str(trainer.precision)
    if precision.endswith("-true") and precision != "32-true":
        other = "32-true" if precision.startswith("64") else "bf16-mixed"
        raise InputError(f"trainer.precision is {precision}, and features are computed in float32; set it to {other}")
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        name = type(callback).__name__
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and "/" not in monitor and monitor not in ("epoch", "step", "data_wait"):
            raise InputError(f"{name} in callbacks monitors {monitor!r}, which no metric is called; such as loss/val")
        if name in ("BatchSizeFinder", "LearningRateFinder"):
            key = "data.batch_size" if name == "BatchSizeFinder" else "model.optimizer.lr"
            raise InputError(f"callbacks has a {name}, which changes the run's order of clips; remove it and set {key}")


class Monitors(Callback):
    """Early stopping by a metric that is not there.

    Lightning raises where the metric is missing, after the epoch and before its checkpoint: also in a run that ends
    inside of its first epoch, when nothing has been validated. Here a run without a validation goes on to its end, and
    a name that no metric has is refused: before the data is read if it has another form than all names, else after the
    first validation.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for callback in _early(trainer):
            callback.strict = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for callback in () if trainer.sanity_checking else _early(trainer):
            if callback.monitor not in trainer.callback_metrics:
                names = ", ".join(sorted(trainer.callback_metrics))
                raise InputError(f"early stopping monitors {callback.monitor}, which is not there; choose from {names}")


def _early(trainer: Trainer) -> list[EarlyStopping]:
    return [callback for callback in trainer.callbacks if isinstance(callback, EarlyStopping)]  # type: ignore[attr-defined]
