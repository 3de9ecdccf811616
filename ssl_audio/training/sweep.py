"""Many trainings that differ in a few keys, and one table of their results.

A sweep file has `stack`, a list of config names as for `--config`, and the differences: `runs`, names with their keys,
or `grid`, keys with lists of values, of which all combinations are run.

    stack: [common, wavebyol, data/folder]
    runs:
      h2: {}
      h1: {model.encoder.layout: h1, data.batch_size: 128}
      no-reverb: {model.augmentation.transforms: {without: [Reverb]}, model.augmentation.maximum: 4}
    grid:
      model.encoder.input_norm: [rms, l2]

A list of classes can be given as `{without: [Class]}` or `{only: [Class]}`, relative to the list of the stack.

Each run is the train command in a process of its own, in the folder `output/<run>`; its output goes to `log.txt` there.
The folders alone tell which runs are finished, so that an interrupted sweep continues, and several machines that see
the same folders can share a sweep.
"""

import csv
import io
import itertools
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from ssl_audio.errors import InputError, suggest
from ssl_audio.training.config import Config, load_config, shorten
from ssl_audio.training.config_files import find_config
from ssl_audio.utils.files import write_text
from ssl_audio.utils.yaml_files import read_yaml

RECIPE = "sweep.yaml"  # in a run's folder: the config that the sweep gave it
LOG = "log.txt"


class Run(NamedTuple):
    """One training of a sweep: its name, the keys in which it differs, and its complete config."""

    name: str
    changes: dict[str, Any]
    config: Config


class Outcome(NamedTuple):
    """How the process of a run ended; `reason` is its last line of output if it failed, else empty."""

    name: str
    reason: str


def read_sweep(name: str, files: Sequence[str] = (), overrides: Sequence[tuple[str, str]] = ()) -> list[Run]:
    """The runs of a sweep file, each config checked as training checks it.

    Args:
        name: path of the file, or the name of a packaged one: `sweeps/wavebyol`.
        files: configs stacked on those of the sweep, for all runs.
        overrides: such as ("trainer.max_epochs", "100"), for all runs; they win over the keys of a run.

    Raises:
        InputError: the file or a config is wrong; one line that names the run.
    """
    path = find_config(name)
    sweep = read_yaml(path)
    unknown = [key for key in sweep if key not in ("stack", "runs", "grid")]
    if unknown or not isinstance(sweep.get("stack"), list):
        what = f"{unknown[0]} is not a key of a sweep" if unknown else "no list 'stack' of configs"
        raise InputError(f"{path}: {what}; it holds stack, and runs or grid")
    runs = _named(path, sweep) | _combinations(path, sweep)
    if not runs:
        raise InputError(f"{path}: nothing to run; give runs (name: keys) or grid (key: list of values)")
    stack = [*map(str, sweep["stack"]), *files]
    base = load_config(stack, overrides)
    found = []
    for run, changes in runs.items():
        try:
            texts = [(key, json.dumps(_picked(base, key, value))) for key, value in changes.items()]
            found.append(Run(run, changes, load_config(stack, [*texts, *overrides])))
        except InputError as error:
            raise InputError(f"{path}, run {run}: {error}") from error
    return found


def _named(path: Path, sweep: Config) -> dict[str, dict[str, Any]]:
    runs = sweep.get("runs") or {}
    if not isinstance(runs, Mapping) or not all(isinstance(keys, Mapping | None) for keys in runs.values()):
        raise InputError(f"{path}: runs is {shorten(runs)}; expected a mapping of names, each with a mapping of keys")
    for name in runs:
        if not re.fullmatch(r"\w[\w.,=+-]*", str(name)) or str(name) == "report":
            raise InputError(f"{path}: a run named {name!r} cannot have a folder of that name; use letters and digits")
    return {str(name): dict(keys or {}) for name, keys in runs.items()}


