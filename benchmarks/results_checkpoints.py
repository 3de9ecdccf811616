"""Which checkpoint to keep: `python -m benchmarks.results_checkpoints --data DATA --output DIR`.

For each seed: a training on real voices, split as in `benchmarks.results`, and the demo's training on synthetic ones.
Checkpoints of all epochs are kept. The one that each rule takes is tested on singers who were never trained on, by all
pairs of recordings, set by set. The table compares each rule with the last checkpoint: the difference of the EER, with
a 95 % interval over singers. What is done already is not done again. Each training uses one thread.
"""

import argparse
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import SETS, split
from ssl_audio.evaluation.bootstrap import paired_test
from ssl_audio.evaluation.recordings import find_recordings
from ssl_audio.evaluation.trials import all_pairs
from ssl_audio.evaluation.verification import verify
from ssl_audio.hub import load_model
from ssl_audio.utils.files import write_text

RESAMPLES = 1000
KEEP = ("--callbacks.periodic.every_n_epochs", "1", "--trainer.enable_progress_bar", "false")
RULES: dict[str, Callable[[Path, list[dict[str, float]]], float]] = {  # run folder, rows of epochs -> optimiser step
    "the default": lambda folder, _: load_model(folder).checkpoint["step"],
    "least verification/eer": lambda _, rows: least(rows, "verification/eer"),
    "least eer_embeddings/val": lambda _, rows: least(rows, "eer_embeddings/val"),
    "least loss/val (0.1)": lambda _, rows: least(rows, "loss/val"),
    "the last": lambda _, rows: rows[-1]["step"] + 1,
}
Tested = dict[str, tuple[float, np.ndarray]]  # by set: EER, and the EER of every resample of the singers


def least(rows: list[dict[str, float]], metric: str) -> float:
    """The optimiser step of the first epoch with the least value of a metric."""
    return min((row for row in rows if metric in row), key=lambda row: row[metric])["step"] + 1


def epochs(folder: Path) -> list[dict[str, float]]:
    """The logged metrics of each epoch's end; "step" counts from 0."""
    with open(folder / "metrics.csv", newline="", encoding="utf-8") as file:
        rows = [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
    return [row for row in rows if "loss/train_epoch" in row]


def run_of(folder: Path) -> Path | None:
    """The run folder below a folder, if its training has ended."""
    found = [path.parent for path in folder.rglob("run.json") if "best_checkpoint" in path.read_text(encoding="utf-8")]
    return found[0] if found else None


def command(folder: Path, *words: str) -> None:
    """Run a command of the project; what it says goes to `folder/log.txt`."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "log.txt", "w", encoding="utf-8") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run(
            [sys.executable, "-m", "ssl_audio.cli", *words], check=True, stdout=log, stderr=log, env=environment
        )


def real(folder: Path, splits: Path, seed: int, steps: int, precision: str) -> Path:
    """The run folder of a training on the training singers of a split."""
    if (found := run_of(folder)) is None:
        sets = [str(path) for path in sorted((splits / "train").iterdir()) if path.is_dir()]
        stack = ("common", "contrastive", "recipes/small-voices", precision)
        options = {
            "seed_everything": seed, "data.dataset_dirs": json.dumps(sets), "data.num_workers": 0,
            "data.multi_epoch": 6, "data.batch_size": 48, "trainer.max_time": "null", "trainer.max_steps": steps,
            "model.lr_scheduler.init_args": json.dumps({"warmup": steps // 10, "unit": "steps"}),
            "trainer.logger.save_dir": folder, "trainer.logger.name": "run",
        }  # fmt: skip
        words = [word for name in stack for word in ("--config", name)]
        words += [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        command(folder, "train", *words, *KEEP)
        found = run_of(folder)
    assert found is not None
    return found


def demo(folder: Path, seed: int, steps: int, precision: str) -> Path:
    """The run folder of the demo's training, in shorter epochs."""
    if (found := run_of(folder)) is None:
        shorter = ("--trainer.max_steps", str(steps), "--data.multi_epoch", "20", "--data.num_workers", "0")
        more = ("--config", precision, *shorter, *KEEP)
        command(folder, "demo", "--output", str(folder), "--seed", str(seed), "--", *more)
        found = run_of(folder)
    assert found is not None
    return found


def tested(folder: Path, step: float, sets: dict[str, Path]) -> Tested:
    """A checkpoint of a run on test sets; kept in `folder/tested`."""
    path = folder / "tested" / f"{step:.0f}.json"
    if not path.exists():
        write_text(path, json.dumps({name: _tested(folder, step, place) for name, place in sets.items()}))
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: (eer, np.array(resampled, dtype=np.float64)) for name, (eer, resampled) in found.items()}


