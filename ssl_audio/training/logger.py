"""One logger for a run: TensorBoard events and `metrics.csv` in the same numbered folder."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_text


class RunLogger(TensorBoardLogger):
    """Writes to `save_dir/name/version`.

    `metrics.csv` has one row for each logged step; columns are added as metrics appear. It is rewritten at every
    tenth row and whenever the trainer saves its loggers.

    Args:
        save_dir: folder of all runs.
        name: of the kind of run, usually the method's name.
        version: name of this run's folder; None takes the next free number.
    """

    def __init__(self, save_dir: str = "runs", name: str = "run", version: str | None = None) -> None:
        self._rows: list[dict[str, Any]] = []
        self._unsaved = 0
        super().__init__(save_dir, name=name, version=version, default_hp_metric=False)

    @property
    def version(self) -> str:
        """The name of the run's folder: given, or the next free number, which is reserved by making the folder."""
        if self._version is None:
            self._version = claim_number(self.root_dir)
        return str(self._version)

    def check_free(self, checkpoint: str | None) -> None:
        """Refuse a folder that holds a run, unless this run continues it.

        Args:
            checkpoint: from which the run continues.

        Raises:
            InputError: another run would be replaced.
        """
        folder = Path(self.root_dir, str(self._version))
        if self._version is None or not (folder / "run.json").is_file():
            return
        last = folder / "checkpoints" / "last.ckpt"
        if checkpoint is None or folder.resolve() not in Path(checkpoint).resolve().parents:
            raise InputError(
                f"{folder} holds a run already; give another --trainer.logger.version, or continue that run with "
                f"--ckpt_path {last}"
            )

    def keep_rows(self, steps: int) -> None:
        """Take over the rows that an earlier part of this run wrote to metrics.csv before step `steps`."""
        path = Path(self.log_dir, "metrics.csv")
        if self._rows or not path.is_file():
            return
        with open(path, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row.get("step") and int(row["step"]) < steps:
                    self._rows.append({k: int(v) if k == "step" else float(v) for k, v in row.items() if v})

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, Any], step: int | None = None) -> None:  # type: ignore[override]
        super().log_metrics(metrics, step)
        row = {"step": step, **{key: float(value) for key, value in metrics.items()}}
        if self._rows and self._rows[-1]["step"] == step:
            self._rows[-1].update(row)
        else:
            self._rows.append(row)
        self._unsaved += 1
        if self._unsaved >= 10:
            self.save()

    @rank_zero_only
    def save(self) -> None:
        self.experiment.flush()
        if not self._unsaved:
            return
        columns = {"epoch": None, "step": None} | {key: None for row in self._rows for key in row}
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(columns))
        writer.writeheader()
        writer.writerows(self._rows)
        write_text(os.path.join(self.log_dir, "metrics.csv"), text.getvalue())
        self._unsaved = 0


def claim_number(parent: str | os.PathLike[str]) -> str:
    """The next free number of a folder of runs, reserved by making its folder; "pending" on all ranks but the first."""
    if getattr(rank_zero_only, "rank", 0) != 0:
        return "pending"
    folder = Path(parent)
    folder.mkdir(parents=True, exist_ok=True)
    number = max((int(path.name) for path in folder.iterdir() if path.name.isdigit()), default=-1) + 1
    while True:
        try:
            (folder / str(number)).mkdir()
            return str(number)
        except FileExistsError:  # another run started at the same moment
            number += 1
