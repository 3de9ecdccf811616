"""Test what an encoder knows about a labelled corpus: a classifier on its frozen features, or the whole network tuned.

Features of consecutive clips of every file are computed once and cached; a file's score is the mean over its clips. The
splits are the official ones of the corpus. Regularisation and stopping are chosen on validation files, and test files
are scored once.

Baselines: the same network untrained, the mean mel spectrum, statistics of MFCCs; with --mode transfer, the same
network trained from random weights.
"""

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_audio.commands._models import MODEL, add_trusted, load
from ssl_audio.commands._scoring import add_resamples
from ssl_audio.commands.eval import model_name
from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio probe --model runs/byol/0 --corpus esc10 --root data/ESC-50
  a tagger, and then the tags of a song:
    ssl-audio probe --model runs/clmr/0 --corpus magnatagatune --root data/mtat --head mlp --output probes/mtat
    ssl-audio tag song.mp3 --model probes/mtat
  genres of FMA's medium subset:
    ssl-audio probe --model runs/byol/0 --corpus fma --root data/fma --option subset=medium
  with 1 %, 10 % and all of the labels:
    ssl-audio probe --model runs/byol/0 --corpus gtzan --root data/gtzan --fractions 0.01 0.1 1 --seeds 3
  your own sounds, as class/**/file or as a table:
    ssl-audio probe --model runs/byol/0 --corpus folder --root my_sounds
    ssl-audio probe --model runs/byol/0 --corpus csv --root tags.csv --option label=tags --option separator='|'
  a random split in place of the official folds:
    ssl-audio probe --model runs/byol/0 --corpus esc50 --root data/ESC-50 --random_split 777
  ssl-audio probe --model runs/wavebyol/0 --corpus urbansound8k --root data/US8K --map_rows 10 --head mlp --hidden 4096
  ssl-audio probe --model runs/byol/0 --corpus esc10 --root data/ESC-50 --mode transfer --epochs 20
