"""Our layout: a folder of `config.yaml` (what `config.describe` says of the model), `model.safetensors` and a card."""

import os
from pathlib import Path

import torch
import yaml

from ssl_audio.config import build, describe, without_pretrained
from ssl_audio.errors import InputError
from ssl_audio.hub.calibration_files import check_belongs, remove_calibration, write_calibration
from ssl_audio.hub.card import card_licence, model_card
from ssl_audio.hub.place import Options, Place
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.yaml_files import read_yaml
from ssl_audio.version import __version__
from ssl_audio.weights import load_strict, read_weights

LAYOUT = "config.yaml and model.safetensors"
FORMAT_VERSION = 1  # of config.yaml; raise it when an older release could no longer read it
CONFIG, WEIGHTS, CARD = "config.yaml", "model.safetensors", "README.md"


def save_model(model: EmbeddingModel, folder: str | os.PathLike, card: str | None = None) -> None:
    """Write `config.yaml`, `model.safetensors` and a model card, each whole or not at all; its calibration too.

    Args:
        model: made of modules that store their constructor arguments.
        folder: made if it is not there; files of these names are replaced.
        card: text of `README.md`; None writes a short one.

    Raises:
        InputError: a module does not store its arguments, so that nothing could rebuild it; or the calibration is that
            of other weights.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    check_belongs(model)
    config = {
        "format_version": FORMAT_VERSION,
        "ssl_audio_version": __version__,
        "sample_rate": model.sample_rate,
        "dim": model.dim,
        "model": describe(model),
    }
    text = yaml.safe_dump(config, sort_keys=False)
    weights = {
        key: value.detach().cpu().clone(memory_format=torch.contiguous_format)
        for key, value in model.state_dict().items()
    }
    remove_calibration(folder)  # that of the model that was here before
    with write_atomically(folder / WEIGHTS) as temporary:
        save_file(weights, temporary, metadata={"format": "pt"})
    write_text(folder / CARD, model_card(model, folder.resolve().name) if card is None else card)
    if model.calibration is not None:
        write_calibration(model.calibration, folder)
    write_text(folder / CONFIG, text)  # last: a folder with a config is complete


def recognises(place: Place) -> bool:
    """A folder with weights of ours, or with a config alone: an incomplete one is named rather than overlooked."""
    return place.has(WEIGHTS) or (place.has(CONFIG) and place.checkpoint is None)


def read(place: Place, options: Options) -> EmbeddingModel:
    """What `save_model` wrote.

    Raises:
        InputError: a file is missing or damaged, of a newer format, or names a class that is not ours.
    """
    folder = place.path
    config = read_yaml(folder / CONFIG)
    version = config.get("format_version")
    if not isinstance(version, int) or "model" not in config:
        raise InputError(
            f"{folder / CONFIG} is not a model's config (no format_version); was it written by save_model?"
        )
    if version > FORMAT_VERSION:
        raise InputError(
            f"{folder} has format {version} and this release reads up to {FORMAT_VERSION}; pip install -U ssl-audio"
        )
    model = build(without_pretrained(config["model"]), trusted=options.trusted)
    if not isinstance(model, EmbeddingModel):
        raise InputError(f"{folder / CONFIG}: its key 'model' describes no EmbeddingModel; write it with save_model")
    load_strict(model, read_weights(folder / WEIGHTS), folder / WEIGHTS)
    model.licence = card_licence(folder / CARD)
    return model
