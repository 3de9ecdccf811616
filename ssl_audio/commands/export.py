"""Write a model as ONNX or TorchScript: audio (batch, samples) in, embedding (batch, dim) out, any batch and length.

The mel spectrogram is part of it, and so is the head of a model that `ssl-audio probe` saved. Beside an ONNX file comes
a JSON file with its rate, clip length and labels; examples/browser shows both in a web page.

The export is compared with PyTorch at several batch sizes and lengths before it is written, and refused if it differs.
"""

import argparse

from ssl_audio.errors import InputError

HELP = "a model -> ONNX or TorchScript, checked against PyTorch"

EXAMPLES = """examples:
  ssl-audio export --model byol --format onnx --output byol.onnx
  ssl-audio export --model probes/mtat/model --format onnx --output examples/browser/model/model.onnx
  ssl-audio export --model runs/mine --format torchscript --output saved/model.ts
  ssl-audio export --model runs/mine --format onnx --output small.onnx --quantize int8
  ssl-audio export --model runs/mine --format onnx --output small.onnx --quantize int8 --trials list.txt --data singers
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help="published name, run folder, checkpoint, saved folder or Hub id")
    parser.add_argument("--source", help="a folder or Hub id in which --model is a name")
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
    from ssl_audio.hub import load_model

    model = load_model(args.model, projection=args.projection, **({"source": args.source} if args.source else {}))
    if args.quantize is None:
        write = export.export_onnx if args.format == "onnx" else export.export_torchscript
        print(write(model, args.output))
        if args.format == "onnx":
            print(f"described in {export.describe_onnx(model, args.output)}")
        return 0

    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        full = Path(folder) / "float.onnx"
        size = export.export_onnx(model, full).size
        small = export.quantize_onnx(model, full, args.output)
    print(f"{small}; {size / small.size:.1f} times smaller than in floating point")
    print(f"described in {export.describe_onnx(model, args.output)}")
    if args.trials:
        before, after = export.error_rates([model, export.OnnxModel(args.output, model)], args.trials, args.data)
        print(f"equal error rate on {args.trials}: {before:.4f} -> {after:.4f} (change {after - before:+.4f})")
    return 0
