"""Test one model on trial lists by the published protocol: equal error rate (EER) and mean normalised rank (MNR).

Both come with 95 % intervals over singers. To compare several models in a report, use `ssl-audio evaluate`.

Reads:
  META/DATASET/speaker_pairs.txt    the trials
  ROOT/DATASET/SINGER/FILE          the recordings; every file is decoded once before the model is loaded
Writes:
  META/eer_SEED.csv, META/rank_SEED.csv    a row per model, a column per data set, in per cent
  META/DATASET/MODEL/               the score of each trial
  META/MODEL_SEED.json              everything that is needed to repeat the test
"""

import argparse
import csv
import glob
import io
import json
import os
import re
import sys
import time
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_audio.commands._models import MODEL, add_trusted, say_if_trained_on
from ssl_audio.commands._scoring import add_resamples, add_scoring_arguments, center_paths, crops, scoring_options
from ssl_audio.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from ssl_audio.embedding.recordings import EvalProtocol
    from ssl_audio.evaluation.backend import Backend, Scorer
    from ssl_audio.evaluation.trials import Trials
    from ssl_audio.model import EmbeddingModel

EXAMPLES = """examples:
  ssl-audio eval -s 123 -r DATA -d vocalset m4singer -m byol -cr True -ce True -bs 128
  ssl-audio eval -r DATA -d my_singers -m runs/byol/0 --compute_rank --rank_protocol paper
  projections only:
    ssl-audio eval -r DATA -d my_singers -m runs/byol/0 -p True -f False
  through 16 kHz and back, with reverb:
    ssl-audio eval -r DATA -d my_singers -m runs/byol/0 -du -rv
  ssl-audio eval -r DATA -d my_singers -m runs/byol/0 --normalize_scores as --cohort DATA/others
  ssl-audio eval -r DATA -d my_singers -m runs/byol/0 --calibrate DATA/others
"""

