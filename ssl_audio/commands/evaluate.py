"""Compare several models and write a report: which is better, by how much, and whether this is significant.

A folder holds singer/**/file. The trials are all pairs of its recordings, a given list, or drawn by --trials_kind.
The report adds baselines: each architecture untrained, statistics of MFCCs, the mean mel spectrum. All arguments and
files are checked before a model runs. For the published protocol on one trial list, use `ssl-audio eval`.
"""

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ssl_audio.commands._models import MODEL, add_trusted, say_if_trained_on
from ssl_audio.commands._scoring import add_resamples, add_scoring_arguments, center_paths, crops, scoring_options
from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio evaluate --model runs/byol/0 --model runs/vicreg/0 --data singers --output reports/byol-vicreg
  ssl-audio evaluate --model byol --data vocalset --trials metadata/vocalset/speaker_pairs.txt --output reports/byol
  foreign models; each layer of one:
    ssl-audio evaluate --model runs/byol/0 --model package:resemblyzer --data singers --output reports/resemblyzer
    ssl-audio evaluate --model 'hf:microsoft/wavlm-base-plus?layer=sweep' --data singers --output reports/layers
  two data sets:
    ssl-audio evaluate --model runs/byol/0 --data one --data two --map umap --output reports/two-sets
  ssl-audio evaluate --model runs/byol/0 --data singers --trials_kind within-gender --output reports/within-gender
  ssl-audio evaluate --model runs/byol/0 --data singers --normalize_scores as --cohort others --output reports/as-norm
  log-likelihood ratios, and their cost (Cllr):
    ssl-audio evaluate --model runs/byol/0 --data singers --calibrate others --output reports/calibrated
  through a codec, a telephone and noise; and with the scores of two models together:
    ssl-audio evaluate --model runs/byol/0 --model package:resemblyzer --data singers --condition opus:16 \\
      --condition telephone --condition noise:10 --fuse byol-0+resemblyzer --calibrate others --output reports/fused
