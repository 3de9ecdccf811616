"""Train on real recordings, test on other voices: `python -m benchmarks.results --data DATA --output DIR`.

DATA holds collections `<collection>/<set>/<singer>/**/file`, each with a `manifest.csv` (path, singer or speaker, song
or utterance). For each seed the singers of every set are split by that seed; trainings are the project's own command
with a stack of configs, for `--minutes` each, `--jobs` at a time on an equal share of the cores. Tests are all pairs of
the other singers' clips, set by set, without pairs of one recording. What is done already is not done again.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ssl_audio.errors import InputError
from ssl_audio.evaluation.recordings import METADATA_NAME, find_recordings
from ssl_audio.files import write_text

SETS = ("librispeech", "arabic_commands", "audiomnist_az", "gtsinger", "pesnq")
RETRIEVAL = ("gtsinger", "pesnq")
EFFICIENTNET: dict[str, Any] = {
    "model.encoder.class_path": "ssl_audio.encoders.EfficientNet",
    "model.encoder.init_args.backbone": "efficientnet_b0",
}
PUBLISHED: dict[str, Any] = {  # as in the paper, but for the clips
    "model.frontend.init_args.normalize": "clip_max",
    "model.feature_augmentation": "null",
    "data.batch_sampling_mode": "sample_clips",
    "data.multi_epoch": 4,
}


WATCHED = ("loss/train_step", "collapse/mean_cosine", "collapse/effective_rank")
SHORT = 0.3  # of --minutes, for all but the first table


class Run(NamedTuple):
    """One training: which table and row it is for, the method's config, what differs from the recipe, for how long."""

    table: str
    row: str
    method: str = "contrastive"
    overrides: Mapping[str, Any] = MappingProxyType({})
    seed: int = 0
    share: float = SHORT  # of --minutes

    @property
    def name(self) -> str:
        return f"{self.table}-{self.row}-{self.seed}".replace(" ", "_").replace("/", "_")


def runs(seeds: int) -> list[Run]:
    """All trainings; rows of `methods` beside contrastive, which is the recipe's."""
    tilt = "model.feature_augmentation.init_args.transforms"
    masks = [{"class_path": f"ssl_audio.augmentations.features.{name}"} for name in ("BandMask", "FrameMask")]
    encoder = "model.encoder.init_args"
    ablation: dict[str, dict[str, Any]] = {
        "without input statistics": {f"{encoder}.input_statistics": "false"},
        "normalised per band": {"model.frontend.init_args.normalize": "band"},
        "without spectral tilt": {tilt: json.dumps(masks)},
        "any clips in a batch": {"data.batch_sampling_mode": "sample_clips", "data.multi_epoch": 4},
        "embedding not centred": {f"{encoder}.normalize": "false"},
    }
    published, inside = "EfficientNet-B0", "EfficientNet-B0 in the recipe"
    return [
        *(Run("recipe", "recipe", seed=seed, share=1.0) for seed in range(seeds)),
        Run("methods", "contrastive"),
        Run("methods", f"contrastive, {published}", overrides=EFFICIENTNET | PUBLISHED),
        Run("methods", f"byol, {published}", "byol", EFFICIENTNET | PUBLISHED),
        Run("methods", f"contrastive, {inside}", overrides=EFFICIENTNET),
        *(Run("methods", method, method) for method in ("byol", "vicreg", "uniformity-alignment")),
        *(Run("ablation", row, overrides=changes) for row, changes in ablation.items()),
    ]