TRIALS_NAME = "speaker_pairs.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-s", "--seed", type=int, default=123, help="seed of bootstrap, paper's rank protocol and reverb (123)")
    add("-r", "--root", type=Path, default=Path("."), help="folder that holds the data sets (the current one)")
    add("-d", "--data", nargs="+", required=True, metavar="NAME", help="data sets: folders below the root")
    add(
        "-meta",
        "--metadata_dir",
        type=Path,
        default=Path("metadata"),
        help="folder of <dataset>/speaker_pairs.txt and results (metadata)",
    )
    add("-m", "--model", required=True, help=MODEL)
    add("-so", "--source", default=None, help="folder or Hub id in which --model is a name")
    add_trusted(parser)
    _add_switch(parser, "-p", "--use_projection", False, "score projections")
    _add_switch(parser, "-f", "--use_features", None, "score encoder features (the default unless -p)")
    _add_switch(parser, "-cr", "--compute_rank", False, "compute the MNR")
    _add_switch(parser, "-ce", "--compute_eer", None, "compute the EER (the default unless -cr)")
    add(
        "-bs",
        "--batch_size",
        type=int,
        default=None,
        help="clips of equal length per forward pass (default: suits the device)",
    )
    _add_switch(parser, "-du", "--downsample_upsample", False, "resample the audio to 16 kHz and back first")
    _add_switch(parser, "-rv", "--reverb", False, "add a different room to every clip, drawn from the seed")
    add("--rank_protocol", choices=("exact", "paper"), default="exact",
        help="exact: rank among all recordings of others; paper: 1,000 trials, each among 512 random ones "
        "(exact)")  # fmt: skip
    add_resamples(parser, 1000, "bootstrap resamples of the singers; 0: no intervals (1000)")
    add_scoring_arguments(parser)
    add("--device", default=None, help="cpu, cuda, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    """Test one model on every data set and print one table."""
    cases = _cases(args)
    compute_eer = args.compute_eer if args.compute_eer is not None else not args.compute_rank
    if not compute_eer and not args.compute_rank:
        raise InputError("nothing to compute: set --compute_eer or --compute_rank to True")
    if args.batch_size is not None and args.batch_size < 1:
        raise InputError(f"--batch_size must be at least 1, got {args.batch_size}")
    for option, value in (("--seed", args.seed), ("--resamples", args.draws)):
        if value < 0:
            raise InputError(f"{option} must not be negative, got {value}")
    if not compute_eer and (args.normalize_scores or args.calibrate):
        raise InputError("--normalize_scores and --calibrate change only the EER; add --compute_eer True")
    cropped = crops(args)
    from ssl_audio.embedding.recordings import EvalProtocol
    from ssl_audio.evaluation.backend import load_backend
    from ssl_audio.evaluation.recordings import Recordings
    from ssl_audio.evaluation.trials import check_files, read_trials
    from ssl_audio.evaluation.verification import check_before
    from ssl_audio.utils.device import best_device

    best_device(args.device)
    started = time.perf_counter()
    trials = {name: read_trials(args.metadata_dir / name / TRIALS_NAME, args.root / name) for name in args.data}
    for name, listed in trials.items():
        check_before(listed, args.rank_protocol if args.compute_rank else None, args.seed)
        check_files(listed, args.root / name)
    tested = [Recordings(args.root / name, t.files, t.singers, t.files) for name, t in trials.items()]
    backend, center = load_backend(tested, **scoring_options(args)), center_paths(args)
    results: list[dict[str, Any]] = []
    models: dict[str, Any] = {}
    say_if_trained_on(args.model, [args.root / name for name in args.data])
    for case in cases:
        encoder = load_encoder(args.model, args.source, projection=case == "projection", trusted=args.trusted)
        model = EvalProtocol(encoder, args.downsample_upsample, args.seed if args.reverb else None, cropped)
        models[case] = _describe(model)
        mean = _embed(args, model, center, "embedding the centre").mean(axis=0) if center else 0
        scorer = _scorer(args, model, backend, mean)
        for name, listed in trials.items():
            results.append(_test(args, model, case, name, listed, compute_eer, scorer, mean))
    _write_tables(args, results)
    record = args.metadata_dir / f"{experiment_name(args)}_{args.seed}.json"
    _write_record(record, args, models, results, trials, time.perf_counter() - started)
    print(_table(results))
    for listed in trials.values():
        if listed.note():
            print(listed.note())
    for note in dict.fromkeys(f"{r['dataset']} is not calibrated: {r['calibration_note']}" for r in results
                              if r["calibration_note"]):  # fmt: skip
        print(note)
    print(f"everything to repeat this: {record}")
    return 0


def _cases(args: argparse.Namespace) -> list[str]:
    features = args.use_features if args.use_features is not None else not args.use_projection
    cases = [name for name, wanted in (("features", features), ("projection", args.use_projection)) if wanted]
    if not cases:
        raise InputError("nothing to score: set --use_features or --use_projection to True")
    return cases


def _embed(args: argparse.Namespace, model: "EvalProtocol", paths: list[Path], label: str) -> "np.ndarray":
    from ssl_audio.embedding.recordings import embed_recordings

    return embed_recordings(model, paths, args.batch_size, args.device, label)


def _scorer(args: argparse.Namespace, model: "EvalProtocol", backend: "Backend", mean: Any) -> "Scorer":
    """Cosines, or what the cohort and the calibration trials make of them once this model has embedded them."""
    import numpy as np

    paths = backend.paths()
    others = _embed(args, model, paths, "embedding other singers") if paths else np.empty((0, model.dim), np.float32)
    return backend.scorer(others - mean)


def load_encoder(
    name: str, source: str | None = None, projection: bool = False, trusted: bool = False
) -> "EmbeddingModel":
    """Load the model to test, without its projection head unless `projection`.

    Raises:
        InputError: it has no projection head, or its weights are not finite.
    """
    from ssl_audio.hub import PUBLISHED_SOURCE, load_model

    model = load_model(name, source or PUBLISHED_SOURCE, projection=projection, trusted=trusted)
    if projection and model.head is None:
        raise InputError(f"{name} was saved without its projection head; omit -p, or give the run folder")
    if not projection and model.head is not None:
        model = model.with_parts(head=None)
    return model


def _describe(model: "EvalProtocol") -> dict[str, Any]:
    from ssl_audio.config import describe
    from ssl_audio.provenance import weights_digest

    try:
        config = describe(model.model, outside=True)
    except InputError:  # TorchScript: no constructor arguments to write down
        config = None
    return {
        "sample_rate": model.sample_rate,
        "dim": model.dim,
        "weights_sha256": weights_digest(model.model),
        "config": config,
        "licence": model.model.licence,
    }


def _test(
    args: argparse.Namespace,
    model: "EvalProtocol",
    case: str,
    name: str,
    trials: "Trials",
    compute_eer: bool,
    scorer: "Scorer",
    mean: Any,
) -> dict[str, Any]:
    from ssl_audio.evaluation.verification import verify

    paths = [args.root / name / file for file in trials.files]
    embeddings = _embed(args, model, paths, f"embedding {name}") - mean
    result = verify(
        embeddings, trials, seed=args.seed, resamples=args.draws, rank_protocol=args.rank_protocol, eer=compute_eer,
        mnr=args.compute_rank, scorer=scorer,
    )  # fmt: skip
    row = experiment_name(args) + ("_projection" if case == "projection" else "")
    if result.scores is not None:
        _write_scores(args.metadata_dir / name / experiment_name(args) / f"scores_{case}.csv", trials, result.scores)
    return {"model": row, "dataset": name, "case": case, **result.metrics()}


def experiment_name(args: argparse.Namespace) -> str:
    """The name of the model's row and folder: the model, and what was done to the audio and the scores.

    Where another model has left results under this name, the part of the path that differs comes in front.
    """
    done = {"_16khz": args.downsample_upsample, "_reverb": args.reverb}
    done |= {"_crops": args.crops is not None, "_centered": args.center is not None}
    done[f"_{args.normalize_scores}-norm"] = args.normalize_scores is not None
    name = model_name(args.model) + "".join(word for word, so in done.items() if so)
    here = _place(args.model, args.source)
    while (other := _tested_as(args.metadata_dir, name) - {here}) and here not in _tested_as(args.metadata_dir, name):
        columns = zip_longest(reversed(Path(here).parts), reversed(Path(other.pop()).parts), fillvalue="")
        differing = next((mine for mine, theirs in columns if mine != theirs and not name.startswith(f"{mine}-")), "")
        if differing in ("", os.sep):
            raise InputError(f"{args.metadata_dir} has results of another model {name}; give another --metadata_dir")
        name = f"{differing}-{name}"
    return name


def _place(model: str, source: str | None) -> str:
    """Where a model lies, by which its results are told apart from those of others."""
    path = Path(source or "", model)
    return str(path.resolve()) if path.exists() else f"{source or ''}/{model}".lstrip("/")


def _tested_as(folder: Path, name: str) -> set[str]:
    """Places of the models whose results are under a name, from the records of earlier tests."""
    found = set()
    for path in folder.glob(f"{glob.escape(name)}_*.json"):
        if path.stem.removeprefix(f"{name}_").isdigit():
            try:
                settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
                found.add(settings.get("place") or _place(settings["model"], settings.get("source")))
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue  # a file of something else
    return found


def model_name(given: str) -> str:
    """A short name for a model that was given as a name, a path or an address.

    A number is never a name by itself, because runs of two methods may have the same number.

        model_name("byol")                                         # byol
        model_name("runs/contrastive/0")                           # contrastive-0
        model_name("runs/contrastive/0/checkpoints/last.ckpt")     # contrastive-0-last
        model_name("hf:microsoft/wavlm-base?layer=6")              # wavlm-base-layer=6
    """
    from ssl_audio.hub.address import parse_address

    address = parse_address(given)
    if address is not None:
        words = [Path(address.rest).name, *(f"{key}={value}" for key, value in address.options.items())]
        return re.sub(r'[\\/:*?"<>|]', "-", "-".join(words))
    path = Path(given)
    if path.exists() and (set(path.parts) & {".", ".."} or not path.name or path.name.isdigit()):
        path = path.resolve()
    parts = [part for part in path.parts if part not in ("checkpoints", "..", ".", path.anchor)]
    first = max(len(parts) - (2 if path.suffix == ".ckpt" else 1), 0)
    while first and parts[first].isdigit():
        first -= 1
    return "-".join(parts[first:]).removesuffix(".ckpt") or path.resolve().name


def _write_scores(path: Path, trials: "Trials", scores: "np.ndarray") -> None:
    from ssl_audio.utils.files import write_atomically

    with (
        write_atomically(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label", "first", "second", "score"])
        for label, (a, b), score in zip(trials.labels, trials.pairs, scores.tolist(), strict=True):
            writer.writerow([int(label), trials.files[a], trials.files[b], f"{score:.7g}"])


def _write_tables(args: argparse.Namespace, results: list[dict[str, Any]]) -> None:
    for file, key in ((f"eer_{args.seed}.csv", "eer"), (f"rank_{args.seed}.csv", "mnr")):
        for row in dict.fromkeys(r["model"] for r in results):
            values = {r["dataset"]: round(100 * r[key], 4) for r in results if r["model"] == row and r[key] is not None}
            if values:
                add_row(args.metadata_dir / file, row, values)


def add_row(path: Path, row: str, values: dict[str, float]) -> None:
    """Set the values of a model (row) for data sets (columns) in a CSV file. Other cells stay as they are."""
    from ssl_audio.utils.files import write_text

    header, rows = ["model"], {}
    if path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            header, *lines = list(csv.reader(file)) or [header]
        rows = {line[0]: dict(zip(header[1:], line[1:], strict=False)) for line in lines if line}
    header += [name for name in values if name not in header[1:]]
    rows.setdefault(row, {}).update({name: f"{value:g}" for name, value in values.items()})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([name, *(cells.get(column, "") for column in header[1:])] for name, cells in rows.items())
    write_text(path, text.getvalue())


def _write_record(
    path: Path,
    args: argparse.Namespace,
    models: dict[str, Any],
    results: list[dict[str, Any]],
    trials: dict[str, "Trials"],
    seconds: float,
) -> None:
    from ssl_audio.provenance import git_state, versions
    from ssl_audio.utils.device import best_device
    from ssl_audio.utils.files import write_text

    record = {
        "command": sys.argv,
        "settings": {
            **{k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
            "place": _place(args.model, args.source),
        },
        "models": models,
        "trials": {name: {"file": listed.name, "sha256": listed.digest()} for name, listed in trials.items()},
        "results": results,
        "device": str(best_device(args.device)),
        "versions": versions(),
        "git": git_state(),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "seconds": round(seconds, 1),
    }
    write_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def _table(results: list[dict[str, Any]]) -> str:
    """A line per model and data set, with intervals in brackets."""

    def cell(result: dict[str, Any], key: str) -> str:
        value, around = result[key], result[f"{key}_interval"]
        if value is None:
            return "-"
        return f"{100 * value:.2f} %" + (f" [{100 * around[0]:.2f}, {100 * around[1]:.2f}]" if around else "")

    calibrated = any(r["cllr"] is not None for r in results)
    rows = [("model", "data set", "EER", "MNR", "trials", "singers", *(("Cllr (least)",) if calibrated else ()))]
    for r in results:
        singers = str(r["n_singers"])
        if r["n_paired_singers"] < r["n_singers"]:
            singers += f" (same-singer trials: {r['n_paired_singers']})"
        found = (r["model"], r["dataset"], cell(r, "eer"), cell(r, "mnr"), str(r["n_trials"]), singers)
        costs = "-" if r["cllr"] is None else f"{r['cllr']:.3f} ({r['min_cllr']:.3f})"
        rows.append((*found, costs) if calibrated else found)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _add_switch(parser: argparse.ArgumentParser, short: str, name: str, default: bool | None, text: str) -> None:
    """Add a boolean option, which is given as a flag or with True or False."""
    parser.add_argument(short, name, nargs="?", const=True, default=default, type=_boolean, metavar="True", help=text)


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"expected True or False, got {text!r}")
