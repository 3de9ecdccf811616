"""Teach a small network to embed your recordings as a large one does, without labels.

Five steps: the teacher's embeddings of all recordings go into OUTPUT/teacher.parquet (an interrupted run continues),
the student is trained for some minutes, both are tested on people who were held out, the student is exported to ONNX in
floating point and in 8 bits, and one table says what was lost. RECORDINGS is a folder person/**/file; with files
directly in it, no labels are known, and only shared neighbours are reported.
"""

import argparse
import json
import math
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssl_audio.commands._models import MODEL, add_trusted, load
from ssl_audio.errors import InputError, suggest

if TYPE_CHECKING:
    from ssl_audio.evaluation.distillation import Kept
    from ssl_audio.model import EmbeddingModel

EXAMPLES = """examples:
  ssl-audio distil my_voices --teacher package:resemblyzer --student compact --output small
  a network and a training of your own, keys as in `ssl-audio train`:
    ssl-audio distil my_voices --teacher byol --student my-student.yaml --output small --minutes 60 --window 4
"""

STUDENTS: dict[str, str | None] = {  # the config of the encoder, stacked on `distil`
    "compact": None,
    "mobilenet": "encoder/mobilenet_v3",
    "eres2net": "encoder/eres2net",
}
HELD_OUT = 0.2  # share of people
_DRAWS = 3200  # clips in an epoch, about: each is followed by a validation
_TIMED_SECONDS = 60.0  # of audio, at most


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recordings", type=Path, help="folder person/**/file, or of files")
    parser.add_argument("--teacher", required=True, help=MODEL)
    parser.add_argument("--source", help="folder or Hub id in which --teacher is a name")
    add_trusted(parser)
    names = ", ".join(STUDENTS)
    parser.add_argument("--student", default="compact", help=f"{names}, or a config file (compact)")
    parser.add_argument("--output", required=True, type=Path, help="folder for table, run and student")
    parser.add_argument("--minutes", type=float, default=20.0, help="of training (20)")
    parser.add_argument("--window", type=float, default=1.6, help="length of the clips in seconds (1.6)")
    parser.add_argument("--hop", type=float, help="from one clip of a recording to the next in seconds (half a window)")
    parser.add_argument("--restart", action="store_true", help="discard the table of an earlier run")
    parser.add_argument("--licence", help="of the student, for its card; what the teacher's licence allows")
    parser.add_argument("--seed", type=int, default=0, help="of split and training (0)")
    parser.add_argument("--device", help="for the teacher's table: cpu, cuda, ... (default: a GPU if there is one)")


def run(args: argparse.Namespace) -> int:
    _check(args)
    from ssl_audio.export import OnnxModel, describe_onnx, export_onnx, quantize_onnx
    from ssl_audio.hub import load_model, save_model

    teacher = load(args, args.teacher)
    warning = licence_warning(teacher.licence)
    if warning:
        print(f"warning: {warning}")
    table = write_table(teacher, args)
    config, grouped = _stack(args), _is_grouped(args.recordings)
    held_out, taught = held_out_files(args, config, grouped)
    run_folder = train(table, config, args, grouped, taught)
    student = load_model(run_folder / "checkpoints" / "last.ckpt")
    folder = args.output / "student"
    folder.mkdir(exist_ok=True)
    floats = export_onnx(student, folder / "model.onnx")
    int8 = quantize_onnx(student, folder / "model.onnx", folder / "model.int8.onnx")
    models = {"teacher": teacher, "student": student, "student int8": OnnxModel(int8.path, student)}
    kept, costs = evaluate(models, args, held_out, grouped)
    for name, size in (("student", floats.size), ("student int8", int8.size)):
        costs[name]["megabytes"] = size / 1e6
    student.calibration = _calibrated(student, args, grouped)
    lines = format_table(kept, costs)
    what = _described(args, teacher, warning, taught, held_out, lines)
    from ssl_audio.hub.card import model_card

    save_model(student, folder, model_card(student, folder.name, args.licence, what, run_folder / "config.yaml"))
    for path in (floats.path, int8.path):
        describe_onnx(student, path)
    from ssl_audio.utils.files import write_text

    results = [row.metrics() | costs[row.name] for row in kept]
    write_text(args.output / "results.json", json.dumps(results, indent=1))
    print("\n".join(["", *lines]))
    print(
        f"\nstudent: {folder} (load_model, model.onnx, model.int8.onnx, README.md); figures: {args.output}/results.json"
    )
    return 0


