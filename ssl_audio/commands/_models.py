"""Options about the model, which several commands share."""

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

MODEL = (
    "published name, run folder, checkpoint, model folder or Hub id; or the address of a foreign model: hf:ID, "
    "onnx:FILE, torchscript:FILE, package:resemblyzer, table:FILE, ... (see docs/foreign-models.md)"
)


def add_trusted(parser: argparse.ArgumentParser) -> None:
    """Add the option `--trusted`."""
    parser.add_argument("--trusted", action="store_true", help="allow the model to run code from outside ssl_audio")


def load(args: argparse.Namespace, name: str | None = None) -> "EmbeddingModel":
    """Load the model that `--model` names, or another `name`, by the options `--source` and `--trusted`."""
    from ssl_audio.hub import PUBLISHED_SOURCE, load_model

    source = getattr(args, "source", None) or PUBLISHED_SOURCE
    return load_model(args.model if name is None else name, source, trusted=args.trusted)


def say_if_trained_on(name: str, folders: Iterable[str | os.PathLike]) -> None:
    """Say on stderr which of these folders the run of this name was trained on, as its config.yaml tells."""
    from ssl_audio.errors import InputError
    from ssl_audio.utils.yaml_files import read_yaml

    place = Path(name)
    place = place.parent if place.is_file() else place
    config = next((path for path in (place / "config.yaml", place.parent / "config.yaml") if path.is_file()), None)
    try:
        data = read_yaml(config).get("data") if config is not None else None
        trained = [os.path.realpath(folder) for folder in data["init_args"]["dataset_dirs"]]  # type: ignore[index]
    except (InputError, KeyError, TypeError, AttributeError):
        return  # another kind of model, or of data
    for folder in folders:
        here = Path(os.path.realpath(folder))
        if any(here.is_relative_to(there) or Path(there).is_relative_to(here) for there in trained):
            print(f"note: {name} was trained on {folder}; its metrics there say nothing of new voices", file=sys.stderr)
