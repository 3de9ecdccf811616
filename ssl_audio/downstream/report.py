"""Results of probes: a text table, JSON and CSV files, and a plot of the confusion matrices."""

import csv
import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.downstream.tasks import Task
from ssl_audio.evaluation.probes import ProbeResult
from ssl_audio.provenance import versions
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.plotting import literal_text_style

METRICS = ("accuracy", "balanced_accuracy", "precision", "recall", "f1", "roc_auc", "average_precision")


@dataclass(frozen=True)
class Row:
    """Result of one model on a task."""

    model: str
    baseline: bool
    result: ProbeResult


def table(rows: Sequence[Row]) -> str:
    """The results as a text table, in per cent.

    A result of one seed has its 95 % interval. Results of several seeds are shown as mean and standard deviation.
    """
    lines = [f"{'model':<24}{'labels':>8}" + "".join(f"{name:>22}" for name in METRICS)]
    for (model, fraction), group in _by_seeds(rows).items():
        cells = []
        for name in METRICS:
            values = [100 * row.result.metrics.summary[name] for row in group]
            low, high = group[0].result.metrics.intervals.get(name, (np.nan, np.nan))
            spread = f"[{100 * low:.1f}, {100 * high:.1f}]" if len(values) == 1 else f"± {np.std(values, ddof=1):.1f}"
            cells.append(f"{np.mean(values):.1f} {spread}")
        lines.append(f"{model:<24}{100 * fraction:>6.3g} %" + "".join(f"{cell:>22}" for cell in cells))
    for difference in differences(rows):
        if difference["label_fraction"] == 1:
            value, low, high = (100 * number for number in difference["accuracy"])
            lines.append(f"accuracy against {difference['other']}: {value:+.1f} [{low:+.1f}, {high:+.1f}], paired")
    return "\n".join(lines)


def differences(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Differences between the model and each baseline, with paired 95 % intervals.

    Two results are compared if they have the same tested files, label fraction and seed, and if they have intervals.

    Returns:
        {"model", "other", "label_fraction", "seed", metric: [difference, low, high]} of each pair.
    """
    found = []
    for ours in (row for row in rows if not row.baseline):
        for other in (row for row in rows if row.baseline):
            a, b = ours.result, other.result
            same = (a.label_fraction, a.seed) == (b.label_fraction, b.seed) and np.array_equal(a.tested, b.tested)
            if same and a.metrics.resampled and b.metrics.resampled:
                name: dict[str, Any] = {"model": ours.model, "other": other.model}
                name |= {"label_fraction": a.label_fraction, "seed": a.seed}
                for metric in METRICS:
                    value, bounds = a.metrics.difference(b.metrics, metric)
                    name[metric] = [value, *bounds]
                found.append(name)
    return found


def write_probe_report(folder: Path, task: Task, rows: Sequence[Row], settings: dict[str, Any]) -> None:
    """Write the results of probes.

    - `probe.json` and `figures.csv`: the metrics of all rows.
    - `classification_report.json`, `scores.npz` and `confusion.png`: of the rows with all labels. A multi-label task
      has no confusion matrix.

    Args:
        folder: where to write.
        task: the task.
        rows: results.
        settings: settings of the probes, for `probe.json`.
    """
    record = {
        "task": task.name,
        "split": task.split_name,
        "notes": list(task.notes),
        "files": len(task.files.paths),
        "classes": task.files.classes,
        "settings": settings,
        "versions": versions(),
        "differences": differences(rows),
        "results": [{"model": row.model, "baseline": row.baseline, **row.result.summary()} for row in rows],
    }
    write_text(folder / "probe.json", json.dumps(record, indent=1, ensure_ascii=False))
    write_text(folder / "figures.csv", _csv(rows))
    whole = [row for row in rows if row.result.label_fraction == 1]
    if whole:
        reports = {row.model: classification_report(task, row.result) for row in whole}
        write_text(folder / "classification_report.json", json.dumps(reports, indent=1, ensure_ascii=False))
        with write_atomically(folder / "scores.npz") as temporary, open(temporary, "wb") as file:
            scores: dict[str, Any] = {_plain(row.model): row.result.scores for row in whole}
            np.savez_compressed(file, classes=task.files.classes, tested=whole[0].result.tested, **scores)
        if whole[0].result.metrics.confusion is not None:
            write_confusion(folder / "confusion.png", whole)


def classification_report(task: Task, result: ProbeResult) -> dict[str, Any]:
    """scikit-learn's classification report: precision, recall, f1-score and support per class, and their averages."""
    from sklearn.metrics import classification_report as report

    truth = task.files.targets[result.tested]
    decided = result.scores > 0.5 if truth.ndim == 2 else result.scores.argmax(axis=1)
    numbers = list(range(len(result.classes)))
    return report(truth, decided, labels=numbers, target_names=result.classes, output_dict=True, zero_division=0)


@literal_text_style()
def write_confusion(path: Path, rows: Sequence[Row]) -> None:
    """Draw the confusion matrices of single-label results; one panel per model."""
    from ssl_audio.evaluation.report.plots import Confusion, confusion_figure

    figure = confusion_figure([Confusion.of(row.model, row.result) for row in rows], "true class")
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=120)


def _csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    bounds = [f"{name}_{end}" for name in METRICS for end in ("low", "high")]
    writer.writerow(["model", "baseline", "kind", "label_fraction", "seed", "n_train", "n_test", *METRICS, *bounds])
    for row in rows:
        result = row.result
        head = [row.model, row.baseline, result.kind, result.label_fraction, result.seed, result.n_train, result.n_test]
        intervals = [end for name in METRICS for end in result.metrics.intervals.get(name, ("", ""))]
        writer.writerow([*head, *(result.metrics.summary[name] for name in METRICS), *intervals])
    return text.getvalue()


def _by_seeds(rows: Sequence[Row]) -> dict[tuple[str, float], list[Row]]:
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.model, row.result.label_fraction), []).append(row)
    return groups


def _plain(name: str) -> str:
    return re.sub(r"\W+", "_", name)