def _combinations(path: Path, sweep: Config) -> dict[str, dict[str, Any]]:
    grid = sweep.get("grid") or {}
    if not isinstance(grid, Mapping) or not all(isinstance(values, list) for values in grid.values()):
        raise InputError(f"{path}: grid is {shorten(grid)}; expected a mapping of keys, each with a list of values")
    runs: dict[str, dict[str, Any]] = {}
    for values in itertools.product(*grid.values()) if grid else ():
        changes = dict(zip(grid, values, strict=True))
        words = [f"{key.rpartition('.')[2]}={value}" for key, value in changes.items()]
        name = re.sub(r"[^\w.,=+-]+", "-", ",".join(words))
        if name in runs:
            raise InputError(f"{path}: two runs of the grid are called {name}; name them under runs")
        runs[name] = changes
    return runs


def _picked(base: Config, key: str, value: Any) -> Any:
    """The value of a key, in which `{without: [...]}` and `{only: [...]}` pick from the list in the config."""
    if not isinstance(value, Mapping) or len(value) != 1 or not set(value) <= {"without", "only"}:
        return value
    there: Any = base
    for part in key.split("."):
        inside = there.get("init_args") if isinstance(there, Mapping) and "class_path" in there else there
        there = inside.get(part) if isinstance(inside, Mapping) else None
    ((how, names),) = value.items()
    if not isinstance(there, list) or not isinstance(names, list):
        raise InputError(f"{key}: {how} needs a list of names, and a list of classes in the stack to pick from")
    classes = [str(item.get("class_path")).rpartition(".")[2] for item in there]
    for name in names:
        if name not in classes:
            raise InputError(f"{key}: {name!r} is not in the list{suggest(str(name), classes)}")
    return [item for item, name in zip(there, classes, strict=True) if (name in names) == (how == "only")]


def is_finished(folder: Path) -> bool:
    """Whether the training of a run folder has ended: `run.json` then has the best checkpoint."""
    try:
        return "best_checkpoint" in json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def prepare(run: Run, output: Path) -> bool:
    """Make the run's folder with its config. Returns whether the run is still to be trained.

    Raises:
        InputError: the folder holds a run with another config.
    """
    folder, text = output / run.name, yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True)
    recipe = folder / RECIPE
    if recipe.is_file() and read_yaml(recipe) != yaml.safe_load(text):
        raise InputError(f"{folder} was made with another config; remove the folder, or give another --output")
    write_text(recipe, text)
    return not is_finished(folder)


def train(name: str, output: Path, environment: Mapping[str, str] | None = None) -> Outcome:
    """Train one prepared run in a process of its own, from its last checkpoint if it was interrupted.

    Args:
        output: folder of the sweep; on a cluster all machines must see it under this path.
        environment: variables beside those of this process.
    """
    folder = output / name
    logger = {"save_dir": str(output), "name": "", "version": name}
    logger_spec = {"class_path": "ssl_audio.training.logger.RunLogger", "init_args": logger}
    command = [sys.executable, "-m", "ssl_audio.cli", "train", "--config", str(folder / RECIPE)]
    command += ["--trainer.logger", json.dumps(logger_spec), "--trainer.enable_progress_bar", "false"]
    checkpoint = folder / "checkpoints" / "last.ckpt"
    if checkpoint.is_file():
        command += ["--ckpt_path", str(checkpoint)]
        _keep_metrics(folder)
    with open(folder / LOG, "a", encoding="utf-8") as log:
        # The recipe is complete: variables that `ssl-audio train` reads would change what the table says of a run.
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PL_FIT__")}
        variables = {**inherited, **(environment or {})}
        status = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT, env=variables).returncode
    if status == 0 and is_finished(folder):
        return Outcome(name, "")
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return Outcome(name, lines[-1] if lines else f"ended with status {status}")


def _keep_metrics(folder: Path) -> None:
    """Rename the metrics of an interrupted training, because the training that continues it writes only its own."""
    metrics = folder / "metrics.csv"
    if metrics.is_file():
        number = len(list(folder.glob("metrics.*.csv"))) + 1
        metrics.rename(folder / f"metrics.{number}.csv")


