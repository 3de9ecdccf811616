"""Options about the model, which several commands share."""

import argparse
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
