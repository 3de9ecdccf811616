"""One logger for a run: TensorBoard events and `metrics.csv` in the same numbered folder."""

import csv
import io
import os
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

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
