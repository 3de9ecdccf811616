"""A resumed run: which settings it uses, and which checkpoints it can start from."""

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import EarlyStopping

from ssl_audio.errors import InputError


class ConfiguredSettings(Callback):
    """Uses the settings of the config where a checkpoint has others, and says which they are.

    torch and Lightning restore the learning rate, the weight decay, a schedule's length or the patience of early
    stopping with a checkpoint. What was typed would have no effect, while config.yaml says that it was used. Nothing
    changes where config and checkpoint agree.
    """

    def __init__(self) -> None:
        self._patience: dict[int, int] = {}
        self._groups: list[list[dict[str, Any]]] = []
        self._schedules: list[dict[str, Any]] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for i, callback in enumerate(trainer.callbacks):  # type: ignore[attr-defined]
            if isinstance(callback, EarlyStopping):
                self._patience[i] = callback.patience

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._groups = [[_plain(group) for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        self._schedules = [_arguments(config.scheduler) for config in trainer.lr_scheduler_configs]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        changed: list[str] = []
        for i, patience in self._patience.items():
            callback = trainer.callbacks[i]  # type: ignore[attr-defined]
            if callback.patience != patience:
                changed.append(f"patience {callback.patience} -> {patience}")
                callback.patience = patience
        for settings, config in zip(self._schedules, trainer.lr_scheduler_configs, strict=True):
            for name, value in settings.items():
                if getattr(config.scheduler, name) != value:
                    changed.append(f"lr_scheduler.{name} {getattr(config.scheduler, name)} -> {value}")
                    setattr(config.scheduler, name, value)
        for groups, optimizer in zip(self._groups, trainer.optimizers, strict=True):
            for configured, group in zip(groups, optimizer.param_groups, strict=True):
                changed += _restore(configured, group)
        for config in trainer.lr_scheduler_configs:
            rates: list[Any] = [group.get("initial_lr") for group in config.scheduler.optimizer.param_groups]
            if hasattr(config.scheduler, "base_lrs") and None not in rates:
                config.scheduler.base_lrs = rates
        if changed and trainer.is_global_zero:
            print(f"of the config, not of the checkpoint: {', '.join(dict.fromkeys(changed))}", flush=True)


def _plain(group: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in group.items() if name != "params"}


def _restore(configured: Mapping[str, Any], group: dict[str, Any]) -> list[str]:
    """Give a group of parameters the configured settings; the rate keeps the place that its schedule has reached."""
    changed = []
    for name, value in configured.items():
        if name in ("lr", "initial_lr") or group.get(name) == value:
            continue
        changed.append(f"optimizer.{name} {group.get(name)} -> {value}")
        group[name] = value
    key = "initial_lr" if "initial_lr" in configured else "lr"
    wanted, found = configured[key], group.get(key, group["lr"])
    if wanted != found:
        changed.append(f"optimizer.lr {found} -> {wanted}")
        group["lr"] = wanted * (group["lr"] / found) if found and key == "initial_lr" else wanted
        group[key] = wanted
    return changed


def _arguments(scheduler: Any) -> dict[str, Any]:
    """The arguments of a schedule that it keeps under their own names, where they are plain numbers or names."""
    names = inspect.signature(type(scheduler).__init__).parameters
    values = {name: vars(scheduler)[name] for name in names if name in vars(scheduler)}
    return {
        name: value for name, value in values.items() if isinstance(value, (int, float, str)) and name[-5:] != "epoch"
    }


def resolve(checkpoint: str | None, runs: str | os.PathLike | None) -> str | None:
    """The checkpoint to continue from: the given one, or for `last` the newest last.ckpt below a folder of runs.

    A process that torchrun has started again continues from there by itself.

    Raises:
        InputError: `last`, and no run has saved one yet.
    """
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") or 0) > 0
    if checkpoint != "last" and not (again and checkpoint is None):
        return checkpoint
    if checkpoint == "last" and Path("last").is_file():
        return checkpoint
    found = list(Path(runs).glob("*/checkpoints/last.ckpt")) if runs is not None else []
    if found:
        return os.fspath(max(found, key=os.path.getmtime))
    if again:
        return None  # it ended before its first checkpoint
    raise InputError(f"--ckpt_path last: no run in {runs} has saved checkpoints/last.ckpt; give a path")


def check_resumable(path: str, content: Mapping[str, Any], optimizer: Any) -> None:
    """Refuse a checkpoint from which this optimiser cannot continue.

    Args:
        path: of the checkpoint.
        content: what it holds.
        optimizer: the configured one, over any parameter.

    Raises:
        InputError: it holds weights alone, or the state of another optimiser.
    """
    anew = f"start a new run from its weights with --model.weights {path}"
    states = content.get("optimizer_states")
    if not isinstance(states, (list, tuple)) or not states or "loops" not in content:
        raise InputError(f"{path} holds weights alone, and a run cannot continue from it; {anew}")
    groups = states[0].get("param_groups") or [{}]
    theirs, ours = (set(group) - {"params", "initial_lr"} for group in (groups[0], optimizer.param_groups[0]))
    ours -= {"params", "initial_lr"}
    if theirs != ours and (theirs - ours or ours - theirs):
        what = ", ".join(sorted(theirs ^ ours))
        raise InputError(f"{path} is of another optimiser (it differs in {what}); give the same, or {anew}")