def _check(args: argparse.Namespace) -> None:
    """Refuse what could only fail later."""
    if not args.recordings.is_dir():
        raise InputError(f"{args.recordings}: no such folder of recordings")
    if args.student not in STUDENTS and not args.student.endswith((".yaml", ".yml")):
        raise InputError(f"--student {args.student} is neither known nor a .yaml file{suggest(args.student, STUDENTS)}")
    for name in ("minutes", "window", "hop"):
        value = getattr(args, name)
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise InputError(f"--{name} must be above 0, not {value}")


def licence_warning(licence: str) -> str:
    """What to say of a teacher whose licence forbids derivatives; "" of others.

    Example:
        >>> licence_warning("mit")
        ''
        >>> licence_warning("cc-by-nc-nd-4.0").partition(",")[0]
        "the teacher's licence is cc-by-nc-nd-4.0"
    """
    if not re.search(r"(?i)\bnd\b|no.?deriv", licence):
        return ""
    return f"the teacher's licence is {licence}, which forbids derivatives: do not pass the student on"


def write_table(teacher: "EmbeddingModel", args: argparse.Namespace) -> Path:
    """`OUTPUT/teacher.parquet`; what is there already of the same teacher and windows is kept."""
    from tqdm import tqdm

    from ssl_audio.embedding.table import SHARD, EmbeddingTable, files_to_embed
    from ssl_audio.utils.device import best_device

    path = args.output / "teacher.parquet"
    settings = {"window_seconds": args.window, "hop_seconds": args.hop or args.window / 2, "aggregate": None}
    if path.exists() and not args.restart:
        _check_same(path, teacher, settings)
        print(f"{path}: kept")
        return path
    files = files_to_embed(str(args.recordings))
    table = EmbeddingTable(teacher, files, path, settings, args.restart)
    missing = table.missing()
    done = (table.shards - len(missing)) * SHARD
    with tqdm(desc="teacher", total=len(files), initial=min(done, len(files)), unit="file", delay=2) as bar:
        last = -1

        def on_result(result: Any) -> None:
            nonlocal last
            bar.update(result.index - last)
            last = result.index

        table.write_shards(missing, on_result, device=best_device(args.device))
    clips, unreadable = table.assemble()
    left_out = f"; {unreadable} unreadable files, see {table.unreadable}" if unreadable else ""
    print(f"{path}: {clips} windows of {len(files) - unreadable} recordings{left_out}")
    teacher.to("cpu")
    return path


def _check_same(path: Path, teacher: "EmbeddingModel", settings: dict[str, Any]) -> None:
    import pyarrow.parquet as pq

    from ssl_audio.provenance import fingerprint

    about = {key.decode(): value.decode() for key, value in (pq.read_schema(path).metadata or {}).items()}
    expected = {"model": fingerprint(teacher), **{k: str(v) for k, v in settings.items() if v is not None}}
    differing = [name for name, value in expected.items() if about.get(name) != value]
    if differing:
        raise InputError(
            f"{path} was written with other {', '.join(differing)}; give the same, another --output, or --restart"
        )


def _stack(args: argparse.Namespace) -> list[str]:
    """The config files of the training."""
    of_student = STUDENTS.get(args.student, args.student)
    return ["common", "distil", *([of_student] if of_student else [])]


