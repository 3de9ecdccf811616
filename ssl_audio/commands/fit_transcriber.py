"""Train a head that reads notes from a model's frames, on a folder in MusicNet's layout, and test it.

The folder holds train_data/ID.wav and train_labels/ID.csv, and the same for test_data and test_labels. A part of the
training recordings is held out to choose the epoch and the threshold. The metrics are those of the test recordings or,
without a test folder, of the held-out ones. OUTPUT holds the transcriber, for ssl-audio transcribe, and figures.json.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

from ssl_audio.commands._models import MODEL, add_trusted, load

EXAMPLES = """examples:
  ssl-audio fit-transcriber data/musicnet --model runs/cpc/0 --output transcribers/cpc
  ssl-audio fit-transcriber data/musicnet --model runs/cpc/0 --output transcribers/baseline --mode untrained
  the mel spectrum in place of a model:
    ssl-audio fit-transcriber data/musicnet --model mel --output transcribers/mel
  ssl-audio fit-transcriber data/musicnet --model runs/cpc/0 --output transcribers/tuned --mode finetuned --head conv
  a CPC encoder, trained from random weights:
    ssl-audio fit-transcriber data/musicnet --output transcribers/cnn --mode supervised
  the frames of two models, concatenated:
    ssl-audio fit-transcriber data/musicnet --model runs/cpc/0 --model runs/cpc/1 --output transcribers/both
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", help="recordings and notes in MusicNet's layout")
    add("--model", action="append", default=[], help=MODEL + "; or mel; repeatable: frames are concatenated")
    add_trusted(parser)
    add("--output", required=True, type=Path, help="folder of the transcriber")
    add(
        "--mode", choices=("frozen", "finetuned", "supervised", "untrained"), default="frozen",
        help="frozen: the encoders do not change; finetuned: they are trained further; supervised: they are trained "
        "from random weights; untrained: they keep random weights (frozen)",
    )  # fmt: skip
    add("--head", choices=("linear", "conv"), default="linear", help="one layer, or a small convolution (linear)")
    add("--epochs", type=int, default=20, help="passes over the training recordings (20)")
    add("--window", type=float, default=1.28, metavar="S", help="seconds per training example (1.28)")
    add("--batch_size", type=int, default=8, metavar="N", help="windows per step (8)")
    add("--lr", type=float, default=3e-3, help="learning rate of the head; finetuned encoders have a tenth (0.003)")
    add("--valid", type=float, default=0.15, help="fraction of the training recordings that is held out (0.15)")
    add("--seed", type=int, default=0, help="seed of weights, held-out recordings and order (0)")
    add("--workers", type=int, default=0, help="processes that read recordings (0: the command itself reads)")
    add("--device", help="cpu, cuda, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    """Read, check, train, test, save, print."""
    from ssl_audio.data.corpora.musicnet import instrument_name
    from ssl_audio.errors import InputError
    from ssl_audio.transcription import save_transcriber
    from ssl_audio.transcription.fit import FitSettings, evaluate_transcriber, fit, make_transcriber, read_folder
    from ssl_audio.utils.device import best_device
    from ssl_audio.utils.files import write_text

    for name in ("epochs", "batch_size", "window", "lr"):
        if not 0 < getattr(args, name) < math.inf:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be above 0")
    for name in ("seed", "workers"):
        if getattr(args, name) < 0:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least 0")
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # raised before the training, not after it
        raise InputError(f"--output {args.output}: not a folder ({error.strerror}); choose another place") from error
    models = _models(args)
    rate = models[0].sample_rate
    samples = round(args.window * rate)
    labelled = read_folder(args.folder, "train", samples, rate)
    train, valid = labelled.split(args.valid, args.seed)
    has_test = (Path(args.folder) / "test_data").is_dir()
    if not has_test and not valid.groups:
        raise InputError(f"{args.folder} has no test_data; set --valid above 0, to hold out recordings for the test")
    test = read_folder(args.folder, "test") if has_test else valid
    for path, reason in labelled.left_out + test.left_out:
        print(f"left out: {path} {reason}")
    if not test.instruments():
        raise InputError(f"{args.folder}: the test recordings have no notes; add notes to their label files")
    if unknown := [instrument_name(i) for i in test.instruments() if i not in train.instruments()]:
        print(f"without metrics of their own, because no training recording has them: {', '.join(unknown)}")
    transcriber = make_transcriber(models, train.instruments(), args.mode, args.head, samples, args.seed)
    transcriber.to(best_device(args.device))
    how = FitSettings(args.mode, args.epochs, args.batch_size, args.lr, args.seed, args.workers)
    history = fit(transcriber, train, valid, how)
    save_transcriber(transcriber, args.output)
    metrics = evaluate_transcriber(transcriber, test, args.batch_size)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    record = {"settings": settings, "tested_on": "test" if has_test else "valid", "figures": metrics, "epochs": history}
    write_text(args.output / "figures.json", json.dumps(record, indent=2) + "\n")
    print(_table(metrics))
    print(f"transcriber: {args.output}     next: ssl-audio transcribe PIECE.wav --model {args.output} -o PIECE.mid")
    return 0


def _models(args: argparse.Namespace) -> list[Any]:
    from ssl_audio.config import refuse_outside
    from ssl_audio.encoders import CPC
    from ssl_audio.errors import InputError
    from ssl_audio.frontends import Waveform
    from ssl_audio.model import EmbeddingModel
    from ssl_audio.transcription.model import mel_frames

    if args.model:
        models = [mel_frames() if name == "mel" else load(args, name) for name in args.model]
        for model in models:
            refuse_outside(model, "saved in a transcriber")
        return models
    if args.mode in ("frozen", "finetuned"):
        raise InputError(f"--mode {args.mode} needs a trained encoder; give --model RUN_FOLDER")
    return [EmbeddingModel(Waveform(), CPC(first_layer="sinc"), 16000)]


def _table(metrics: dict[str, Any]) -> str:
    """A line for all notes, then a line per instrument."""
    keys = ("frame_average_precision", "frame_chance", "frame_f1", "note_f1", "note_with_offset_f1")
    rows = [("", "frame AP", "chance", "frame F1", "note F1", "with offset")]
    for name, values in [("all", metrics), *metrics["instruments"].items()]:
        rows.append((name, *(f"{values[key]:.3f}" for key in keys)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows)