def split(data: Path, folder: Path, seed: int) -> None:
    """`folder/train/<set>/<singer>` and `folder/test/<set>/<singer>`, links to the recordings, and the test's manifest.

    Of the singers with several recordings half are for the test. Those with a single one can make no trial of the same
    singer: a quarter of them serves as impostors.
    """
    rows: list[dict[str, str]] = []
    for manifest in sorted(data.glob(f"*/{METADATA_NAME}")):
        with open(manifest, newline="", encoding="utf-8") as file:
            rows += csv.DictReader(file)
        for dataset in sorted(path for path in manifest.parent.iterdir() if path.is_dir()):
            found = find_recordings(dataset)
            takes: dict[str, set[str]] = defaultdict(set)
            for name, take in zip(found.files, found.recording, strict=True):
                takes[name.split("/")[0]].add(take)
            for several, part in ((True, 2), (False, 4)):
                singers = [singer for singer in takes if (len(takes[singer]) > 1) == several]
                singers.sort(key=lambda name: hashlib.sha256(f"{seed}/{dataset.name}/{name}".encode()).digest())
                for i, singer in enumerate(singers):
                    link = folder / ("test" if i < len(singers) // part else "train") / dataset.name / singer
                    link.parent.mkdir(parents=True, exist_ok=True)
                    if not link.is_symlink():
                        link.symlink_to((dataset / singer).resolve())
    if not rows:
        raise InputError(f"{data}: no collection with a {METADATA_NAME}")
    names = ["path", "singer", "speaker", "song", "utterance", "gender", "source"]
    lines = [",".join(names)]
    lines += [",".join('"' + row.get(name, "").replace('"', '""') + '"' for name in names) for row in rows]
    write_text(folder / "test" / METADATA_NAME, "\n".join(lines) + "\n")


def train(run: Run, splits: Path, output: Path, minutes: float, threads: int, precision: str) -> Path:
    """Train with the project's command; returns the run folder, of a run that has ended."""
    folder = output / "runs" / run.name
    done = folder / "done.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        sets = [str(path) for path in sorted((splits / "train").iterdir()) if path.is_dir()]
        seconds = round(60 * minutes * run.share)
        options = {
            "seed_everything": run.seed, "data.dataset_dirs": json.dumps(sets), "data.eval_frac": 0,
            "data.num_workers": 0, "callbacks.best": "null", "callbacks.periodic": "null",
            "trainer.log_every_n_steps": 10, "callbacks.collapse.every_n_steps": 10,
            "trainer.max_time": f"00:{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}",
            "trainer.logger.init_args.save_dir": folder, "trainer.logger.init_args.name": "run",
        }  # fmt: skip
        words = [
            "--config",
            "common",
            "--config",
            run.method,
            "--config",
            "recipes/small-voices",
            "--config",
            precision,
        ]
        for key, value in {**run.overrides, **options}.items():
            words += [f"--{key}", str(value)]
        folder.mkdir(parents=True)
        with open(folder / "log.txt", "w", encoding="utf-8") as log:
            status = subprocess.run(
                [sys.executable, "-m", "ssl_audio.cli", "train", *words],
                stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            ).returncode  # fmt: skip
        if status:
            last = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise InputError(f"{run.name} ended with status {status}: {' '.join(last)}; see {folder / 'log.txt'}")
        write_text(done, json.dumps(training_figures(folder), indent=1))
    return next(folder.rglob("config.yaml")).parent


def training_figures(folder: Path) -> dict[str, Any]:
    """Steps, last loss and collapse figures of a run, and whether the monitor warned."""
    figures: dict[str, Any] = {}
    with open(next(folder.rglob("metrics.csv")), newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            figures |= {key: float(value) for key, value in row.items() if value}
    kept = {key: value for key, value in figures.items() if key == "step" or key.startswith(("loss/", "collapse/"))}
    log = (folder / "log.txt").read_text(encoding="utf-8")
    return {**kept, "warned": "is collapsing" in log}


def scores(model: Any, splits: Path) -> dict[str, dict[str, float]]:
    """{set: EER of cosines as they are ("raw") and after standardisation over the test set ("z"), and retrieval}."""
    from ssl_audio.evaluation.embeddings import TestedModel, embed_recordings
    from ssl_audio.evaluation.retrieval_metrics import library_metrics
    from ssl_audio.evaluation.trials import all_pairs
    from ssl_audio.evaluation.verification import verify

    result = {}
    for name in SETS:
        if not (splits / "test" / name).is_dir():
            continue
        recordings = find_recordings(splits / "test" / name)
        trials = all_pairs(recordings)
        tested = TestedModel(model)
        tested.standardize = False
        raw = embed_recordings(tested, recordings.paths(), progress=None)
        z = (raw - raw.mean(0)) / np.maximum(raw.std(0), 1e-9)
        figures = {key: float(verify(x, trials, draws=0, mnr=False).eer or 0) for key, x in (("raw", raw), ("z", z))}
        if name in RETRIEVAL:
            for key, x in (("raw", raw), ("z", z)):
                figures[f"map_{key}"] = library_metrics(x, recordings.singers)["same_artist"]["mean_average_precision"]
        result[name] = figures
    return result


def scored(name: str, output: Path, make: Any, splits: Path) -> dict[str, dict[str, float]]:
    """The scores of `make()`, from `output/scores` where they are."""
    path = output / "scores" / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(scores(make(), splits), indent=1))
    return json.loads(path.read_text(encoding="utf-8"))


def baselines(recipe: Path, seed: int) -> dict[str, Any]:
    """{name: a function that makes the model}. The MFCCs also at 44.1 kHz, for recordings that have more than 16."""
    from ssl_audio.evaluation.baselines import mean_mel, mfcc_statistics, untrained
    from ssl_audio.hub import load_model

    return {
        "untrained": lambda: untrained(load_model(str(recipe)), seed),
        "MFCC": mfcc_statistics,
        "MFCC 44.1 kHz": lambda: mfcc_statistics(44100),
        "mean mel": mean_mel,
    }


Scores = dict[str, dict[str, float]]


def table(rows: dict[str, list[Scores]], keys: Iterable[str] = ("raw", "z"), sets: Iterable[str] = SETS) -> str:
    """Markdown: a line for each row and key, mean and (from several seeds) standard deviation."""
    rows = {row: many for row, many in rows.items() if many}
    sets = [name for name in sets if all(name in found for many in rows.values() for found in many)]
    lines = [f"| | scores | {' | '.join(sets)} |", f"|---|---|{'---:|' * len(sets)}"]
    for row, many in rows.items():
        for key in keys:
            cells = []
            for name in sets:
                values = [found[name][key] for found in many]
                spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.3f}{spread}")
            lines.append(f"| {row} | {key.removeprefix('map_')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def tables(found: dict[str, Scores], done: dict[str, dict[str, Any]], everything: list[Run], seeds: int) -> str:
    """The four tables of what has been run."""
    best = {
        row: [found[f"{row}-{seed}"] for seed in range(seeds) if f"{row}-{seed}" in found]
        for row in ("MFCC", "MFCC 44.1 kHz", "mean mel", "untrained")
    }
    best["the recipe"] = [found[run.name] for run in everything if run.table == "recipe" and run.name in found]
    text = f"### The recipe and the baselines: equal error rate, mean and deviation of {seeds} seeds\n\n{table(best)}\n"
    text += "\n### Retrieval of the same singer: mean average precision\n\n"
    text += table(best, ("map_raw", "map_z"), RETRIEVAL) + "\n"
    for name, title in (("methods", "Methods and encoders at equal time"), ("ablation", "The recipe without one part")):
        whole = [run for run in everything if name == "ablation" and run.name == "methods-contrastive-0"]
        chosen = [run for run in (*whole, *everything) if run in whole or run.table == name]
        rows = {"the recipe" if run in whole else run.row: run for run in chosen if run.name in found}
        if not rows:
            continue
        figures = {row: [found[run.name]] for row, run in rows.items()}
        text += f"\n### {title}: equal error rate, one seed\n\n{table(figures)}\n"
        text += (
            "\n| | steps | last loss | mean cosine | effective rank | monitor warned |\n|---|---:|---:|---:|---:|---|\n"
        )
        for row, run in rows.items():
            has = done[run.name]
            cells = [f"{has['step']:.0f}", *(f"{has[key]:.2f}" for key in WATCHED), "yes" if has["warned"] else "no"]
            text += f"| {row} | {' | '.join(cells)} |\n"
    return text


def read_all(output: Path) -> tuple[dict[str, Scores], dict[str, dict[str, Any]]]:
    """The scores of everything that has been run, now or before, and the figures of the trainings, by name."""
    found = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in output.glob("scores/*.json")}
    done = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in output.glob("runs/*/done.json")}
    return found, done


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results", description=__doc__)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder of collections with a manifest.csv each")
    add("--output", required=True, type=Path, help="folder for splits, runs, scores and tables.md")
    add("--minutes", default=30.0, type=float, help="of a training of the recipe (30); others take .3 of it")
    add("--seeds", default=3, type=int, help="of the recipe (3); the rest has one")
    add("--jobs", default=1, type=int, help="trainings at a time (1)")
    add("--only", default="recipe,methods,ablation", help="which trainings, by table (recipe,methods,ablation)")
    add("--precision", default="hardware/cpu", help="config stacked last (hardware/cpu)")
    args = parser.parse_args()
    everything = [run for run in runs(args.seeds) if run.table in args.only.split(",")]
    threads = int(os.environ.get("OMP_NUM_THREADS", 0)) or max(1, (os.cpu_count() or 1) // args.jobs)
    for seed in range(args.seeds):
        folder = args.output / f"split-{seed}"
        split(args.data, folder, seed)
        sets = [str(path) for path in sorted((folder / "train").iterdir())]
        words = [sys.executable, "-m", "ssl_audio.cli", "cache", *sets, "--sample_rate", "16000"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    def work(run: Run) -> None:
        from ssl_audio.hub import load_model

        splits = args.output / f"split-{run.seed}"
        folder = train(run, splits, args.output, args.minutes, threads, args.precision)
        scored(run.name, args.output, lambda: load_model(str(folder)), splits)
        if run.table == "recipe":
            for name, make in baselines(folder, run.seed).items():
                scored(f"{name}-{run.seed}", args.output, make, splits)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(tqdm(pool.map(work, everything), "trainings", len(everything), unit="run"))
    found, done = read_all(args.output)
    text = tables(found, done, runs(args.seeds), args.seeds)
    write_text(args.output / "tables.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