"""

CACHE = "embeddings"  # folder in the report's where embeddings are kept


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", action="append", required=True, help=MODEL + "; repeatable")
    add("--source", default=None, help="folder or Hub id in which each --model is a name")
    add_trusted(parser)
    add("--data", action="append", required=True, type=Path, help="folder of singer/**/file; repeatable")
    add("--trials", action="append", type=Path, default=[],
        help="trial list; one for each --data, in order (default: all pairs)")  # fmt: skip
    add("--trials_kind", default=None, metavar="KIND",
        help="trials without a list: all (every pair); or, drawn: balanced, within-gender, within-song, cross-song, "
        "which read genders and songs from the metadata (all)")  # fmt: skip
    add("--n_trials", type=int, default=20_000, metavar="N", help="trials to draw, at most (20000)")
    add("--metadata", type=Path, default=None,
        help="CSV with columns path, singer, recording, ... (default: manifest.csv of the folder)")  # fmt: skip
    add("--output", required=True, type=Path, help="folder of the report")
    add("--runs", type=Path, default=None,
        help="folder of earlier reports for the leaderboard (default: the parent of --output)")  # fmt: skip
    add("--seed", type=int, default=123, help="seed of trials, bootstrap, folds and untrained networks (123)")
    add_resamples(parser, 1000, "bootstrap resamples of the singers (1000)")
    add("--rank_protocol", choices=("exact", "paper"), default="exact", help="see ssl-audio eval --help (exact)")
    add_scoring_arguments(parser)
    add("--probe", choices=("knn", "linear", "none"), default="knn", help="classifier that identifies singers (knn)")
    add("--condition", action="append", default=[], metavar="KIND",
        help="also test with both recordings changed: opus:16, mp3:32 (kbit/s), telephone (300 to 3400 Hz, mu-law), "
        "reverb:0.6 (decay in s), noise:10 (dB below the clip), cut:2 (the middle 2 s); repeatable")  # fmt: skip
    add("--fuse", action="append", default=[], metavar="A+B",
        help="add a row of two rows' scores together, with weights from --calibrate FOLDER; repeatable")  # fmt: skip
    add("--cache", type=Path, default=None, metavar="FOLDER",
        help=f"where embeddings are kept; an interrupted report goes on (default: {CACHE} in --output)")  # fmt: skip
    add("--map", choices=("pca", "umap"), default="pca", help="projection for the picture of all embeddings (pca)")
    add("--batch_size", type=int, default=None, help="clips of equal length per pass (default: suits the device)")
    add("--device", default=None, help="cpu, cuda, ... (default: a GPU if there is one)")
    add("--no_baselines", action="store_true", help="leave the baselines out")


def run(args: argparse.Namespace) -> int:
    """Check, embed, compare, write; print the verdict."""
    _check(args)
    from ssl_audio.hub.address import expanded

    args.model = [one for given in args.model for one in expanded(given)]
    import ssl_audio.evaluation.report as report  # imports matplotlib: if it is missing, fail before the embedding
    from ssl_audio.embedding.conditions import parse_condition
    from ssl_audio.embedding.kept import KeptEmbeddings
    from ssl_audio.evaluation.backend import load_backend
    from ssl_audio.evaluation.cost import machine
    from ssl_audio.utils.checkpoints import origin_text
    from ssl_audio.utils.device import best_device

    best_device(args.device)
    conditions = list({condition.name: condition for condition in map(parse_condition, args.condition)}.values())
    cropped = crops(args)
    sets = _test_sets(args)
    backend = load_backend([test_set.recordings for test_set in sets], **scoring_options(args))
    center = center_paths(args)
    models = _load(args)
    for name in args.model:
        say_if_trained_on(name, args.data)
    fusions = _fusions(args.fuse, list(models))
    kept = KeptEmbeddings(args.cache or args.output / CACHE, args.batch_size, args.device, cropped)
    _try(kept, models, conditions, sets[0].recordings.paths())
    evaluations, arms = _evaluate(args, kept, sets, models, fusions, conditions, backend, center)
    settings = {key: _plain(value) for key, value in vars(args).items()}
    given = {name: model for name, (model, baseline) in models.items() if not baseline}
    settings["licences"] = {name: model.licence for name, model in given.items()}
    settings["checkpoints"] = {name: origin_text(model.checkpoint) for name, model in given.items() if model.checkpoint}
    for name, text in settings["checkpoints"].items():
        print(f"{name}: {text}")
    settings["machine"] = machine(args.device)
    sentences = report.write_comparison_report(
        evaluations, args.output, settings=settings, arms=arms, runs=args.runs, map_method=args.map, seed=args.seed
    )
    notes = [test_set.trials.note() for test_set in sets if test_set.trials.note()]
    print("\n".join([*sentences, *notes]))
    print(f"report: {args.output / report.REPORT}")
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse wrong arguments, before any recording is read."""
    from ssl_audio.evaluation.backend import ACROSS_SINGERS
    from ssl_audio.evaluation.comparison import TRIALS_KINDS

    if args.trials and len(args.trials) != len(args.data):
        raise InputError(
            f"{len(args.trials)} --trials for {len(args.data)} --data; give a list for each --data, or none"
        )
    if args.trials and args.trials_kind is not None:
        raise InputError("--trials_kind draws trials and --trials reads a list of them; give only one of the two")
    if args.trials_kind not in (None, *TRIALS_KINDS):
        raise InputError(f"--trials_kind {args.trials_kind} is unknown; choose from {', '.join(TRIALS_KINDS)}")
    if args.n_trials < 2:
        raise InputError(f"--n_trials must be at least 2, got {args.n_trials}")
    if args.draws < 100:
        raise InputError(f"--resamples must be at least 100 for an interval, got {args.draws}")
    if args.seed < 0:
        raise InputError(f"--seed must not be negative, got {args.seed}")
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, got {args.batch_size}")
    if args.fuse and args.calibrate in (None, ACROSS_SINGERS):
        raise InputError("--fuse fits its weights on other singers than are tested; give them with --calibrate FOLDER")
    if args.fuse and args.crops is not None:
        raise InputError("--fuse adds cosines of whole recordings; leave --fuse or --crops out")
    if args.runs is not None and not args.runs.is_dir():
        raise InputError(f"--runs {args.runs}: no such folder of reports")
    for option, folder in (("--output", args.output), ("--cache", args.cache or args.output / CACHE)):
        there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        if not there.is_dir():
            raise InputError(f"{option} {folder}: {there} is a file; give a folder for the report")
        if not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"{option} {folder}: {there} cannot be written; give another folder")
    if args.map == "umap" and find_spec("umap") is None:
        raise ModuleNotFoundError("no umap", name="umap")


