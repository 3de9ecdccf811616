"""Train the runs of a sweep file, each in its own process, and compare them in one table.

The file names a stack of configs and the keys that differ from run to run (see ssl_audio.training.sweep). Options after
-- hold for all runs. OUTPUT/RUN is an ordinary run folder; OUTPUT/table.csv is the table.

Run the command again after an interruption: it skips finished runs, and unfinished ones continue from their last
checkpoint. A run that fails is reported and does not stop the others.

Exit status: 0; 1 if a run failed; 2 if nothing was done.
"""

import argparse
import queue
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ssl_audio.cli import search_working_folder
from ssl_audio.errors import InputError, suggest

EXAMPLES = """examples:
  ssl-audio sweep sweeps/wavebyol --list
  ssl-audio sweep sweeps/wavebyol --output sweeps/wavebyol -- --data.dataset_dirs '[my_sounds]' --config hardware/gpu
  with EER and MNR of each run:
    ssl-audio sweep my_sweep.yaml --output sweeps/mine --evaluate held_out_voices
  four runs at a time, one per GPU:
    ssl-audio sweep my_sweep.yaml --output sweeps/mine --gpus 0 1 2 3
  on the workers of a Dask cluster:
    ssl-audio sweep my_sweep.yaml --output sweeps/mine --scheduler node1:8786
  only these runs, as in a job array:
    ssl-audio sweep my_sweep.yaml --output sweeps/mine --run h1 --run h2
"""


def main(arguments: Sequence[str]) -> int:
    """Parse the arguments before `--`; those after it are options of `ssl-audio train` for every run."""
    from ssl_audio.cli import make_parser, with_underscores

    parser = make_parser("sweep")
    parser.usage = "%(prog)s SWEEP --output OUTPUT [options] [-- --KEY VALUE ...]"
    words = with_underscores(arguments)
    end = words.index("--") if "--" in words else len(words)
    return run(parser.parse_args(words[:end]), words[end + 1 :])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("sweep", metavar="SWEEP", help="a YAML file, or the name of a packaged one such as sweeps/wavebyol")
    add("--output", type=Path, help="folder of the runs and the table")
    add("--list", action="store_true", help="print the runs and their keys, and stop")
    add("--run", action="append", default=[], metavar="NAME", help="only this run, by name or number; repeatable")
    add("--evaluate", action="append", default=[], metavar="FOLDER",
        help="test the finished runs on this folder of singer/**/file; repeatable")  # fmt: skip
    add("--jobs", type=int, default=1, metavar="N", help="runs at a time on this machine (1)")
    add("--gpus", nargs="+", metavar="ID", help="train on these GPUs, one run at a time on each")
    add("--scheduler", metavar="HOST:PORT",
        help="train on the workers of this Dask cluster, which must see OUTPUT; needs ssl-audio[dask]")  # fmt: skip


def run(args: argparse.Namespace, overrides_of_all: Sequence[str] = ()) -> int:
    """Check everything, train the unfinished runs, evaluate, write and print the table."""
    from ssl_audio.training import sweep
    from ssl_audio.training.arguments import read_arguments

    search_working_folder()
    # The options are those of `ssl-audio train`, which begin with a config.
    options = read_arguments(["--config", args.sweep, *overrides_of_all])
    runs = sweep.read_sweep(options.files[0], options.files[1:], options.overrides)
    chosen = _chosen([run.name for run in runs], args.run)
    if args.list:
        print("\n".join(f"{number:>3}  {run.name}  {run.changes or ''}" for number, run in enumerate(runs)))
        return 0
    if args.output is None:
        raise InputError("--output is missing; give a folder for the runs, or --list to print them")
    if args.jobs < 1:
        raise InputError(f"--jobs is {args.jobs}; it must be at least 1")
    if args.gpus and args.scheduler:
        raise InputError("--gpus are GPUs of this machine; with --scheduler, start each Dask worker with its own GPU")
    for folder in args.evaluate:
        if not Path(folder).is_dir():
            raise InputError(f"--evaluate {folder}: no such folder; give a folder of singer/**/file")
    output = args.output.resolve()
    todo = [run.name for run in runs if run.name in chosen and sweep.prepare(run, output)]
    if len(todo) < len(chosen):
        print(f"{len(chosen) - len(todo)} of {len(chosen)} runs are finished already", flush=True)
    failed = {name: reason for name, reason in _train(todo, output, args) if reason}
    report = output / "report" / "metrics.json"
    evaluated = not args.evaluate or _evaluate([output / run.name for run in runs], args.evaluate, report.parent)
    rows = sweep.gather(runs, output, failed, report if report.is_file() else None)
    print(f"{sweep.format_table(rows)}\ntable: {args.output / 'table.csv'}")
    return 0 if evaluated and not failed else 1


