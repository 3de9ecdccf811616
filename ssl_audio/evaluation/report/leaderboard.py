"""All past comparisons in one table: rows are comparable where their trials are the same."""

import json
from dataclasses import dataclass
from pathlib import Path

METRICS = "metrics.json"


@dataclass(frozen=True)
class Entry:
    """One model on one data set in one report folder. `trials`: start of their digest; `score`: cosine, s-norm, ..."""

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
    """Entries of every metrics.json below a folder, by data set and trials, the lowest EER first.

    The report folder `current` is among them wherever it lies.

    A file that is damaged or of something else is passed over. Of the same model on the same trials, the newest counts;
    one of the same name with other figures is another model, or was trained on, and has its own row.
    """
    found: dict[tuple, Entry] = {}
    paths = sorted(runs.rglob(METRICS))
    if current is not None and (current / METRICS).resolve() not in {path.resolve() for path in paths}:
        paths.append(current / METRICS)
    for path in paths:
        for entry in _entries(path, runs):
            figures = tuple(None if figure is None else round(figure, 4) for figure in (entry.eer, entry.mnr))
            key = (entry.data_set, entry.trials, entry.model, entry.score, figures)
            if key not in found or found[key].created <= entry.created:
                found[key] = entry
    return sorted(found.values(), key=lambda e: (e.data_set, e.trials, e.eer))


def _entries(path: Path, runs: Path) -> list[Entry]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return [
            Entry(
                data_set=data_set,
                trials=figures["trials_sha256"][:8],
                model=model,
                score=figures.get("score", "cosine"),
                eer=float(figures["eer"]),
                eer_interval=tuple(figures["eer_interval"]) if figures["eer_interval"] else None,
                mnr=figures["mnr"],
                baseline=bool(figures["baseline"]),
                report=(path.parent.relative_to(runs) if path.is_relative_to(runs) else path.parent).as_posix(),
                created=str(content["created"]),
            )
            for model, sets in content["models"].items()
            for data_set, figures in sets.items()
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
