"""Fit what turns a model's scores into log-likelihood ratios, probabilities and decisions, and keep it with the model.

DATA is a folder person/**/file of people who were not in the training. Every recording is compared whole and cut to
several lengths, because short clips are less certain. The calibration is judged on people whom each fit has not seen,
and written into the model's folder as calibration.json and calibration.safetensors. `ssl-audio compare` uses it.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_audio.commands._models import MODEL, add_trusted
from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio calibrate --model my-model --data other-people
  ssl-audio calibrate --model runs/byol/0 --data other-people --normalize_scores as --cohort third-people
  ssl-audio calibrate --model hf:microsoft/wavlm-base-plus-sv --data other-people --output wavlm-calibrated
  ssl-audio calibrate --model my-model --data other-people --trials trials.txt --test unseen-people
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, help=MODEL)
    parser.add_argument("--source", help="folder or Hub id in which --model is a name")
    add_trusted(parser)
    parser.add_argument("--data", required=True, metavar="FOLDER", help="person/**/file, people not in the training")
    parser.add_argument("--trials", metavar="LIST", help="trials label,person/file,person/file (default: all pairs)")
    parser.add_argument("--metadata", metavar="CSV", help="who speaks in which file (default: manifest.csv beside it)")
    parser.add_argument("--corrections", metavar="CSV", help="columns first, second, same (yes or no): what you heard")
    parser.add_argument("--output", metavar="FOLDER", help="write the model with its calibration into this folder")
    parser.add_argument("--normalize_scores", choices=("z", "s", "as"), help="with --cohort: z-, s- or adaptive s-norm")
    parser.add_argument("--cohort", metavar="FOLDER", help="person/**/file of a third set of people")
    parser.add_argument(
        "--lengths", type=float, nargs="*", metavar="S", help="seconds to which recordings are also cut (1 2 4 8)"
    )
    parser.add_argument("--test", nargs="+", default=[], metavar="FOLDER", help="other people, to test it on")
    parser.add_argument("--seed", type=int, default=0, help="of draws, folds and resampling (0)")
    parser.add_argument("--batch_size", type=int, help="clips per forward pass")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    from ssl_audio.decisions.calibrating import LENGTHS, calibrate, test_calibration
    from ssl_audio.decisions.corrections import read_corrections
    from ssl_audio.hub import PUBLISHED_SOURCE, load_model, save_model
    from ssl_audio.hub.calibration_files import CALIBRATION, write_calibration
    from ssl_audio.utils.device import best_device

    folder = _folder(args)
    lengths = LENGTHS if args.lengths is None else tuple(args.lengths)
    if any(not 0 < length < 3600 for length in lengths):
        raise InputError(f"--lengths must be seconds above 0, got {' '.join(f'{x:g}' for x in lengths)}")
    model = load_model(args.model, args.source or PUBLISHED_SOURCE, trusted=args.trusted, calibration=False)
    options = {"seed": args.seed, "batch_size": args.batch_size, "device": best_device(args.device)}
    model.calibration = calibrate(
        model,
        args.data,
        trials=args.trials,
        metadata=args.metadata,
        corrections=read_corrections(args.corrections) if args.corrections else None,
        normalize=args.normalize_scores,
        cohort=args.cohort,
        lengths=lengths,
        apart_from=args.test,
        **options,
    )
    tests = {test: test_calibration(model, test, lengths=lengths, **options) for test in args.test}
    model.to("cpu")
    if args.output is not None:
        save_model(model, folder)
    else:
        write_calibration(model.calibration, folder)
    facts = model.calibration.facts
    print(
        f"{folder / CALIBRATION}: {facts['people']} people ({facts['people_with_two_recordings']} with two "
        f"recordings), {facts['recordings']:,} recordings, {facts['trials']:,} trials"
    )
    _print("on people left out", facts)
    for row in facts["by_length"]:
        print(
            f"  clips of {row['seconds']:g} s: Cllr {row['cllr']:.3f}, {row['cllr_without_length']:.3f} without their "
            f"length ({row['trials']:,} trials)"
        )
    for test, figures in tests.items():
        _print(f"{test}: {figures['people']} other people, {figures['trials']:,} trials", figures)
    return 0


def _folder(args: argparse.Namespace) -> Path:
    """Where the calibration goes, known before anything is read."""
    if args.output is not None:
        return Path(args.output)
    folder = Path(args.source or "") / args.model
    if folder.is_file():
        raise InputError(f"{folder} is a file, beside which no calibration can lie; give --output FOLDER")
    if not folder.is_dir():
        raise InputError(f"{args.model} is not a folder on this machine; give --output FOLDER for the calibrated model")
    return folder


def _print(what: str, figures: Mapping[str, Any]) -> None:
    def between(interval: Any) -> str:
        return f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else ""

    print(
        f"{what}: Cllr {figures['cllr']:.3f}{between(figures.get('cllr_interval'))}, least possible "
        f"{figures['min_cllr']:.3f}; EER {figures['eer']:.3f}{between(figures.get('eer_interval'))}"
    )
    for row in figures["rates"]:
        print(
            f"  asked for {100 * row['asked']:g} % false accepts: {100 * row['false_accept']:.2f} % "
            f"({100 * row['false_accept_interval'][0]:.2f} to {100 * row['false_accept_interval'][1]:.2f}), "
            f"misses {100 * row['miss']:.1f} %"
        )