def _test_sets(args: argparse.Namespace) -> list[Any]:
    from ssl_audio.evaluation.comparison import ALL_PAIRS, load_test_set
    from ssl_audio.evaluation.verification import check_before

    names = [folder.resolve().name for folder in args.data]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"two --data folders are named {twice}; rename one, or evaluate them one by one")
    sets = []
    for folder, trials in zip(args.data, args.trials or [None] * len(args.data), strict=True):
        kind = args.trials_kind or ALL_PAIRS
        test_set = load_test_set(folder, trials, args.metadata, args.seed, kind=kind, n_trials=args.n_trials)
        check_before(test_set.trials, args.rank_protocol, args.seed)
        sets.append(test_set)
    return sets


def _load(args: argparse.Namespace) -> dict[str, tuple[Any, bool]]:
    """{name: (model, whether it is a baseline)}; each architecture has one untrained copy among the baselines."""
    from ssl_audio.baselines import mean_mel, mfcc_statistics, untrained
    from ssl_audio.commands.eval import load_encoder
    from ssl_audio.config import describe

    models: dict[str, tuple[Any, bool]] = {}
    architectures: dict[str, tuple[str, Any]] = {}
    for name, given in _names(args.model).items():
        model = load_encoder(given, args.source, trusted=args.trusted)
        models[name] = (model, False)
        try:
            architecture = json.dumps(describe(model), sort_keys=True, default=str)
        except InputError:  # TorchScript: nothing tells how it was built
            continue
        architectures.setdefault(architecture, (name, model))
    if args.no_baselines:
        return models
    baselines: dict[str, Any] = {
        "untrained" if len(architectures) == 1 else f"untrained {name}": untrained(model, args.seed)
        for name, model in architectures.values()
    }
    baselines |= {"MFCC statistics": mfcc_statistics(), "mean mel": mean_mel()}
    return models | {name + (" (baseline)" if name in models else ""): (m, True) for name, m in baselines.items()}


def _fusions(given: list[str], names: list[str]) -> dict[str, tuple[str, str]]:
    """{name of the row: the two rows}."""
    from ssl_audio.evaluation.fusion import split_fusion

    pairs = [split_fusion(text, names) for text in given]
    return {f"{first} + {second}": (first, second) for first, second in pairs}


def _names(given: list[str]) -> dict[str, str]:
    """{name in the report: what was given}. Equal names get the parts of their paths that differ in front."""
    from ssl_audio.commands.eval import model_name

    places = [str(Path(one).resolve()) if Path(one).exists() else one for one in given]
    twice = next((one for one, place in zip(given, places, strict=True) if places.count(place) > 1), None)
    if twice is not None:
        raise InputError(f"--model {twice} is given twice; give different models, or this one once")
    names = [model_name(one) for one in given]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [i for i, other in enumerate(names) if other == name]
        for column in zip_longest(*(reversed(Path(places[i]).parts) for i in alike), fillvalue=""):
            if len(set(column)) > 1 and len({names[i] for i in alike}) < len(alike):
                for i, part in zip(alike, column, strict=True):
                    names[i] = f"{part}-{names[i]}"
    return dict(zip(names, given, strict=True))