def _is_grouped(recordings: Path) -> bool:
    """Whether each recording lies in a folder of its person."""
    from ssl_audio.audio import find_audio_files

    return all(path.parent != recordings for path in find_audio_files(recordings))


def held_out_files(args: argparse.Namespace, config: list[str], grouped: bool) -> tuple[list[str], int]:
    """Paths, relative to RECORDINGS, of what the training holds out; and how many recordings it takes.

    Raises:
        InputError: too little is held out to test anything.
    """
    from ssl_audio.data.sources import Folders

    rate, samples = _clip(args, config)
    source = Folders(str(args.recordings), grouped, seed=args.seed)
    index = source.scan(progress=False).at_least(samples, rate)
    train, held_out = source.split(index, HELD_OUT, args.seed)
    root = args.recordings.resolve()
    files = [Path(e.path).resolve().relative_to(root).as_posix() for group in held_out for e in group.entries]
    if len(files) < 4 or (grouped and len(held_out) < 2):
        raise InputError(
            f"{args.recordings}: {len(files)} recordings of {len(held_out)} groups are held out, too few to test on; "
            f"add recordings of at least {args.window:g} s, or make --window smaller"
        )
    return files, sum(len(group.entries) for group in train)


def _clip(args: argparse.Namespace, config: list[str]) -> tuple[int, int]:
    """(sample rate, samples of a clip) of the student."""
    from ssl_audio.training.config import stack

    rate = stack(config)["data"]["init_args"]["sample_rate"]
    return rate, round(args.window * rate)


