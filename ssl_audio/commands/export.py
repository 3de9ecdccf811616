"""Write a model as ONNX or TorchScript: audio (batch, samples) in, embedding (batch, dim) out, any batch and length.

The file contains the mel spectrogram and, for a model that `ssl-audio probe` saved, its classifier. A JSON file beside
it holds the sample rate, the level rule, the clip length and the labels; examples/browser uses both in a web page.

Before the file is written, its output is compared with PyTorch's at several batch sizes and lengths. A file whose
output differs is not written.
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
  ssl-audio export --model runs/byol/0 --format torchscript --output my-model/model.ts
  ssl-audio export --model runs/byol/0 --format onnx --output small.onnx --quantize int8
  what the quantisation costs:
    ssl-audio export --model runs/byol/0 --format onnx --output small.onnx --quantize int8 \\
        --trials trials.txt --data singers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--source", help="folder or Hub id in which --model is a name")
    add_trusted(parser)
    parser.add_argument("--format", required=True, choices=["onnx", "torchscript"])
    parser.add_argument("--output", required=True, help="file to write")
    parser.add_argument("--projection", action="store_true", help="keep the projection head (run folders, checkpoints)")
    parser.add_argument("--quantize", choices=["int8"], help="quantise the weights of an ONNX export to 8 bits")
    parser.add_argument("--trials", help="with --quantize: trial list on which to compare the equal error rates")
    parser.add_argument("--data", help="folder that the file names in --trials are relative to")


def run(args: argparse.Namespace) -> int:
    if args.quantize and args.format != "onnx":
        raise InputError("--quantize works on ONNX; give --format onnx")
    if bool(args.trials) != bool(args.data) or (args.trials and not args.quantize):
        raise InputError("--trials needs --data and --quantize int8; give all three or none")

    from ssl_audio import export
    from ssl_audio.hub import PUBLISHED_SOURCE, load_model

    model = load_model(args.model, args.source or PUBLISHED_SOURCE, projection=args.projection, trusted=args.trusted)
    if args.quantize is None:
        write = export.export_onnx if args.format == "onnx" else export.export_torchscript
        print(write(model, args.output))
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


def error_rates(models: list[Any], trials: str | os.PathLike[str], data: str | os.PathLike[str]) -> list[float]:
    """The equal error rate of each model on a trial list.

    Args:
        models: `EmbeddingModel` or `OnnxModel`.
        trials: a list `label,singer/file,singer/file`.
        data: the folder that the names are relative to.

    Raises:
        InputError: the list is missing or malformed, a file cannot be read, or all trials have one label.
    """
    import numpy as np

    from ssl_audio.embedding import embed_files
    from ssl_audio.evaluation.metrics import equal_error_rate
    from ssl_audio.evaluation.scoring import score_trials
    from ssl_audio.evaluation.trials import read_trials

    listed = read_trials(trials, data)
    paths = [Path(data) / name for name in listed.files]
    rates = []
    for model in models:
        results = embed_files(model, paths)  # "raise" is its default, so every result has an embedding
        embeddings = np.stack([result.embedding for result in results if result.embedding is not None])
        rates.append(equal_error_rate(listed.labels, score_trials(embeddings, listed.pairs))[0])
    return rates
