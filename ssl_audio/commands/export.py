"""Write a model as ONNX or TorchScript: audio (batch, samples) in, embedding (batch, dim) out, any batch and length.

The mel spectrogram is part of it, and so is the head of a model that `ssl-audio probe` saved. Beside an ONNX file comes
a JSON file with its rate, clip length and labels; examples/browser shows both in a web page.

The export is compared with PyTorch at several batch sizes and lengths before it is written, and refused if it differs.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from ssl_audio.commands._models import MODEL, add_trusted
from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio export --model byol --format onnx --output byol.onnx
  ssl-audio export --model probes/mtat/model --format onnx --output examples/browser/model/model.onnx
  ssl-audio export --model runs/mine --format torchscript --output saved/model.ts
  ssl-audio export --model runs/mine --format onnx --output small.onnx --quantize int8
  ssl-audio export --model runs/mine --format onnx --output small.onnx --quantize int8 --trials list.txt --data singers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--source", help="a folder or Hub id in which --model is a name")
    add_trusted(parser)
    parser.add_argument("--format", required=True, choices=["onnx", "torchscript"])
    parser.add_argument("--output", required=True, help="the file to write")
    parser.add_argument("--projection", action="store_true", help="with the projection head (run folders, checkpoints)")
    parser.add_argument("--quantize", choices=["int8"], help="dynamic quantisation of an ONNX export")
    parser.add_argument("--trials", help="with --quantize: a trial list, to report the change in equal error rate")
    parser.add_argument("--data", help="the folder that the names in --trials are relative to")


def run(args: argparse.Namespace) -> int:
    if args.quantize and args.format != "onnx":
        raise InputError("--quantize works on ONNX; give --format onnx")
    if bool(args.trials) != bool(args.data) or (args.trials and not args.quantize):
        raise InputError("--trials and --data belong together, and to --quantize int8")

    from ssl_audio import export
    from ssl_audio.hub import PUBLISHED_SOURCE, load_model

    model = load_model(args.model, args.source or PUBLISHED_SOURCE, projection=args.projection, trusted=args.trusted)
    if args.quantize is None:
        write = export.export_onnx if args.format == "onnx" else export.export_torchscript
        print(write(model, args.output))
        if args.format == "onnx":
            print(f"described in {export.describe_onnx(model, args.output)}")
        return 0

    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "float.onnx"
        size = export.export_onnx(model, full).size
        small = export.quantize_onnx(model, full, args.output)
    print(f"{small}; {size / small.size:.1f} times smaller than in floating point")
    print(f"described in {export.describe_onnx(model, args.output)}")
    if args.trials:
        before, after = error_rates([model, export.OnnxModel(args.output, model)], args.trials, args.data)
        print(f"equal error rate on {args.trials}: {before:.4f} -> {after:.4f} (change {after - before:+.4f})")
    return 0


def error_rates(models: list[Any], trials: str | os.PathLike, data: str | os.PathLike) -> list[float]:
    """The equal error rate of each model on a trial list; to see what quantisation costs.

    Args:
        models: `EmbeddingModel` or `OnnxModel`.
        trials: a list `label,singer/file,singer/file`.
        data: the folder that the names are relative to.

    Raises:
        InputError: missing or malformed list, unreadable files, one class of trials only.
    """
    import numpy as np

    from ssl_audio.embedding import embed_files
    from ssl_audio.evaluation.metrics import equal_error_rate
    from ssl_audio.evaluation.scoring import score_trials
    from ssl_audio.evaluation.trials import read_trials

    listed = read_trials(trials)
    paths = [Path(data) / name for name in listed.files]
    rates = []
    for model in models:
        results = embed_files(model, paths)  # "raise" is its default, so every result has an embedding
        embeddings = np.stack([result.embedding for result in results if result.embedding is not None])
        rates.append(equal_error_rate(listed.labels, score_trials(embeddings, listed.pairs))[0])
    return rates