def _tested(folder: Path, step: float, place: Path) -> tuple[float, list[float]]:
    from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings

    recordings = find_recordings(place)
    model: Any = load_model(_checkpoint(folder, step))
    embeddings = embed_recordings(EvalProtocol(model), recordings.paths(), progress=None)
    found = verify(embeddings, all_pairs(recordings), seed=0, resamples=RESAMPLES, mnr=False)
    return float(found.eer or 0), found.resampled["eer"].tolist()


def _checkpoint(folder: Path, step: float) -> Path:
    from ssl_audio.weights import read_weights

    for path in sorted((folder / "checkpoints").glob("*.ckpt")):
        if read_weights(path)["global_step"] == step:
            return path
    raise FileNotFoundError(f"{folder}: no checkpoint of step {step:.0f}")


def table(results: dict[str, list[tuple[Path, dict[str, Path]]]]) -> str:
    """Markdown: for each data, seed and rule the step, the EER and the difference to the last checkpoint."""
    lines = ["| data | rule | steps of the seeds | mean EER | minus the last [95 %] |", "|---|---|---|---:|---:|"]
    for data, runs in results.items():
        for rule, choose in RULES.items():
            steps, own, last = [], [], []
            for folder, sets in runs:
                rows = epochs(folder)
                steps.append(choose(folder, rows))
                own += tested(folder, steps[-1], sets).values()
                last += tested(folder, rows[-1]["step"] + 1, sets).values()
            (eer, resampled), (eer_last, resampled_last) = _mean(own), _mean(last)
            test = paired_test(eer, eer_last, resampled, resampled_last)
            low, high = test.interval
            cells = [data, rule, ", ".join(f"{step:.0f}" for step in steps), f"{eer:.4f}"]
            lines.append(f"| {' | '.join(cells)} | {test.difference:+.4f} [{low:+.4f}, {high:+.4f}] |")
    return "\n".join(lines) + "\n"


def _mean(many: list[tuple[float, np.ndarray]]) -> tuple[float, np.ndarray]:
    """The mean over sets and seeds, of the EER and of each resample."""
    return float(np.mean([eer for eer, _ in many])), np.nanmean([resampled for _, resampled in many], axis=0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_checkpoints", description=__doc__)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder of collections with a manifest.csv each")
    add("--output", required=True, type=Path, help="folder for splits, runs and table.md")
    add("--steps", default=160, type=int, help="of a training on real voices (160)")
    add("--seeds", default=3, type=int, help="of the trainings on real voices (3)")
    add("--demos", default=1, type=int, help="seeds of the demo (1)")
    add("--demo_steps", default=350, type=int, help="of the demo's training (350)")
    add("--precision", default="hardware/cpu", help="config stacked last (hardware/cpu)")
    args = parser.parse_args()
    results: dict[str, list[tuple[Path, dict[str, Path]]]] = {"demo": [], "real voices": []}
    for seed in range(args.demos):
        folder = args.output / f"demo-{seed}"
        results["demo"].append(
            (demo(folder, seed, args.demo_steps, args.precision), {"unseen": folder / "unseen_renamed_split_3s"})
        )
    for seed in range(args.seeds):
        splits = args.output / f"split-{seed}"
        split(args.data, splits, seed)
        sets = {name: splits / "test" / name for name in SETS if (splits / "test" / name).is_dir()}
        folder = real(args.output / f"real-{seed}", splits, seed, args.steps, args.precision)
        results["real voices"].append((folder, sets))
    text = table({data: runs for data, runs in results.items() if runs})
    write_text(args.output / "table.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