def read_metrics(folder: Path) -> dict[str, float]:
    """The validation metrics of a run: at the step of its checkpoint, as run.json names it, and at the end, as
    `<metric> last`. Without validation, the last training loss."""
    rows: dict[int, dict[str, str]] = {}
    earlier = sorted(folder.glob("metrics.*.csv"), key=lambda path: int(path.suffixes[0][1:]))
    for path in [*earlier, folder / "metrics.csv"]:
        if path.is_file():
            with open(path, newline="", encoding="utf-8") as file:
                rows |= {int(row["step"]): row for row in csv.DictReader(file)}
    points = [row for _, row in sorted(rows.items()) if row.get("loss/val")]
    if not points:
        losses = [row["loss/train_epoch"] for _, row in sorted(rows.items()) if row.get("loss/train_epoch")]
        return {"loss/train_epoch last": float(losses[-1])} if losses else {}
    step = _checkpoint_step(folder)
    if step is None:  # a run of 0.1, whose best checkpoint was the one of the least loss
        best = min(points, key=lambda row: float(row["loss/val"]))
    else:
        best = min(points, key=lambda row: abs(int(row["step"]) + 1 - step))
    wanted = [key for key in best if key.endswith("/val") or key.startswith("verification/")]
    at_best = {key: float(best[key]) for key in wanted if best[key]}
    return at_best | {f"{key} last": float(points[-1][key]) for key in wanted if points[-1][key]}


def _checkpoint_step(folder: Path) -> int | None:
    """The optimiser steps that the checkpoint of a run has behind it; None if run.json does not say."""
    try:
        record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
        return (record.get("checkpoint") or {}).get("step")
    except (OSError, ValueError):
        return None


def read_report(path: Path) -> dict[str, dict[str, float]]:
    """EER and mean normalised rank of each model and data set in an evaluation's `metrics.json`, with intervals."""
    models = json.loads(path.read_text(encoding="utf-8"))["models"]
    found: dict[str, dict[str, float]] = {}
    for model, sets in models.items():
        metrics = found.setdefault(model, {})
        for data, values in sets.items():
            for metric in ("eer", "mnr"):
                if values.get(metric) is not None:
                    metrics[f"{data}/{metric}"] = values[metric]
                    for end, bound in zip(("low", "high"), values.get(f"{metric}_interval") or (), strict=False):
                        metrics[f"{data}/{metric} {end}"] = bound
    return found


def gather(runs: Sequence[Run], output: Path, failed: Mapping[str, str], report: Path | None) -> list[dict[str, Any]]:
    """One row a run, then those of the baselines of the report, written to `output/table.csv`."""
    evaluated = read_report(report) if report else {}
    rows = []
    for run in runs:
        folder = output / run.name
        status = "finished" if is_finished(folder) else "failed" if run.name in failed else "unfinished"
        row: dict[str, Any] = {"run": run.name, "status": status}
        if status == "finished":
            record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
            row |= {"epochs": record["epochs"], "steps": record["steps"], "minutes": round(record["seconds"] / 60, 2)}
        row |= read_metrics(folder) | evaluated.pop(run.name, {})
        rows.append(row | {"changes": json.dumps(run.changes), "reason": failed.get(run.name, "")})
    rows += [{"run": name, "status": "baseline", **metrics} for name, metrics in evaluated.items()]
    columns = [key for row in rows for key in row if key not in ("changes", "reason")]
    with_last = [*dict.fromkeys(columns), "changes", "reason"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, with_last, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(output / "table.csv", text.getvalue())
    return rows


def format_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text for a terminal, one line for each run; intervals and last values are only in the CSV."""
    keys = dict.fromkeys(key for row in rows for key in row)
    hidden = {"changes", "reason", *(key for key in keys if key.endswith((" low", " high")))}
    hidden |= {f"{key} last" for key in keys}
    shown = [key for key in keys if key not in hidden]
    cells = [shown, *([_cell(row.get(key)) for key in shown] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(shown))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
