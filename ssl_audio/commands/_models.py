"""What commands have in common about the models that they are given."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

MODEL = (
    "run folder, checkpoint, saved folder, published name or Hub id; or the address of a foreign model: hf:ID, "
    "onnx:FILE, torchscript:FILE, package:resemblyzer, table:FILE, ... (docs/foreign-models.md)"
)


def add_trusted(parser: argparse.ArgumentParser) -> None:
    """`--trusted`."""
    parser.add_argument("--trusted", action="store_true", help="run code of others that the model names")


def load(args: argparse.Namespace, name: str | None = None) -> "EmbeddingModel":
    """The model that `--model` names, in `--source`, with `--trusted`; or another name."""
    from ssl_audio.hub import PUBLISHED_SOURCE, load_model

    source = getattr(args, "source", None) or PUBLISHED_SOURCE
    return load_model(args.model if name is None else name, source, trusted=args.trusted)
