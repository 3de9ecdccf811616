"""Saved models: folders of `config.yaml` (from `config.describe`), `model.safetensors` and a model card."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from ssl_audio.config import build, describe, missing_arguments, without_pretrained
from ssl_audio.errors import InputError
from ssl_audio.hub.calibration_files import check_belongs, remove_calibration, write_calibration
from ssl_audio.hub.card import card_licence, model_card
from ssl_audio.hub.levels import as_tested, level_facts
from ssl_audio.hub.place import Options, Place
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.yaml_files import read_yaml
from ssl_audio.version import __version__
from ssl_audio.weights import load_strict, read_weights

LAYOUT = "config.yaml and model.safetensors"
FORMAT_VERSION = 1  # of config.yaml; increase it if older releases cannot read the new format
CONFIG, WEIGHTS, CARD = "config.yaml", "model.safetensors", "README.md"


def save_model(model: EmbeddingModel, folder: str | os.PathLike, card: str | None = None) -> None:
    """Write `config.yaml`, `model.safetensors`, a model card `README.md` and the calibration, each atomically.

    Args:
        model: its modules must store their constructor arguments.
        folder: created if it does not exist; existing files are replaced.
        card: text of the model card; default: a short one.

    Raises:
        InputError: a module does not store its arguments, so that it could not be rebuilt; or the model has changed
            since it was calibrated.
    """
    folder = Path(folder)
    check_belongs(model)
    config = {
        "format_version": FORMAT_VERSION,
        "ssl_audio_version": __version__,
        "sample_rate": model.sample_rate,
        "dim": model.dim,
        "model": describe(model),
    }
    if model.checkpoint:
        config["checkpoint"] = model.checkpoint
    remove_calibration(folder)  # of the model that was here before
    write_model_folder(folder, model, config, model_card(model, folder.resolve().name) if card is None else card)
    if model.calibration is not None:
        write_calibration(model.calibration, folder)


def write_model_folder(
    folder: str | os.PathLike, module: nn.Module, config: Mapping[str, Any], card: str | None = None
) -> None:
    """Write the weights of a module, its config and its card. The config is written last, when all else is complete.

    Args:
        folder: created if it does not exist; existing files are replaced.
        module: its state dict becomes `model.safetensors`.
        config: content of `config.yaml`.
        card: text of `README.md`; None writes no card.
    """
    from safetensors.torch import save_file

    folder, text = Path(folder), yaml.safe_dump(dict(config), sort_keys=False)
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in module.state_dict().items()
    }
    with write_atomically(folder / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    if card is not None:
        write_text(folder / CARD, card)
    write_text(folder / CONFIG, text)


def recognises(place: Place) -> bool:
    """Whether the place is a folder with `model.safetensors`, or with `config.yaml` and no checkpoints.

    A folder with a config alone is recognised so that `read` reports the missing weights.
    """
    return place.has(WEIGHTS) or (place.has(CONFIG) and place.checkpoint is None)


def read(place: Place, options: Options) -> EmbeddingModel:
    """Read a model that `save_model` wrote.

    Raises:
        InputError: a file is missing, damaged or of a newer format; or it names a class outside of `ssl_audio`.
    """
    folder = place.path
    config = read_yaml(folder / CONFIG)
    version = config.get("format_version")
    if not isinstance(version, int) or "model" not in config:
        raise InputError(
            f"{folder / CONFIG} is not the config of a saved model (no format_version); write it with save_model"
        )
    if version > FORMAT_VERSION:
        raise InputError(
            f"{folder} has format {version}, but this release reads only up to {FORMAT_VERSION}; "
            "pip install -U ssl-audio"
        )
    model = build(without_pretrained(config["model"]), trusted=options.trusted)
    if not isinstance(model, EmbeddingModel):
        raise InputError(f"{folder / CONFIG}: the key 'model' describes no EmbeddingModel; write it with save_model")
    load_strict(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    missing = missing_arguments(config["model"])
    if missing:  # the first format left some out; weights that fit do not show that a default is the right value
        _check_runs(model, missing, folder / CONFIG)
    if not level_facts(config["model"]):
        as_tested(model, folder, config["model"])
    model.licence = card_licence(folder / CARD)
    model.checkpoint = dict(config.get("checkpoint") or {})
    return model


def _check_runs(model: EmbeddingModel, missing: list[str], config: Path) -> None:
    """Refuse a model without a sample rate, and one whose parts do not fit together with the defaults of arguments."""
    lost = f"{config}: {', '.join(missing)} is missing; write the model again with save_model"
    if "EmbeddingModel.sample_rate" in missing:
        raise InputError(lost)
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, model.minimum_samples))
    except (InputError, RuntimeError, ValueError) as error:
        raise InputError(lost) from error