def train(table: Path, config: list[str], args: argparse.Namespace, grouped: bool, recordings: int) -> Path:
    """Train the student; returns the run folder."""
    from ssl_audio.cli import run_command

    seconds = max(1, round(60 * args.minutes))
    budget = f"{seconds // 86400:02d}:{seconds // 3600 % 24:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    runs = args.output / "runs"
    given = {
        "data.dataset_dirs": json.dumps([str(args.recordings)]),
        "data.tables": json.dumps([str(table)]),
        "data.nr_samples": _clip(args, config)[1],
        "data.group_by_artist": str(grouped).lower(),
        "data.eval_frac": HELD_OUT,
        "data.multi_epoch": max(1, _DRAWS // recordings),
        "model.lr_scheduler.warmup": min(0.25, args.minutes / 10),
        "trainer.max_time": budget,
        "trainer.logger.save_dir": runs,
        "seed_everything": args.seed,
    }
    words = [word for name in config for word in ("--config", name)]
    words += [str(word) for key, value in given.items() for word in (f"--{key}", value)]
    status = run_command("train", words)
    if status:
        raise InputError(f"the training ended with status {status}; its own message above says why")
    return max((path.parent for path in runs.rglob("config.yaml")), key=lambda path: path.stat().st_mtime)


def evaluate(
    models: dict[str, Any], args: argparse.Namespace, files: list[str], grouped: bool
) -> tuple[list["Kept"], dict[str, dict[str, float]]]:
    """What each model keeps, and {model: {parameters, megabytes, times_real_time}}."""
    from ssl_audio.embedding.recordings import embed_recordings
    from ssl_audio.evaluation.distillation import compare_with_teacher

    paths, trials = [args.recordings / name for name in files], None
    if grouped:
        trials = _held_out_trials(args, files)
        paths = [args.recordings / name for name in trials.files]
    embeddings = {name: embed_recordings(model, paths, device="cpu", progress=name) for name, model in models.items()}
    parameters = {name: sum(p.numel() for p in model.parameters()) for name, model in models.items()}
    parameters["student int8"] = parameters["student"]
    costs = {
        name: {
            "parameters": parameters[name],
            "megabytes": 4e-6 * parameters[name],
            "times_real_time": times_real_time(model, paths),
        }
        for name, model in models.items()
    }
    return compare_with_teacher(embeddings, trials, args.seed), costs


def _held_out_trials(args: argparse.Namespace, files: list[str]) -> Any:
    """All pairs of the held-out recordings, at most 40,000; also in `OUTPUT/trials.txt`."""
    from ssl_audio.evaluation.comparison import MAX_TRIALS
    from ssl_audio.evaluation.recordings import find_recordings
    from ssl_audio.evaluation.trials import all_pairs, check_decidable
    from ssl_audio.utils.files import write_text

    found = find_recordings(args.recordings)
    wanted = set(files)
    trials = all_pairs(found.at([i for i, name in enumerate(found.files) if name in wanted]), MAX_TRIALS, args.seed)
    check_decidable(trials)
    names = trials.files
    lines = [f"{int(same)},{names[a]},{names[b]}" for same, (a, b) in zip(trials.labels, trials.pairs, strict=True)]
    write_text(args.output / "trials.txt", "\n".join(lines) + "\n")
    return trials


def times_real_time(model: Any, paths: list[Path]) -> float:
    """Seconds of audio that a model embeds in a second on this machine's CPU, reading included."""
    from ssl_audio.audio import info
    from ssl_audio.embedding import embed_files

    some, seconds = [], 0.0
    for path in paths:
        some.append(path)
        seconds += info(path).seconds
        if seconds >= _TIMED_SECONDS:
            break
    began = time.perf_counter()
    for _ in embed_files(model, some, device="cpu"):
        pass
    return seconds / (time.perf_counter() - began)


def _calibrated(student: "EmbeddingModel", args: argparse.Namespace, grouped: bool) -> Any:
    """A calibration on the people held out; None, and a line that says why, where it cannot be fitted."""
    if not grouped:
        return None
    from ssl_audio.decisions.calibrating import calibrate

    try:
        return calibrate(student, args.recordings, trials=args.output / "trials.txt", seed=args.seed, device="cpu")
    except InputError as error:
        print(f"no calibration: {error}")
        return None


def format_table(kept: list["Kept"], costs: dict[str, dict[str, float]]) -> list[str]:
    """The table as lines of Markdown."""
    head = [
        "model",
        "EER %",
        "difference",
        "MNR",
        "difference",
        "same 10 neighbours %",
        "parameters",
        "MB",
        "x real time",
    ]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in kept:
        found, cost = row.verification, costs[row.name]
        cells = [row.name]
        for name, scale, digits in (("eer", 100, 1), ("mnr", 1, 3)):
            cells.append("" if found is None else f"{scale * getattr(found, name):.{digits}f}")
            difference = row.differences.get(name)
            cells.append("" if difference is None else _between(scale, digits, *difference))
        cells.append("" if row.overlap is None else _between(100, 0, row.overlap, row.overlap_interval, sign=""))
        cells += [f"{cost['parameters']:,}", f"{cost['megabytes']:.1f}", f"{cost['times_real_time']:.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, "", "Differences to the teacher and shares have 95 % intervals, paired, by a bootstrap."]


def _between(scale: float, digits: int, value: float, bounds: Any, sign: str = "+") -> str:
    low, high = (f"{scale * bound:{sign}.{digits}f}" for bound in bounds)
    return f"{scale * value:{sign}.{digits}f} ({low} to {high})"


def _described(
    args: argparse.Namespace,
    teacher: "EmbeddingModel",
    warning: str,
    taught: int,
    held_out: list[str],
    lines: list[str],
) -> str:
    """The card's paragraph on training data: teacher, licence, recordings, and the table."""
    from ssl_audio.provenance import fingerprint

    whole = (
        f"A student of {args.teacher} (fingerprint {fingerprint(teacher)}, licence: {teacher.licence}): it learnt to "
        f"predict the teacher's embeddings of {taught} recordings in {args.recordings.resolve().name}, without labels, "
        f"in windows of {args.window:g} s, for {args.minutes:g} minutes. Tested on {len(held_out)} others:"
    )
    return "\n".join([whole, *([f"\n**Warning:** {warning}."] if warning else []), "", *lines])
