"""The leaderboard: results of all reports in one table. Rows with the same trials are comparable."""

import json
from dataclasses import dataclass
from pathlib import Path

METRICS = "metrics.json"


@dataclass(frozen=True)
class Entry:
    """Results of one model on one data set in one report.

    Attributes:
        data_set: name of the data set.
        trials: first 8 digits of the SHA-256 of the trials.
        model: name of the model.
        score: kind of score: "cosine", "z-norm", "s-norm" or "adaptive s-norm".
        eer: equal error rate.
        eer_interval: its 95 % interval.
        mnr: mean normalised rank.
        baseline: whether the model is a baseline.
        report: the report folder.
        created: time of the report, ISO 8601.
    """

    data_set: str
    trials: str
    model: str
    score: str
    eer: float
    eer_interval: tuple[float, float] | None
    mnr: float | None
    baseline: bool
    report: str
    created: str


def read_leaderboard(runs: Path, current: Path | None = None) -> list[Entry]:
    """Read the entries of every metrics.json below a folder.

    Files that are damaged or not from a report are skipped. Of several entries of one model on the same trials with the
    same metrics, the newest is used. A model with the same name and other metrics is another model (or was trained
    further) and has its own entry.

    Args:
        runs: the folder to search.
        current: a report folder that is included wherever it is.

    Returns:
        The entries in the order of data set and trials, the lowest EER first.
    """
    found: dict[tuple, Entry] = {}
    paths = sorted(runs.rglob(METRICS))
    if current is not None and (current / METRICS).resolve() not in {path.resolve() for path in paths}:
        paths.append(current / METRICS)
    for path in paths:
        for entry in _entries(path, runs):
            metrics = tuple(None if value is None else round(value, 4) for value in (entry.eer, entry.mnr))
            key = (entry.data_set, entry.trials, entry.model, entry.score, metrics)
            if key not in found or found[key].created <= entry.created:
                found[key] = entry
    return sorted(found.values(), key=lambda e: (e.data_set, e.trials, e.eer))


def _entries(path: Path, runs: Path) -> list[Entry]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [
            Entry(
                data_set=data_set,
                trials=metrics["trials_sha256"][:8],
                model=model,
                score=metrics.get("score", "cosine"),
                eer=float(metrics["eer"]),
                eer_interval=tuple(metrics["eer_interval"]) if metrics["eer_interval"] else None,
                mnr=metrics["mnr"],
                baseline=bool(metrics["baseline"]),
                report=(path.parent.relative_to(runs) if path.is_relative_to(runs) else path.parent).as_posix(),
                created=str(content["created"]),
            )
            for model, sets in content["models"].items()
            for data_set, metrics in sets.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
