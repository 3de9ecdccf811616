"""The model card: description, use, results, training data, training configuration and licence of a model."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ssl_audio.errors import InputError, first_line
from ssl_audio.level import level_name
from ssl_audio.model import UNKNOWN_LICENCE, EmbeddingModel
from ssl_audio.utils.checkpoints import origin_text

_METRICS = {"eer": "equal error rate", "min_dcf": "minDCF (prior .01)", "mnr": "mean normalised rank"}

_LEVELS = {"peak": "each clip is scaled to a peak of 1", "none": "clips are taken as they are"}

Metrics = str | os.PathLike | Sequence[Mapping[str, Any]] | None


def model_card(
    model: EmbeddingModel,
    name: str,
    licence: str | None = None,
    data: str | None = None,
    training: str | os.PathLike | None = None,
    metrics: Metrics = None,
) -> str:
    """The text of `README.md`, with the front matter that the Hub reads.

    Args:
        model: the model.
        name: the id that loads the model.
        licence: see `push_to_hub`; default: the licence of the model.
        data: see `push_to_hub`.
        training: see `push_to_hub`.
        metrics: see `push_to_hub`.

    Raises:
        InputError: the metrics have another format than `ssl-audio eval` writes.
    """
    results = _results(metrics)
    if licence is None and model.licence != UNKNOWN_LICENCE:
        licence = model.licence
    front: dict[str, Any] = {
        "license": licence or UNKNOWN_LICENCE,
        "library_name": "ssl-audio",
        "pipeline_tag": "feature-extraction",
        "tags": ["audio", "embedding", "self-supervised", type(model.encoder).__name__],
    }
    if results:
        front["model-index"] = [{"name": name.rpartition("/")[2], "results": [_index_entry(row) for row in results]}]
    config = Path(training) if training is not None else None
    how = (
        f"```yaml\n{config.read_text(encoding='utf-8').strip()}\n```"
        if config and config.is_file()
        else "Not recorded."
    )
    origin = f"- Checkpoint: {origin_text(model.checkpoint)}.\n" if model.checkpoint else ""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    encoder, frontend = type(model.encoder).__name__, type(model.frontend).__name__
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()}
---
# {name.rpartition("/")[2]}

- Network: {encoder} on {frontend}, {parameters:,} parameters.
- Input: mono audio at {model.sample_rate} Hz, at least {model.minimum_samples / model.sample_rate:.3f} s.
- Level: {_LEVELS.get(level_name(model.level), "set by " + level_name(model.level))}.
- Output: an embedding of {model.dim} numbers. The embedding of a clip does not depend on the other clips of its batch.
{origin}
## Use

```python
from ssl_audio import load_model

model = load_model("{name}")
embedding = model.embed("clip.wav")  # ({model.dim},), any rate and format
```

```
ssl-audio embed recordings --model {name} --output embeddings.parquet
```

## Results

{_result_table(results)}

## Training data

{data or "Not described."}

## Training

{how}

## Licence

{licence or "Not stated. Ask before you use the weights."}
"""


def _results(metrics: Metrics) -> list[dict[str, Any]]:
    if metrics is None:
        return []
    source = "metrics"
    if isinstance(metrics, (str, os.PathLike)):
        source = os.fspath(metrics)
        try:
            metrics = json.loads(Path(metrics).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{source}: cannot be read as JSON: {first_line(error)}") from error
    rows = metrics.get("results") if isinstance(metrics, Mapping) else metrics
    if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Mapping) and "dataset" in row for row in rows):
        raise InputError(f"{source}: needs a list of results, each with 'dataset' and metrics such as 'eer'")
    return [dict(row) for row in rows]


def _metrics(row: Mapping[str, Any]) -> list[tuple[str, float, Sequence[float] | None]]:
    """(key, value, interval) of every metric in the results of a data set."""
    return [(key, row[key], row.get(f"{key}_interval")) for key in _METRICS if row.get(key) is not None]


def _index_entry(row: Mapping[str, Any]) -> dict[str, Any]:
    name = str(row["dataset"])
    return {
        "task": {"type": "audio-classification", "name": "verification"},
        "dataset": {"type": name, "name": name},
        "metrics": [{"type": key, "name": _METRICS[key], "value": float(value)} for key, value, _ in _metrics(row)],
    }


def _result_table(results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return "Not measured."
    lines = ["| data | metric | value | 95 % interval | trials |", "|---|---|---|---|---|"]
    for row in results:
        for key, value, interval in _metrics(row):
            between = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
            lines.append(
                f"| {row['dataset']} | {_METRICS[key]} | {value:.4f} | {between} | {row.get('n_trials', '')} |"
            )
    return "\n".join(lines)


def card_licence(path: str | os.PathLike) -> str:
    """The licence in the front matter of a card `README.md`; "unknown" if there is no card or it names no licence."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return UNKNOWN_LICENCE
    start, _, rest = text.partition("---\n")
    front, end, _ = rest.partition("\n---")
    if start.strip() or not end:
        return UNKNOWN_LICENCE
    try:
        found = yaml.safe_load(front)
    except yaml.YAMLError:
        return UNKNOWN_LICENCE
    if not isinstance(found, Mapping):
        return UNKNOWN_LICENCE
    licence = found.get("license")
    if licence == "other":
        licence = found.get("license_name") or licence
    names = licence if isinstance(licence, list) else [licence]
    return ", ".join(str(name) for name in names if name) or UNKNOWN_LICENCE