"""

_SAVED = {
    "frozen": "the saved classifier is fitted on all folds; the metrics are those of cross-validation",
    "transfer": "the saved network is that of the last fold; the metrics are those of cross-validation",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, action="append", help=MODEL)
    add("--source", default=None, help="folder or Hub id in which --model is a name")
    add_trusted(parser)
    add("--corpus", required=True, help="name of a corpus, or folder, or csv; an unknown name lists them all")
    add("--root", required=True, type=Path, help="folder of the corpus, or the CSV file")
    add("--option", action="append", default=[], metavar="NAME=VALUE",
        help="option of the corpus's reader: subset, split, fold, ...; repeatable")  # fmt: skip
    add("--random_split", type=int, nargs="?", const=777, metavar="SEED",
        help="train on a random 75 %% and test on the rest, in place of the official split (seed: 777)")  # fmt: skip
    add("--mode", choices=("frozen", "transfer"), default="frozen",
        help="frozen: only the classifier is trained; transfer: the encoder is trained too (frozen)")  # fmt: skip
    add(
        "--head", choices=("linear", "mlp", "knn"), default="linear", help="classifier; mlp has a hidden layer (linear)"
    )
    add("--hidden", type=int, default=512, help="size of the hidden layer of --head mlp (512)")
    add("--map_rows", type=int, default=None,
        help="for WaveBYOL: use its feature map, pooled to this many rows; the original has 10")  # fmt: skip
    add("--fractions", type=float, nargs="+", default=[1.0], help="fractions of the labels to train on (1)")
    add("--seeds", type=int, default=3, help="random subsets for each fraction below 1 (3)")
    add("--clip", type=float, default=None, metavar="SECONDS",
        help="length of a clip (default: 3, or the shortest that the model takes)")  # fmt: skip
    add("--hop", type=float, default=None, metavar="SECONDS", help="distance between clips (default: --clip)")
    add_resamples(parser, 200, "bootstrap resamples of the groups, for the intervals (200)")
    add("--skip_unreadable", action="store_true", help="leave out files that cannot be read, and print how many")
    add("--no_baselines", action="store_true", help="leave the baselines out")
    add("--output", type=Path, default=None, help="folder for metrics, pictures and the model with its classifier")
    add("--batch_size", type=int, default=None,
        help="clips per pass (default: suits the device; 32 with --mode transfer)")  # fmt: skip
    add("--device", default=None, help="cpu, cuda, ... (default: a GPU if there is one)")
    tuned = parser.add_argument_group("with --mode transfer")
    tuned.add_argument("--epochs", type=int, default=50, help="largest number; validation stops earlier (50)")
    tuned.add_argument("--lr", type=float, default=1e-4, help="learning rate of AdamW (0.0001)")


def run(args: argparse.Namespace) -> int:
    """Check the arguments, extract features, probe, report."""
    from ssl_audio.config import refuse_outside
    from ssl_audio.downstream import report
    from ssl_audio.downstream.features import clip_seconds
    from ssl_audio.downstream.tasks import load_task
    from ssl_audio.encoders.row_pooled import RowPooled

    _check(args)
    options = parse_options(args.option)
    if args.random_split is not None:
        options["random_split"] = args.random_split
    task = load_task(args.corpus, args.root, options)
    model = load(args)
    if args.output is not None:
        refuse_outside(model, "saved with a classifier (leave --output out)")
    if args.mode == "transfer":
        refuse_outside(model, "trained")
    if args.map_rows is not None:
        model = model.with_parts(encoder=RowPooled(model.encoder, args.map_rows), head=None)
    seconds = clip_seconds(model, args.clip)
    print(f"{task.name}, {task.split_name}: {len(task.files.paths)} files, {len(task.files.classes)} classes")
    mode = _frozen if args.mode == "frozen" else _transfer
    task, rows = mode(args, task, model, seconds)
    if args.output is not None and len(rows[0].result.chosen) > 1:
        task = replace(task, notes=(*task.notes, _SAVED[args.mode]))
    for note in task.notes:
        print(note)
    for name, reason in rows[0].result.metrics.left_out.items():
        print(f"{name} is left out of the averages: {reason}")
    whole = max((row.result for row in rows), key=lambda result: result.n_train)
    print(f"{whole.n_train} files for training, {whole.n_test} for testing")
    print(report.table(rows))
    if args.output is not None:
        settings = {key: _plain(value) for key, value in vars(args).items()}
        report.write_probe_report(args.output, task, rows, {**settings, "clip_seconds": seconds})
        print(f"written: {args.output}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if len(args.model) > 1:
        raise InputError("--model is given more than once; a probe tests one model, so run the command for each")
    args.model = args.model[0]
    for fraction in args.fractions:
        if not 0 < fraction <= 1:
            raise InputError(f"--fractions must be above 0 and at most 1, got {fraction:g}")
    given = {"--head": args.head != "linear", "--hop": args.hop is not None, "--skip_unreadable": args.skip_unreadable}
    if args.mode == "transfer" and any(given.values()):
        names = ", ".join(name for name, there in given.items() if there)
        raise InputError(f"--mode transfer always trains a linear classifier on adjacent clips; omit {names}")
    if min(args.seeds, args.epochs, args.hidden) < 1:
        raise InputError("--seeds, --epochs and --hidden must be at least 1")


def _frozen(args: argparse.Namespace, task: Any, model: Any, seconds: float) -> tuple[Any, list[Any]]:
    from ssl_audio.downstream.features import extract
    from ssl_audio.downstream.frozen import common_files, probe_frozen, save_tagger
    from ssl_audio.downstream.report import Row
    from ssl_audio.evaluation.probes import ProbeSettings

    models = beside(args.model, model, {} if args.no_baselines else baselines(model))
    options = {"batch_size": args.batch_size, "device": args.device}
    features = {
        name: extract(one, task.files.paths, seconds, args.hop, label=name, **options) for name, one in models.items()
    }
    task, features = common_files(task, features, args.skip_unreadable)
    rows = []
    for name, found in features.items():
        own = name == next(iter(models))
        keep = own and args.output is not None
        settings = ProbeSettings(args.head, args.hidden, resamples=args.draws, keep_head=keep, progress=True)
        results = probe_frozen(found, task, settings, args.fractions, args.seeds)
        rows += [Row(name, not own, result) for result in results]
        if keep and results[-1].head is not None:
            save_tagger(model, results[-1].head, seconds, args.output / "model", found.level)
    return task, rows


def _transfer(args: argparse.Namespace, task: Any, model: Any, seconds: float) -> tuple[Any, list[Any]]:
    from ssl_audio.baselines import untrained
    from ssl_audio.downstream.finetune import FinetuneSettings, finetune
    from ssl_audio.downstream.report import Row

    settings = FinetuneSettings(seconds, args.epochs, args.batch_size or 32, args.lr, args.device, args.draws)
    models = beside(args.model, model, {} if args.no_baselines else {"from random weights": untrained(model)})
    rows = []
    for name, one in models.items():
        own = name == next(iter(models))
        for fraction in sorted(args.fractions):
            for seed in range(args.seeds if fraction < 1 else 1):
                folder = args.output / "model" if own and fraction == 1 and args.output else None
                rows.append(Row(name, not own, finetune(one, task, settings, fraction, seed, folder)))
    return task, rows


def beside(given: str, model: Any, others: dict[str, Any]) -> dict[str, Any]:
    """{name in the tables: model}: first the given one, then its baselines. A name is never taken twice."""
    name = model_name(given)
    return {f"{name} (the model)" if name in others else name: model} | others


def baselines(model: Any) -> dict[str, Any]:
    """The same network untrained (unless it is TorchScript), the mean mel spectrum, statistics of MFCCs."""
    from ssl_audio.baselines import mean_mel, mfcc_statistics, untrained

    found: dict[str, Any] = {}
    with contextlib.suppress(InputError):  # TorchScript: nothing tells how it was built
        found["untrained"] = untrained(model)
    return found | {"mean mel": mean_mel(), "MFCC statistics": mfcc_statistics()}


def parse_options(given: list[str]) -> dict[str, Any]:
    """`["fold=1", "languages=[de,en]"]` -> `{"fold": 1, "languages": ["de", "en"]}`: values are read as YAML.

    A value stays text if it is empty, is not YAML, or consists of unquoted signs only: YAML would read `separator=|` as
    an empty text and `separator=-` as a list.
    """
    from ssl_audio.utils.yaml_files import parse_yaml

    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InputError(f"--option {text!r} is not NAME=VALUE")
        try:
            parsed = parse_yaml(value, f"--option {name}:")
        except InputError:
            parsed = value
        signs = not any(letter.isalnum() or letter in "[{'\"" for letter in value)
        options[name] = value if parsed is None or signs else parsed
    return options


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
