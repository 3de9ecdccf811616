"""Handing a model over: a model card, and the Hugging Face Hub."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from ssl_audio.errors import InputError, first_line
from ssl_audio.hub.saved import CARD, CONFIG, WEIGHTS, load_path
from ssl_audio.model import EmbeddingModel

TRAINING = "training.yaml"  # a run's resolved config, where it lies beside the model
_FIGURES = {"eer": "equal error rate", "min_dcf": "minDCF (prior .01)", "mnr": "mean normalised rank"}

Metrics = str | os.PathLike | Sequence[Mapping[str, Any]] | None


def push_to_hub(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    licence: str | None = None,
    data: str | None = None,
    training: str | os.PathLike | None = None,
    metrics: Metrics = None,
    message: str = "Upload model",
) -> str:
    """Upload a saved model with its card, in one commit; the repository is made if it is not there.

    Args:
        folder: what `save_model` or `ssl-audio convert` wrote: `config.yaml` and `model.safetensors`. A `model.ts` and
            a `training.yaml` in it go along.
        repo_id: `owner/name` on the Hub; `load_model("owner/name")` then loads it.
        private: make a new repository private.
        token: of the Hub, with the right to write; by default the one of `hf auth login`.
        licence: of the weights, as the Hub names it ("mit", "cc-by-nc-4.0", ...).
        data: what the model was trained on, in a sentence or more.
        training: the run's `config.yaml`, shown in the card; by default `training.yaml` in the folder.
        metrics: results with intervals: the JSON record that `ssl-audio eval` writes, or its list of results,
            `{"dataset": ..., "eer": ..., "eer_interval": [low, high], ...}`.
        message: of the commit.

    Returns:
        The address of the repository.

    Raises:
        InputError: the folder does not hold a model that loads, the name or the token is wrong, or the Hub is out of
            reach. Nothing is uploaded then.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, errors

    folder = Path(folder)
    if not folder.is_dir() or not ((folder / CONFIG).is_file() and (folder / WEIGHTS).is_file()):
        raise InputError(f"{folder} holds no {CONFIG} and {WEIGHTS}; write them with save_model or ssl-audio convert")
    model = load_path(folder, projection=False, trusted=True)
    card = model_card(model, repo_id, licence, data, training or folder / TRAINING, metrics)
    files: dict[str, Path | bytes] = {name: folder / name for name in (CONFIG, WEIGHTS, TRAINING, "model.ts")}
    files = {name: path for name, path in files.items() if isinstance(path, Path) and path.is_file()}
    files[CARD] = card.encode()
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    api = HfApi(token=token)
    try:
        url = api.create_repo(repo_id, private=private, exist_ok=True)
        api.create_commit(repo_id, operations, commit_message=message)
    except errors.HFValidationError as error:
        raise InputError(f"{repo_id!r} is not a name on the Hub; give owner/name") from error
    except errors.LocalTokenNotFoundError as error:
        raise InputError("pushing needs a token; pass token=... or log in with: hf auth login") from error
    except errors.HfHubHTTPError as error:  # before the general kind below
        status = getattr(error.response, "status_code", None)
        if status in (401, 403):
            raise InputError(
                f"the Hub refuses to write {repo_id}: the token is missing, wrong or may only read"
            ) from error
        raise InputError(f"the Hub did not take {repo_id}: {first_line(error)}") from error
    except (getattr(errors, "HTTPError", OSError), OSError) as error:
        raise InputError(f"the Hub cannot be reached, nothing was uploaded: {first_line(error)}") from error
    return str(url)


def model_card(
    model: EmbeddingModel,
    name: str,
    licence: str | None = None,
    data: str | None = None,
    training: str | os.PathLike | None = None,
    metrics: Metrics = None,
) -> str:
    """The card `README.md`: front matter that the Hub reads, usage, training, data, results with intervals, licence.

    Arguments are those of `push_to_hub`; `name` is the id under which the model will be loaded.

    Raises:
        InputError: the metrics are not what `ssl-audio eval` writes.
    """
    results = _results(metrics)
    front: dict[str, Any] = {
        "license": licence or "unknown",
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
    parameters = sum(parameter.numel() for parameter in model.parameters())
    encoder, frontend = type(model.encoder).__name__, type(model.frontend).__name__
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True).strip()}
---
# {name.rpartition("/")[2]}

{encoder} on {frontend}, {parameters:,} parameters: audio at {model.sample_rate} Hz in, a vector of {model.dim} numbers
out. The shortest clip is {model.minimum_samples / model.sample_rate:.3f} s. A clip's embedding does not depend on its
batch.

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
        raise InputError(f"{source}: needs a list of results, each with 'dataset' and figures such as 'eer'")
    return [dict(row) for row in rows]


def _figures(row: Mapping[str, Any]) -> list[tuple[str, float, Sequence[float] | None]]:
    """(key, value, interval) of every figure of a data set that was computed."""
    return [(key, row[key], row.get(f"{key}_interval")) for key in _FIGURES if row.get(key) is not None]


def _index_entry(row: Mapping[str, Any]) -> dict[str, Any]:
    name = str(row["dataset"])
    return {
        "task": {"type": "audio-classification", "name": "verification"},
        "dataset": {"type": name, "name": name},
        "metrics": [{"type": key, "name": _FIGURES[key], "value": float(value)} for key, value, _ in _figures(row)],
    }


def _result_table(results: Sequence[Mapping[str, Any]]) -> str:
    if not results:
        return "Not measured."
    lines = ["| data | figure | value | 95 % interval | trials |", "|---|---|---|---|---|"]
    for row in results:
        for key, value, interval in _figures(row):
            between = f"{interval[0]:.4f} to {interval[1]:.4f}" if interval else ""
            lines.append(
                f"| {row['dataset']} | {_FIGURES[key]} | {value:.4f} | {between} | {row.get('n_trials', '')} |"
            )
    return "\n".join(lines)
