"""The metrics of a report as files: metrics.json and CSV tables."""

import csv
import io
import json
import time
from pathlib import Path
from typing import Any

from ssl_audio.evaluation.comparison import Comparison, Evaluation
from ssl_audio.evaluation.report.leaderboard import Entry
from ssl_audio.provenance import git_state, versions
from ssl_audio.utils.files import write_text


def write_metrics(
    path: Path, evaluations: list[Evaluation], comparisons: list[Comparison], settings: dict[str, Any]
) -> None:
    """Write metrics.json.

    Its keys are `created`, `models` ({model: {data set: metrics}}), `comparisons` (the paired tests), `settings`,
    `versions` and `git`.
    """
    models: dict[str, dict[str, Any]] = {}
    for evaluation in evaluations:
        models.setdefault(evaluation.model, {})[evaluation.test_set.name] = evaluation.metrics()
    content = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "models": models,
        "comparisons": [
            {"data_set": c.test_set, "first": c.first, "second": c.second, **c.test.__dict__} for c in comparisons
        ],
        "settings": settings,
        "versions": versions(),
        "git": git_state(),
    }
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_tables(
    output: Path, evaluations: list[Evaluation], comparisons: list[Comparison], board: list[Entry]
) -> None:
    """Write the CSV tables of a report folder."""
    plain = [name for name in evaluations[0].verification.metrics() if not name.endswith("_interval")]
    ranged = ["eer", "min_dcf", "cllr", "mnr"]
    rows, singers, classes, retrieved = [], [], [], []
    for e in evaluations:
        metrics = e.verification.metrics()
        ends = [end for name in ranged for end in (metrics[f"{name}_interval"] or ("", ""))]
        accuracy = e.probe.metrics.summary["accuracy"] if e.probe else ""
        rows.append([e.model, e.test_set.name, *(metrics[name] for name in plain), *ends, accuracy])
        singers += [[e.model, e.test_set.name, name, value] for name, value in e.singer_eer.items()]
        for name, values in (e.probe.metrics.per_class if e.probe else {}).items():
            classes.append([e.model, e.test_set.name, name, *values.values()])
        retrieved += [[e.model, e.test_set.name, task, *found.values()] for task, found in e.retrieval.items()]
    bounds = [f"{name}_{end}" for name in ranged for end in ("low", "high")]
    _write_csv(output / "figures.csv", ["model", "data_set", *plain, *bounds, "probe_accuracy"], rows)
    _write_csv(output / "per_singer.csv", ["model", "data_set", "singer", "eer"], singers)
    header = ["model", "data_set", "singer", "precision", "recall", "f1", "roc_auc", "average_precision"]
    _write_csv(output / "probe_per_class.csv", header, classes)
    header = ["model", "data_set", "task", *next((t for e in evaluations for t in e.retrieval.values()), {})]
    _write_csv(output / "retrieval.csv", header, retrieved)
    header = ["data_set", "model", "against", "eer_difference", "low", "high", "p_value"]
    pairs = [[c.test_set, c.first, c.second, c.test.difference, *c.test.interval, c.test.p_value] for c in comparisons]
    _write_csv(output / "comparisons.csv", header, pairs)
    header = ["data_set", "trials", "model", "score", "eer", "eer_low", "eer_high", "mnr", "report", "created"]
    entries = [
        [e.data_set, e.trials, e.model, e.score, e.eer, *(e.eer_interval or ("", "")), e.mnr, e.report, e.created]
        for e in board
    ]
    _write_csv(output / "leaderboard.csv", header, entries)


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    write_text(path, text.getvalue())
