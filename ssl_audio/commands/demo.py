"""From nothing to a verified singer embedding: synthetic singers, preparation, training, evaluation on unseen singers.

Runs the project's own commands on a small data set of source-filter voices, printing each so that it can be typed again
with other folders. Fails, with a reason, if training did not clearly help.
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
    parser.add_argument("--method", default="contrastive", help="a packaged config with a method (contrastive)")
    parser.add_argument("--singers", default=48, type=int, help="singers to train on (48)")
    parser.add_argument("--unseen", default=32, type=int, help="other singers, for the evaluation (32)")
    parser.add_argument("--songs", default=6, type=int, help="songs a singer (6)")
    parser.add_argument("--seed", default=0, type=int, help="of the voices, the training and the trials (0)")
    parser.add_argument("overrides", nargs="*", metavar="KEY VALUE", help="after --: passed on to training, as there")


def run(args: argparse.Namespace) -> int:
    began = time.monotonic()
    folder: Path = args.output
    if args.singers < 4 or args.unseen < 4 or args.songs < 2:
        raise InputError(
            "the demo needs at least 4 --singers, 4 --unseen singers and 2 --songs, or nothing can be measured"
        )
    write_voices(folder, args)
    _command(
        "preprocess_dataset.py", "preprocess", "--dataset_root_dir", folder, "--dataset_name", "unseen",
        "--segment_length", SEGMENT_SECONDS, "--sample_rate", SAMPLE_RATE,
    )  # fmt: skip
    segments = folder / f"unseen_renamed_split_{SEGMENT_SECONDS}s"
    _command(
        "create_speaker_pairs.py", "pairs", "-r", segments, "-o", folder / "metadata",
        "-n", args.unseen, "-p", 4000, "-s", args.seed,
    )  # fmt: skip
    runs = folder / "runs"
    _command(
        "train.py", "train", "--config", "common", "--config", args.method,
        "--config", "recipes/small-voices", "--config", "demo",
        "--data.dataset_dirs", folder / "singers",
        "--trainer.logger.save_dir", runs, "--seed_everything", args.seed, *args.overrides,
    )  # fmt: skip
    newest = max((path.parent for path in runs.rglob("config.yaml")), key=lambda path: path.stat().st_mtime)
    report = folder / "report"
    _command(
        "ssl-audio evaluate", "evaluate", "--model", newest, "--data", segments,
        "--trials", folder / "metadata" / segments.name / "speaker_pairs.txt", "--output", report,
    )  # fmt: skip
    return conclude(newest, report, time.monotonic() - began)


def write_voices(folder: Path, args: argparse.Namespace) -> None:
    """`folder/singers` to train on and `folder/unseen` to test on; what is there already is kept."""
    from tqdm import tqdm

    from ssl_audio.data.synthetic import write_dataset

    for name, first, count in (("singers", 0, args.singers), ("unseen", args.singers, args.unseen)):
        files = write_dataset(folder / name, count, args.songs, first_singer=first, seed=args.seed)
        for _ in tqdm(files, total=count * args.songs, desc=f"writing {folder / name}", unit="song"):
            pass


def _command(shown: str, name: str, *arguments: object) -> None:
    """Print a command as one would type it in a clone, and run it in a process of its own."""
    words = [str(word) for word in arguments]
    program = shown if shown.startswith("ssl-audio") else f"python {shown}"
    print(f"\n$ {program} {shlex.join(words)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "ssl_audio.cli", name, *words]).returncode
    if status:
        raise InputError(f"{shown} ended with status {status}; what it printed above says why")


def conclude(run_folder: Path, report: Path, seconds: float) -> int:
    """Print the table, the pictures and what to type next. Returns 1 if training did not clearly help, and says why."""
    trained, untrained, test = read_figures(report / "metrics.json")
    print(f"\n{'':<12}{'EER':>22}{'mean normalised rank':>26}")
    for name, figures in (("untrained", untrained), ("trained", trained)):
        print(f"{name:<12}{_percent(figures, 'eer'):>22}{_percent(figures, 'mnr'):>26}")
    print(f"{trained['n_trials']} trials of {trained['n_singers']} singers who were not in training; lower is better; "
          "95 % intervals over singers")  # fmt: skip
    pictures = {
        "loss curve": run_folder / "plots" / "loss.png",
        "scores": next((report / "plots").rglob("scores*.png")),
        "map": next((report / "plots").rglob("map*.png")),
    }
    print(f"\n{'run folder':<12}{run_folder}")
    for name, path in (*pictures.items(), ("report", report / "report.html")):
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
  python train.py --config common --config contrastive --config recipes/small-voices \\
      --data.dataset_dirs my_voices
  ssl-audio evaluate --model runs/contrastive/0 --data held_out_voices --output report
  ssl-audio embed held_out_voices --model runs/contrastive/0 --output embeddings.parquet""")
    return 0


def read_figures(metrics: Path) -> tuple[dict, dict, dict]:
    """Figures of the trained model and of the same network untrained, and their paired test, of a report."""
    results = json.loads(metrics.read_text(encoding="utf-8"))
    (name,) = (name for name, sets in results["models"].items() if not any(row["baseline"] for row in sets.values()))
    (trained,), (untrained,) = results["models"][name].values(), results["models"]["untrained"].values()
    test = next(test for test in results["comparisons"] if {test["first"], test["second"]} == {name, "untrained"})
    if test["second"] == name:
        low, high = test["interval"]
        test = test | {"difference": -test["difference"], "interval": [-high, -low]}
    return trained, untrained, test


def _percent(figures: dict, name: str) -> str:
    low, high = figures[f"{name}_interval"]
    return f"{100 * figures[name]:.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
