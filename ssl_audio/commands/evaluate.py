"""Compare embeddings on folders of recordings and write a report: which is better, by how much, and is it luck.

A folder holds singer/**/file. Trials are all pairs of its recordings, or a list. Baselines stand beside the models:
each architecture untrained, statistics of MFCCs, the mean mel spectrum. Everything is checked before a model is run.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio evaluate --model runs/a --model runs/b --data singers --output reports/a-b
  ssl-audio evaluate --model byol --data vocalset --trials metadata/vocalset/speaker_pairs.txt --output reports/byol
  ssl-audio evaluate --model runs/a --data one --data two --map umap --output reports/a     two data sets
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--model", action="append", required=True, help="run folder, checkpoint, exported folder or name; repeatable")
    add("--source", default=None, help="folder or Hub id that holds the models")
    add("--data", action="append", required=True, type=Path, help="folder of singer/**/file; repeatable")
    add("--trials", action="append", type=Path, default=[], help="list for each --data, in order; default: all pairs")
    add("--metadata", type=Path, default=None, help="CSV of path, singer, recording, ...; default: manifest.csv")
    add("--output", required=True, type=Path, help="folder of the report")
    add(
        "--runs", type=Path, default=None, help="folder of earlier reports for the leaderboard; default: that of output"
    )
    add("--seed", type=int, default=123, help="of the bootstrap, the folds and the untrained networks")
    add("--draws", type=int, default=1000, help="of the bootstrap over singers")
    add("--rank_protocol", choices=("exact", "paper"), default="exact", help="of the mean normalised rank")
    add("--probe", choices=("knn", "linear", "none"), default="knn", help="of the singer identification")
    add("--map", choices=("pca", "umap"), default="pca", help="of the picture of all embeddings")
    add("--batch_size", type=int, default=None, help="clips of one length a pass; default suits the device")
    add("--device", default=None, help="cpu, cuda, ...; default: a GPU where there is one")
    add("--no_baselines", action="store_true", help="the models alone")


def run(args: argparse.Namespace) -> int:
    """Check, embed, compare, write; print the verdict."""
    import ssl_audio.evaluation.report as report  # needs matplotlib: fail now, not after the embedding
    from ssl_audio.evaluation.comparison import evaluate, load_test_set
    from ssl_audio.evaluation.embeddings import TestedModel, embed_recordings

    if args.trials and len(args.trials) != len(args.data):
        raise InputError(f"{len(args.trials)} --trials for {len(args.data)} --data; give one list a data set, or none")
    if args.draws < 100:
        raise InputError(f"--draws must be at least 100 for an interval, got {args.draws}")
    lists = args.trials or [None] * len(args.data)
    sets = [load_test_set(*pair, args.metadata, args.seed) for pair in zip(args.data, lists, strict=True)]
    if len({test_set.name for test_set in sets}) < len(sets):
        raise InputError("two --data folders have the same name; rename one, or evaluate them one by one")
    models = _load(args)
    evaluations = []
    for test_set in sets:
        for name, (model, baseline) in models.items():
            label = f"{name} on {test_set.name}"
            paths = test_set.recordings.paths()
            embeddings = embed_recordings(TestedModel(model), paths, args.batch_size, args.device, label)
            evaluations.append(evaluate(
                name, embeddings, test_set, baseline=baseline, seed=args.seed, draws=args.draws,
                rank_protocol=args.rank_protocol, probe=None if args.probe == "none" else args.probe,
            ))  # fmt: skip
    settings = {key: _plain(value) for key, value in vars(args).items()}
    sentences = report.write_report(
        evaluations, args.output, settings=settings, runs=args.runs, map_method=args.map, seed=args.seed
    )
    print("\n".join(sentences))
    print(f"report: {args.output / report.REPORT}")
    return 0


def _load(args: argparse.Namespace) -> dict[str, tuple[Any, bool]]:
    """{name: (model, whether it is a baseline)}, one untrained twin for each architecture."""
    from ssl_audio.commands.eval import load_encoder, model_name
    from ssl_audio.config import describe
    from ssl_audio.evaluation.baselines import mean_mel, mfcc_statistics, untrained

    models: dict[str, tuple[Any, bool]] = {}
    twins: dict[str, tuple[str, Any]] = {}
    for given in args.model:
        name = model_name(given)
        while name in models:
            name += "'"
        model = load_encoder(given, args.source)
        models[name] = (model, False)
        try:
            architecture = json.dumps(describe(model), sort_keys=True, default=str)
        except InputError:  # TorchScript: nothing tells how it was built
            continue
        twins.setdefault(architecture, (name, model))
    if args.no_baselines:
        return models
    for name, model in twins.values():
        label = "untrained" if len(twins) == 1 else f"untrained {name}"
        models[label] = (untrained(model, args.seed), True)
    return models | {"MFCC statistics": (mfcc_statistics(), True), "mean mel": (mean_mel(), True)}


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
