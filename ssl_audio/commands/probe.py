"""What an embedding knows about a labelled corpus: a simple classifier on frozen features, or the whole network tuned.

Features of consecutive clips of every file are computed once and kept; a file's score is the mean over its clips.
Official folds or splits are used, validation files decide on regularisation and stopping, and test files are scored
once. Baselines stand beside the model: the same network untrained, the mean mel spectrum, statistics of MFCCs; in
transfer mode the same network trained from random weights.
"""

import argparse
import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_audio.commands._models import MODEL, add_trusted, load
from ssl_audio.commands.eval import add_resamples, model_name
from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio probe --model runs/mine --corpus esc10 --root data/ESC-50
  ssl-audio probe --model runs/mine --corpus magnatagatune --root data/mtat --head mlp --output probes/mtat
  ssl-audio probe --model runs/mine --corpus fma --root data/fma --option subset=medium      # genres
  ssl-audio probe --model runs/mine --corpus gtzan --root data/gtzan --fractions 0.01 0.1 1 --seeds 3
  ssl-audio probe --model runs/mine --corpus folder --root my_sounds                          # class/**/file
  ssl-audio probe --model runs/mine --corpus csv --root tags.csv --option label=tags --option separator='|'
  ssl-audio probe --model runs/mine --corpus esc50 --root data/ESC-50 --random_split 777      # not the official folds
  ssl-audio probe --model runs/wavebyol --corpus urbansound8k --root data/US8K --map_rows 10 --head mlp --hidden 4096
  ssl-audio probe --model runs/mine --corpus esc10 --root data/ESC-50 --mode transfer --epochs 20
  ssl-audio tag song.mp3 --model probes/mtat                                                  # then
"""

_SAVED = {
    "frozen": "the saved classifier is fitted on all folds; the figures are those of cross-validation",
    "transfer": "the saved network is that of the last fold; the figures are those of cross-validation",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", required=True, action="append", help=MODEL)
    add("--source", default=None, help="folder or Hub id in which --model is a name")
    add_trusted(parser)
    add("--corpus", required=True, help="name of a corpus (a wrong one lists them), folder, or csv")
    add("--root", required=True, type=Path, help="its folder, or the CSV file")
    add("--option", action="append", default=[], metavar="NAME=VALUE", help="of its reader: subset, split, fold, ...")
    add("--random_split", type=int, nargs="?", const=777, metavar="SEED", help="75/25 at random, not the official one")
    add("--mode", choices=("frozen", "transfer"), default="frozen", help="frozen encoder, or end-to-end training")
    add("--head", choices=("linear", "mlp", "knn"), default="linear", help="mlp: one hidden layer")
    add("--hidden", type=int, default=512, help="size of the layer of --head mlp")
    add("--map_rows", type=int, default=None, help="WaveBYOL: features from its map pooled to so many rows (10)")
    add("--fractions", type=float, nargs="+", default=[1.0], help="of the labels, such as 0.01 0.1 1")
    add("--seeds", type=int, default=3, help="draws of each fraction below 1")
    add("--clip", type=float, default=None, metavar="SECONDS", help="default: 3, or the shortest the model takes")
    add("--hop", type=float, default=None, metavar="SECONDS", help="default: the clip, so that clips do not overlap")
    add_resamples(parser, 200, "bootstrap resamples of the groups, for the intervals (200)")
    add("--skip_unreadable", action="store_true", help="leave out files that cannot be read, and say how many")
    add("--no_baselines", action="store_true", help="the model alone")
    add("--output", type=Path, default=None, help="folder for figures, pictures and the model with its head")
    add("--batch_size", type=int, default=None, help="clips a pass; default suits the device (transfer: 32)")
    add("--device", default=None, help="cpu, cuda, ...; default: a GPU where there is one")
    tuned = parser.add_argument_group("transfer")
    tuned.add_argument("--epochs", type=int, default=50, help="at most; validation stops it earlier")
    tuned.add_argument("--lr", type=float, default=1e-4, help="learning rate (AdamW)")


def run(args: argparse.Namespace) -> int:
    """Check, extract, probe, report."""
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
        print(f"{name} is in no average: {reason}")
    whole = max((row.result for row in rows), key=lambda result: result.n_train)
    print(f"{whole.n_test} files tested, {whole.n_train} to learn from")
    print(report.table(rows))
    if args.output is not None:
        settings = {key: _plain(value) for key, value in vars(args).items()}
        report.write_probe_report(args.output, task, rows, {**settings, "clip_seconds": seconds})
        print(f"written: {args.output}")
    return 0


def _check(args: argparse.Namespace) -> None:
    if len(args.model) > 1:
        raise InputError("--model is given more than once; a probe tests one model, so run it for each")
    args.model = args.model[0]
    for fraction in args.fractions:
        if not 0 < fraction <= 1:
            raise InputError(f"--fractions must lie above 0 and at most be 1, got {fraction:g}")
    given = {"--head": args.head != "linear", "--hop": args.hop is not None, "--skip_unreadable": args.skip_unreadable}
    if args.mode == "transfer" and any(given.values()):
        names = ", ".join(name for name, there in given.items() if there)
        raise InputError(f"--mode transfer tunes the network with a linear classifier on whole clips: no {names}")
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
            save_tagger(model, results[-1].head, seconds, args.output / "model")
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
    """The model first, by its name in every table, then its baselines: a model named as one of them stays."""
    name = model_name(given)
    return {f"{name} (the model)" if name in others else name: model} | others


def baselines(model: Any) -> dict[str, Any]:
    """The same network untrained (where it can be built again), the mean mel spectrum, statistics of MFCCs."""
    from ssl_audio.baselines import mean_mel, mfcc_statistics, untrained

    found: dict[str, Any] = {}
    with contextlib.suppress(InputError):  # TorchScript: nothing tells how it was built
        found["untrained"] = untrained(model)
    return found | {"mean mel": mean_mel(), "MFCC statistics": mfcc_statistics()}


def parse_options(given: list[str]) -> dict[str, Any]:
    """`["fold=1", "languages=[de,en]"]` -> values as YAML reads them; what is empty or not YAML is text.

    So are signs alone, unless they are quoted: of `separator=|` YAML would make an empty text, of `-` a list.
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