def _try(kept: Any, models: dict[str, tuple[Any, bool]], conditions: list[Any], paths: list[Path]) -> None:
    """Embed a few files with every model under every condition, so that what fails is found before hours of work."""
    from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings

    some = paths[:: max(1, len(paths) // 4)][:4]
    for name, (model, _) in models.items():
        for condition in (None, *conditions):
            under = f" under {condition.name}" if condition else ""
            try:
                found = embed_recordings(
                    EvalProtocol(model, crops=kept.crops), some, device=kept.device, progress=None, standardize=False,
                    condition=condition,
                )  # fmt: skip
            except InputError as error:
                raise InputError(f"model {name}{under}: {error}") from error
            if condition is None and len(some) > 1 and (found == found[0]).all():
                raise InputError(
                    f"model {name}: {some[0]} and {len(some) - 1} other files have the same embedding: "
                    "the model has collapsed, or the files are copies or silent; leave out the model or the files"
                )


def _evaluate(
    args: argparse.Namespace,
    kept: Any,
    sets: list[Any],
    models: dict[str, tuple[Any, bool]],
    fusions: dict[str, tuple[str, str]],
    conditions: list[Any],
    backend: Any,
    center: list[Path],
) -> tuple[list, list]:
    """(evaluations, arms) of all models and fusions."""
    from ssl_audio.evaluation.comparison import evaluate_condition, evaluate_model

    options = {"seed": args.seed, "resamples": args.draws, "rank_protocol": args.rank_protocol}
    probe = None if args.probe == "none" else args.probe
    evaluations: list = []
    arms: list = []
    for test_set in sets:
        clean, weights = _tables(kept, models, test_set, None, backend, center), {}
        for name, (first, second) in fusions.items():
            weights[name] = _weights(backend, clean[first][1], clean[second][1])
            clean[name] = _fused(weights[name], clean[first], clean[second])
            print(f"{name} on {test_set.name}: weights {weights[name][0]:.2f} and {weights[name][1]:.2f}")
        costs = _costs(kept, models, fusions)
        here = {}
        for name, (embeddings, others) in clean.items():
            baseline = name in models and models[name][1]
            with _named(f"{name} on {test_set.name}"):
                here[name] = evaluate_model(name, embeddings, test_set, baseline=baseline, probe=probe,
                                            scorer=backend.scorer(others), cost=costs[name], **options)  # fmt: skip
        evaluations += here.values()
        for condition in conditions:
            tables = _tables(kept, models, test_set, condition, backend, center)
            for name, (first, second) in fusions.items():
                tables[name] = _fused(weights[name], tables[first], tables[second])
            for name, (embeddings, others) in tables.items():
                with _named(f"{name} on {test_set.name} under {condition.name}"):
                    arms.append(evaluate_condition(here[name], condition.name, embeddings,
                                                   scorer=backend.scorer(others), **options))  # fmt: skip
    return evaluations, arms


def _tables(
    kept: Any, models: dict[str, tuple[Any, bool]], test_set: Any, condition: Any, backend: Any, center: list[Path]
) -> dict[str, tuple[Any, Any]]:
    """{model: (embeddings of the test set, embeddings of the cohort and calibration files)}; only the test set goes
    through the condition."""
    from ssl_audio.embedding.recordings import standardized

    tables = {}
    for name, (model, _) in models.items():
        label = f"{name} on {test_set.name}" + (f", {condition.name}" if condition else "")
        raw = kept.embed(model, test_set.recordings.paths(), condition, label)
        beside = kept.embed(model, backend.paths(), None, f"{name} on other singers") if backend.paths() else raw[:0]
        middle = kept.embed(model, center, None, f"{name}, the centre") if center else raw[:0]
        embeddings, others, middle = standardized(model, raw, beside, middle)
        mean = middle.mean(axis=0) if len(middle) else 0
        tables[name] = (embeddings - mean, others - mean)
    return tables


def _weights(backend: Any, first: Any, second: Any) -> tuple[float, float]:
    from ssl_audio.evaluation.fusion import fusion_weights

    (one, trials), (other, _) = (backend.calibration_part(others) for others in (first, second))
    return fusion_weights(one, other, trials)


def _fused(weights: tuple[float, float], first: tuple[Any, Any], second: tuple[Any, Any]) -> tuple[Any, Any]:
    from ssl_audio.evaluation.fusion import fused

    return fused(weights, first[0], second[0]), fused(weights, first[1], second[1])


def _costs(kept: Any, models: dict[str, tuple[Any, bool]], fusions: dict[str, tuple[str, str]]) -> dict[str, Any]:
    from ssl_audio.evaluation.cost import model_cost

    costs = {
        name: model_cost(model, kept.seconds_per_hour(model), "-" if baseline else model.licence)
        for name, (model, baseline) in models.items()
    }
    return costs | {name: costs[first] + costs[second] for name, (first, second) in fusions.items()}


@contextmanager
def _named(label: str) -> Iterator[None]:
    """Put the model and the data set in front of an error."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{label}: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
