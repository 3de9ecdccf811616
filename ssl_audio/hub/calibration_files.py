"""The calibration beside a model: `calibration.json`, and its arrays in `calibration.safetensors`.

`calibration.json` is written last and holds the digest of the arrays, so that half a calibration is never used.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.errors import InputError, first_line
from ssl_audio.evaluation.calibration import Calibration
from ssl_audio.evaluation.false_accepts import FalseAccepts
from ssl_audio.evaluation.model_calibration import ModelCalibration
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import made_by
from ssl_audio.utils.files import write_atomically, write_text

CALIBRATION, ARRAYS = "calibration.json", "calibration.safetensors"
FORMAT_VERSION = 1
_ARRAYS = ("refits", "people", "audio")


def write_calibration(calibration: ModelCalibration, folder: Path) -> None:
    """Write both files, each whole or not at all."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(getattr(calibration, name)) for name in _ARRAYS}
    if calibration.cohort is not None:
        arrays["cohort"] = np.ascontiguousarray(calibration.cohort, dtype=np.float32)
    content = save(arrays)
    table = {"format_version": FORMAT_VERSION, **calibration.table()}
    table["arrays_sha256"] = hashlib.sha256(content).hexdigest()
    remove_calibration(folder)
    with write_atomically(folder / ARRAYS) as temporary:
        temporary.write_bytes(content)
    write_text(folder / CALIBRATION, json.dumps(table, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def remove_calibration(folder: Path) -> None:
    """Remove both files, the table first."""
    for name in (CALIBRATION, ARRAYS):
        (folder / name).unlink(missing_ok=True)


def read_calibration(folder: Path, model: EmbeddingModel) -> ModelCalibration | None:
    """The calibration in a model's folder; None where there is none.

    Raises:
        InputError: it is damaged, of a newer format, or belongs to another model.
    """
    path = folder / CALIBRATION
    if not path.is_file():
        return None
    again = f"make it anew with ssl-audio calibrate --model {folder}, or delete {path.name}"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        version, recorded = int(table["format_version"]), str(table["model"])
        content = (folder / ARRAYS).read_bytes()
        whole = hashlib.sha256(content).hexdigest() == table["arrays_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); {again}") from error
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path} has format {version} and this release reads up to {FORMAT_VERSION}; pip install -U ssl-audio"
        )
    if not made_by(model, recorded):
        raise InputError(f"{path} is the calibration of another model (fingerprint {recorded}); {again}")
    if not whole:
        raise InputError(f"{folder / ARRAYS}: does not belong to {path.name}; {again}")
    try:
        return _calibration(table, content)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: damaged ({first_line(error)}); {again}") from error


_COMPUTED = (
    "format_version", "arrays_sha256", "scale", "offset", "weights", "score_range", "length_range", "uses_length",
    "normalization", "different_people",
)  # fmt: skip


def _calibration(table: Mapping[str, Any], content: bytes) -> ModelCalibration:
    from safetensors.numpy import load

    arrays = load(content)
    rates = {name: np.array(values, dtype=np.float64) for name, values in table["different_people"].items()}
    return ModelCalibration(
        line=Calibration(float(table["scale"]), float(table["offset"]), tuple(map(float, table["weights"]))),
        false_accepts=FalseAccepts(**rates),
        score_range=(float(table["score_range"][0]), float(table["score_range"][1])),
        length_range=(float(table["length_range"][0]), float(table["length_range"][1])),
        uses_length=bool(table["uses_length"]),
        normalization=table["normalization"],
        cohort=arrays.get("cohort"),
        facts={name: value for name, value in table.items() if name not in _COMPUTED},
        **{name: arrays[name] for name in _ARRAYS},
    )


def check_belongs(model: EmbeddingModel) -> None:
    """InputError if the model carries the calibration of other weights, such as those before a fine-tuning."""
    calibration = model.calibration
    if calibration is not None and not made_by(model, str(calibration.facts.get("model"))):
        raise InputError(
            "the model has changed since it was calibrated; set model.calibration = None, save it, and run ssl-audio "
            "calibrate again"
        )