def _chosen(names: list[str], wanted: list[str]) -> list[str]:
    """The names of the runs that were given by name or number; all names if none was."""
    chosen = []
    for word in wanted:
        name = names[int(word)] if word not in names and word.isdigit() and int(word) < len(names) else word
        if name not in names:
            raise InputError(f"--run {word}: the sweep has no such run{suggest(word, names)}")
        chosen.append(name)
    return list(dict.fromkeys(chosen)) or names


def _train(names: list[str], output: Path, args: argparse.Namespace) -> Iterable[tuple[str, str]]:
    """(name, reason of failure or "") of each run, in the order in which they end."""
    import joblib
    from tqdm import tqdm

    from ssl_audio.training import sweep

    free: queue.Queue[str] = queue.Queue()
    for gpu in args.gpus or ():
        free.put(gpu)

    def on_a_gpu(name: str) -> sweep.Outcome:
        gpu = free.get()
        try:
            return sweep.train(name, output, {"CUDA_VISIBLE_DEVICES": gpu})
        finally:
            free.put(gpu)

    task = on_a_gpu if args.gpus else sweep.train
    with _workers(args.scheduler):
        backend = {} if args.scheduler else {"backend": "threading", "n_jobs": len(args.gpus or ()) or args.jobs}
        parallel = joblib.Parallel(**backend, pre_dispatch="n_jobs", batch_size=1, return_as="generator_unordered")
        jobs = (joblib.delayed(task)(name, *(() if args.gpus else (output,))) for name in names)
        for outcome in tqdm(parallel(jobs), "training", len(names), unit="run", disable=None if names else True):
            if outcome.reason:
                tqdm.write(f"run {outcome.name} failed: {outcome.reason}", file=sys.stderr)
                tqdm.write(f"    log: {output / outcome.name / sweep.LOG}", file=sys.stderr)
            yield outcome


@contextmanager
def _workers(scheduler: str | None) -> Iterator[None]:
    """Inside, joblib sends its work to the Dask cluster, if there is one.

    Raises:
        InputError: no scheduler answers at this address.
        ModuleNotFoundError: Dask is not installed.
    """
    if scheduler is None:
        yield
        return
    import joblib
    from distributed import Client

    try:
        client = Client(scheduler, timeout=30)
    except (OSError, TimeoutError, ValueError) as error:
        raise InputError(
            f"--scheduler {scheduler}: no Dask scheduler answers ({error}); give the address that it prints"
        ) from error
    with client, joblib.parallel_config("dask", n_jobs=-1):
        yield


def _evaluate(folders: list[Path], data: list[str], report: Path) -> bool:
    """Write one report on all finished runs, with paired tests and baselines. Returns whether it was written."""
    from ssl_audio.cli import run_command
    from ssl_audio.training.sweep import is_finished

    models = [word for folder in folders if is_finished(folder) for word in ("--model", str(folder))]
    if not models:
        print("no run is finished, so nothing was evaluated", file=sys.stderr)
        return False
    sets = [word for folder in data for word in ("--data", folder)]
    return run_command("evaluate", [*models, *sets, "--output", str(report)]) == 0
