"""The metrics of a report as files: metrics.json and CSV tables."""

import csv
import io
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ssl_audio.evaluation.comparison import Arm, Comparison, Evaluation
from ssl_audio.evaluation.metrics import CONVENTIONS
from ssl_audio.evaluation.report.leaderboard import Entry
from ssl_audio.provenance import git_state, versions
from ssl_audio.utils.files import write_text

_COSTS = ("parameters", "dim", "embedding_bytes", "seconds_per_hour", "licence")


def write_metrics(
    path: Path,
    evaluations: list[Evaluation],
    comparisons: list[Comparison],
    settings: dict[str, Any],
    arms: Sequence[Arm] = (),
) -> None:
    """Write metrics.json.

    Its keys are `created`, `models` ({model: {data set: metrics}}), `comparisons` (the paired tests), `conditions` (the
    metrics of each model under each condition, a list), `conventions` (what the metrics mean), `settings`, `versions`
    and `git`.
    """
    models: dict[str, dict[str, Any]] = {}
    for evaluation in evaluations:
        models.setdefault(evaluation.model, {})[evaluation.test_set.name] = evaluation.metrics()
    content = {
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "models": models,
        "comparisons": [
            {"data_set": c.test_set, "condition": c.condition, "first": c.first, "second": c.second, **c.test.__dict__}
            for c in comparisons
        ],
        "conditions": [arm.metrics() for arm in arms],
        "conventions": CONVENTIONS,
        "settings": settings,
        "versions": versions(),
        "git": git_state(),
    }
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def write_tables(
    output: Path,
    evaluations: list[Evaluation],
    comparisons: list[Comparison],
    board: list[Entry],
    arms: Sequence[Arm] = (),
) -> None:
    """Write the CSV tables of a report folder."""
    plain = [name for name in evaluations[0].verification.metrics() if not name.endswith("_interval")]
    ranged = ["eer", "min_dcf", "cllr", "mnr"]
    rows, singers, classes, retrieved = [], [], [], []
    for e in evaluations:
        metrics = e.verification.metrics()
        ends = [end for name in ranged for end in (metrics[f"{name}_interval"] or ("", ""))]
        accuracy = e.probe.metrics.summary["accuracy"] if e.probe else ""
        cost = e.cost.summary() if e.cost else dict.fromkeys(_COSTS, "")
        costs = ["" if cost[name] is None else cost[name] for name in _COSTS]
        rows.append([e.model, e.test_set.name, *(metrics[name] for name in plain), *ends, accuracy, *costs])
        singers += [[e.model, e.test_set.name, name, value] for name, value in e.singer_eer.items()]
        for name, values in (e.probe.metrics.per_class if e.probe else {}).items():
            classes.append([e.model, e.test_set.name, name, *values.values()])
        retrieved += [[e.model, e.test_set.name, task, *found.values()] for task, found in e.retrieval.items()]
    bounds = [f"{name}_{end}" for name in ranged for end in ("low", "high")]
    _write_csv(output / "figures.csv", ["model", "data_set", *plain, *bounds, "probe_accuracy", *_COSTS], rows)
    _write_csv(output / "per_singer.csv", ["model", "data_set", "singer", "eer"], singers)
    header = ["model", "data_set", "singer", "precision", "recall", "f1", "roc_auc", "average_precision"]
    _write_csv(output / "probe_per_class.csv", header, classes)
    header = ["model", "data_set", "task", *next((t for e in evaluations for t in e.retrieval.values()), {})]
    _write_csv(output / "retrieval.csv", header, retrieved)
    header = ["data_set", "model", "against", "eer_difference", "low", "high", "p_value", "condition"]
    pairs = [
        [c.test_set, c.first, c.second, c.test.difference, *c.test.interval, c.test.p_value, c.condition]
        for c in comparisons
    ]
    _write_csv(output / "comparisons.csv", header, pairs)
    _write_conditions(output / "conditions.csv", arms)
    header = ["data_set", "trials", "model", "score", "eer", "eer_low", "eer_high", "mnr", "report", "created"]
    entries = [
        [e.data_set, e.trials, e.model, e.score, e.eer, *(e.eer_interval or ("", "")), e.mnr, e.report, e.created]
        for e in board
    ]
    _write_csv(output / "leaderboard.csv", header, entries)


def _write_conditions(path: Path, arms: Sequence[Arm]) -> None:
    """The table of the conditions; without any, a table of an earlier report is removed."""
    if not arms:
        path.unlink(missing_ok=True)
        return
    header = ["data_set", "condition", "model", "eer", "low", "high", "min_dcf", "min_dcf_05"]
    rows = []
    for arm in arms:
        v = arm.verification
        values = [v.eer, *(v.eer_interval or ("", "")), v.min_dcf, v.min_dcf_05, arm.change.difference]
        rows.append([arm.test_set.name, arm.condition, arm.model, *values, *arm.change.interval, arm.change.p_value])
    _write_csv(path, [*header, "change", "change_low", "change_high", "p_value"], rows)


def _write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([f"{cell:.6g}" if isinstance(cell, float) else cell for cell in row] for row in rows)
    write_text(path, text.getvalue())
