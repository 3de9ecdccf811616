"""The files of a run folder beside checkpoints and metrics: its config, its record, its loss curve."""

import json
import os
import shlex
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from ssl_audio.errors import InputError
from ssl_audio.provenance import PACKAGES, git_state, versions
from ssl_audio.utils.checkpoints import checkpoints, origin, origin_text
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.weights import read_weights

TRAINING_PACKAGES = (*PACKAGES, "pytorch-lightning", "jsonargparse", "audiomentations", "praat-parselmouth")


class RunFolder(Callback):
    """Writes `config.yaml` and `run.json` before the first step, `plots/loss.png` and a final summary at the end.

    Args:
        config: resolved configuration, plain data.
        command: what was typed.
        resumed_from: the checkpoint that the run continues, or None.
    """

    def __init__(self, config: dict[str, Any], command: list[str], resumed_from: str | None = None) -> None:
        self.config = config
        self.command = command
        self.resumed_from = resumed_from
        self.trained = False  # whether a step was done
        self._record: dict[str, Any] = {}
        self._start = 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()
        log_dir = trainer.log_dir  # a collective call: read on all ranks, or training hangs
        if not trainer.is_global_zero or log_dir is None:
            return
        folder = Path(log_dir)
        self._record = {
            "command": self.command,
            "resumed_from": self.resumed_from,
            "seed": self.config.get("seed_everything"),
            "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "git": git_state(),
            "ranks": trainer.world_size,
            "device": str(pl_module.device),
            "versions": versions(TRAINING_PACKAGES),
        }
        write_text(folder / "config.yaml", yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True))
        self._write(folder)
        print(f"run folder: {folder}", flush=True)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if hasattr(logger, "keep_rows"):
                logger.keep_rows(trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.trained = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        log_dir = trainer.log_dir  # a collective call: read on all ranks, or training hangs
        if not trainer.is_global_zero or log_dir is None:
            return
        folder = Path(log_dir)
        if not self.trained:
            return  # there is nothing to load
        best = best_checkpoint(trainer)
        self._record |= {
            "seconds": round(time.perf_counter() - self._start, 1),
            "steps": trainer.global_step,
            "epochs": trainer.current_epoch,
            "best_checkpoint": best and Path(os.path.relpath(best, folder)).as_posix(),
        }
        self._write(folder)  # the best checkpoint is looked up in it
        self._record["checkpoint"] = taken(folder)
        self._write(folder)
        for logger in trainer.loggers:
            logger.save()
        plot_losses(folder / "metrics.csv", folder / "plots" / "loss.png")
        print(final_summary(folder, self._record["checkpoint"]), flush=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Record the checkpoint that a run which ends early leaves; without `best_checkpoint`, as it has not ended."""
        if self._record and trainer.is_global_zero and trainer.logger is not None and trainer.logger.log_dir:
            folder = Path(trainer.logger.log_dir)
            with suppress(InputError, OSError):  # the error that ends the run matters more
                self._record["checkpoint"] = taken(folder)
                self._write(folder)

    def _write(self, folder: Path) -> None:
        write_text(folder / "run.json", json.dumps(self._record, indent=2, ensure_ascii=False) + "\n")


def taken(folder: Path) -> dict[str, Any] | None:
    """What `load_model(folder)` takes, see `ssl_audio.utils.checkpoints.origin`; None if there is no checkpoint."""
    found = checkpoints(folder)
    return origin(found[0], read_weights(found[0])) if found else None


def final_summary(folder: Path, checkpoint: dict[str, Any] | None) -> str:
    """Where everything is, and what to type next."""
    lines = ["", f"run folder       {folder}"]
    if checkpoint:
        lines.append(f"its model        {folder}/{origin_text(checkpoint)}")
    load = f"import ssl_audio; print(ssl_audio.load_model({os.fspath(folder)!r}).embed('voice.wav'))"
    lines += [
        f"loss curve       {folder / 'plots' / 'loss.png'}",
        "",
        "next:",
        f"  ssl-audio eval -m {_word(folder)} -r DATA_ROOT -d DATASET -meta METADATA_ROOT",
        f'  python -c "{load}"' if not set('"$`\\!') & set(load) else f"  python -c {shlex.quote(load)}",
        f"  tensorboard --logdir {_word(folder.parent)}",
    ]
    last = folder / "checkpoints" / "last.ckpt"
    if last.exists():
        lines.append(
            f"  ssl-audio train --config {_word(folder / 'config.yaml')} --ckpt_path {_word(last)}    # train on"
        )
    return "\n".join(lines)


def _word(path: Path) -> str:
    return shlex.quote(os.fspath(path))  # one word for the shell, also with spaces


def best_checkpoint(trainer: Trainer) -> str | None:
    """Path of the checkpoint with the best value of its monitored metric, if one was saved."""
    for callback in trainer.checkpoint_callbacks:
        path = callback.best_model_path if isinstance(callback, ModelCheckpoint) and callback.monitor else ""
        if path and os.path.isfile(path):  # a run that is continued elsewhere knows a path which may not be there
            return path
    return None


def plot_losses(metrics: Path, target: Path) -> None:
    """Training and validation loss over steps; nothing when there is no metrics file yet."""
    if not metrics.is_file():
        return
    import csv

    from matplotlib.figure import Figure

    with open(metrics, newline="") as file:
        rows = list(csv.DictReader(file))
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for key, label, style in (
        ("loss/train_step", "training, step", {"alpha": 0.35, "linewidth": 0.8}),
        ("loss/train_epoch", "training, epoch mean", {"marker": "."}),
        ("loss/val", "validation", {"marker": "."}),
    ):
        points = [(int(row["step"]), float(row[key])) for row in rows if row.get(key)]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, **style)
    axes.set(xlabel="step", ylabel="loss")
    if axes.lines:
        axes.legend(frameon=False)
    with write_atomically(target) as temporary:
        figure.savefig(temporary, dpi=120)
