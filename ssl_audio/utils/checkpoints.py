"""The checkpoints of a run folder: which one is taken, and what it says of itself."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_audio.errors import InputError


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run folder: first the best according to run.json, then the last, then the others by age."""
    found = [*folder.glob("checkpoints/*.ckpt"), *folder.glob("*.ckpt")]
    best = None
    if (folder / "run.json").is_file():
        try:
            best = json.loads((folder / "run.json").read_text(encoding="utf-8")).get("best_checkpoint")
        except (ValueError, AttributeError) as error:
            raise InputError(
                f"{folder / 'run.json'}: damaged; give the path of a checkpoint, or delete this file"
            ) from error
    rank = {"best": 1, "last": 2}

    def order(path: Path) -> tuple[int, float]:
        is_best = best is not None and path == folder / best
        return 0 if is_best else rank.get(path.stem.split("-")[0], 3), -path.stat().st_mtime

    return sorted(found, key=order)


def origin(path: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of itself, as plain data.

    Args:
        path: of the checkpoint.
        content: of the checkpoint.

    Returns:
        {"file": "checkpoints/best.ckpt", "step": 700, "epoch": 12, "metric": "verification/eer", "value": 0.173,
        "chosen": True}. The step and the epoch are None if the file is no checkpoint of a training, the metric and its
        value are None if none was measured at this step. `chosen` tells whether it was kept for this value.
    """
    found: dict[str, Any] = {
        "file": f"{path.parent.name}/{path.name}" if path.parent.name == "checkpoints" else path.name,
        "step": content.get("global_step"),
        "epoch": content.get("epoch"),
        "metric": None,
        "value": None,
        "chosen": False,
    }
    for key, state in (content.get("callbacks") or {}).items():  # what kept it: the callback that has its name
        if (
            key.endswith(f"{{'filename': {path.stem!r}}}")
            and state.get("monitor")
            and state["current_score"] is not None
        ):
            return found | {"metric": state["monitor"], "value": float(state["current_score"]), "chosen": True}
    metric = content.get("metric")
    if metric:
        found |= {"metric": metric["name"], "value": metric["value"]}
    return found


def origin_text(found: Mapping[str, Any]) -> str:
    """A line about a checkpoint, from what `origin` returns.

    >>> origin_text({"file": "best.ckpt", "step": 700, "epoch": 12, "metric": "loss/val", "value": 2, "chosen": True})
    'best.ckpt of step 700, chosen by loss/val (2.0000)'
    """
    text = f"{found['file']} of step {found['step']}"
    if found["metric"] is None:
        return f"{text}, not chosen by a metric"
    if not found["chosen"]:
        return f"{text}, not chosen by a metric; {found['metric']} is {found['value']:.4f}"
    return f"{text}, chosen by {found['metric']} ({found['value']:.4f})"
