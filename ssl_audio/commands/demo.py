"""Make synthetic singers, train an embedding on some of them, and evaluate it on the others.

The voices are synthesised by a source-filter model. Each step is a command of this project; it is printed, so that you
can run it again on your own folders. If training did not clearly help, the demo says so and ends with status 1.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

from ssl_audio.errors import InputError

EXAMPLES = """examples:
  ssl-audio demo --output demo
  ssl-audio demo --output demo-byol --method byol
"""

SEGMENT_SECONDS = 3
SAMPLE_RATE = 16000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", default="demo", type=Path, help="folder for data, run and report (demo)")
    parser.add_argument("--method", default="contrastive", help="packaged config of a method (contrastive)")
    parser.add_argument("--singers", default=48, type=int, help="number of singers to train on (48)")
    parser.add_argument("--unseen", default=32, type=int, help="number of other singers, for the evaluation (32)")
    parser.add_argument("--songs", default=6, type=int, help="songs per singer (6)")
    parser.add_argument("--seed", default=0, type=int, help="seed of the voices, the training and the trials (0)")
    parser.add_argument("overrides", nargs="*", metavar="--KEY VALUE", help="options of ssl-audio train, after --")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    folder: Path = args.output
    if args.singers < 4 or args.unseen < 4 or args.songs < 2:
        raise InputError("the demo needs at least 4 --singers, 4 --unseen singers and 2 --songs to measure anything")
    write_voices(folder, args)
    _command(
        "preprocess", "--dataset_root_dir", folder, "--dataset_name", "unseen",
        "--segment_length", SEGMENT_SECONDS, "--sample_rate", SAMPLE_RATE,
    )  # fmt: skip
    segments = folder / f"unseen_renamed_split_{SEGMENT_SECONDS}s"
    _command("pairs", "-r", segments, "-o", folder / "metadata", "-n", args.unseen, "-p", 4000, "-s", args.seed)
    runs = folder / "runs"
    options = {"--data.dataset_dirs": folder / "singers", "--trainer.logger.save_dir": runs}
    options["--seed_everything"] = args.seed
    if args.singers < 20:
        options["--data.eval_frac"] = round(2 / args.singers, 3)  # two singers at least
    given = {str(word).split("=")[0] for word in args.overrides}  # an option given twice is refused
    own = [word for option, value in options.items() if option not in given for word in (option, value)]
    _command(
        "train", "--config", "common", "--config", args.method,
        "--config", "recipes/small-voices", "--config", "demo", *own, *args.overrides,
    )  # fmt: skip
    newest = max((path.parent for path in runs.rglob("config.yaml")), key=lambda path: path.stat().st_mtime)
    report = folder / "report"
    _command(
        "evaluate", "--model", newest, "--data", segments,
        "--trials", folder / "metadata" / segments.name / "speaker_pairs.txt", "--output", report,
    )  # fmt: skip
    return conclude(newest, report, time.monotonic() - began)


def write_voices(folder: Path, args: argparse.Namespace) -> None:
    """Write `folder/singers` to train on and `folder/unseen` to test on. Recordings that exist are kept."""
    from tqdm import tqdm

    from ssl_audio.data.synthetic import write_dataset

    for name, first, count in (("singers", 0, args.singers), ("unseen", args.singers, args.unseen)):
        files = write_dataset(folder / name, count, args.songs, first_singer=first, seed=args.seed)
        for _ in tqdm(files, total=count * args.songs, desc=f"writing {folder / name}", unit="song"):
            pass


def _command(*arguments: object) -> None:
    """Print a command as one types it, and run it in a process of its own."""
    words = [str(word) for word in arguments]
    print(f"\n$ ssl-audio {shlex.join(words)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "ssl_audio.cli", *words]).returncode
    if status:
        raise InputError(f"ssl-audio {words[0]} ended with status {status}; its own message above says why")


def conclude(run_folder: Path, report: Path, seconds: float) -> int:
    """Print the table, the plots and the next commands. Returns 1 if training did not clearly help, and says why."""
    trained, untrained, test = read_metrics(report / "metrics.json")
    print(f"\n{'':<12}{'EER':>22}{'mean normalised rank':>26}")
    for name, metrics in (("untrained", untrained), ("trained", trained)):
        print(f"{name:<12}{_percent(metrics, 'eer'):>22}{_percent(metrics, 'mnr'):>26}")
    print(f"{trained['n_trials']} trials of {trained['n_singers']} singers who were not in training; lower is better; "
          "95 % intervals over singers")  # fmt: skip
    plots = {
        "loss curve": run_folder / "plots" / "loss.png",
        "scores": next((report / "plots").rglob("scores*.png")),
        "map": next((report / "plots").rglob("map*.png")),
    }
    print(f"\n{'run folder':<12}{run_folder}")
    for name, path in (*plots.items(), ("report", report / "report.html")):
        print(f"{name:<12}{path}")
    print(f"{'took':<12}{seconds:.0f} s")
    if test["interval"][1] >= 0:
        low, high = (100 * bound for bound in test["interval"])
        print(
            f"error: training did not clearly help: its EER differs from the untrained network's by {low:.1f} to "
            f"{high:.1f} points (95 % paired interval); look at the loss curve, or train longer with: "
            "-- --trainer.max_steps 2000",
            file=sys.stderr,
        )
        return 1
    print("""
next, with your own recordings in my_voices/NAME/*.wav:
  ssl-audio train --config common --config contrastive --config recipes/small-voices \\
      --data.dataset_dirs my_voices
  ssl-audio evaluate --model runs/contrastive/0 --data held_out_voices --output report
  ssl-audio embed held_out_voices --model runs/contrastive/0 --output embeddings.parquet""")
    return 0


def read_metrics(path: Path) -> tuple[dict, dict, dict]:
    """From the `metrics.json` of a report: the trained model, the same network untrained, and their paired test."""
    results = json.loads(path.read_text(encoding="utf-8"))
    (name,) = (name for name, sets in results["models"].items() if not any(row["baseline"] for row in sets.values()))
    (trained,), (untrained,) = results["models"][name].values(), results["models"]["untrained"].values()
    test = next(test for test in results["comparisons"] if {test["first"], test["second"]} == {name, "untrained"})
    if test["second"] == name:
        low, high = test["interval"]
        test = test | {"difference": -test["difference"], "interval": [-high, -low]}
    return trained, untrained, test


def _percent(metrics: dict, name: str) -> str:
    low, high = metrics[f"{name}_interval"]
    return f"{100 * metrics[name]:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
