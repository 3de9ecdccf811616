"""Train on real recordings, test on other voices: `python -m benchmarks.results --data DATA --output DIR`.

DATA holds collections `<collection>/<set>/<singer>/**/file`, each with a `manifest.csv` (path, singer or speaker, song
or utterance). For each seed the singers of every set are split by that seed; trainings are the project's own command
with a stack of configs, one thread each, `--jobs` at a time. Tests are all pairs of the other singers' clips, set by
set, without pairs of one recording. What is done already is not done again.
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
from ssl_audio.utils.files import write_text

SETS = ("librispeech", "arabic_commands", "audiomnist_az", "gtsinger", "pesnq")
RETRIEVAL = ("gtsinger", "pesnq")
TABLES = {
    "recipe": "The recipe and the baselines",
    "methods": "The four methods with the recipe's network",
    "ablation": "The recipe without one part",
    "chains": "The published chain, clip by clip and in batches on the device",
    "efficientnet": "EfficientNet-B0, and which of the recipe's parts help it",
}
SHORT, SHORTER = 0.25, 0.125  # of --steps: all but the recipe itself, and EfficientNet-B0
WATCHED = ("loss/train_step", "collapse/mean_cosine", "collapse/effective_rank")
ENCODER = "model.encoder.init_args"
RATE = "model.optimizer.init_args.lr"
TRANSFORMS = "model.feature_augmentation.init_args.transforms"
ANY_CLIPS: dict[str, Any] = {"data.batch_sampling_mode": "sample_clips", "data.multi_epoch": 4}
EFFICIENTNET: dict[str, Any] = {
    "model.encoder.class_path": "ssl_audio.encoders.EfficientNet",
    f"{ENCODER}.backbone": "efficientnet_b0",
    "data.batch_size": 32,
}
PLAIN: dict[str, Any] = {  # without the recipe's parts; its rate, short clips, noise and optimiser stay
    "model.frontend.init_args.normalize": "clip_max",
    "model.feature_augmentation": "null",
    "callbacks.whiten": "null",
    **ANY_CLIPS,
}


class Run(NamedTuple):
    """One training: which table and row it is for, its configs, what differs from the recipe, for how long."""

    table: str
    row: str
    method: str = "contrastive"
    overrides: Mapping[str, Any] = MappingProxyType({})
    seed: int = 0
    share: float = SHORT  # of --steps
    configs: tuple[str, ...] = ()  # stacked after the recipe

    @property
    def name(self) -> str:
        return (
            f"{self.table}-{self.row}-{self.seed}".replace(" ", "_").replace("/", "_").replace(",", "").replace("'", "")
        )


def runs(seeds: int) -> list[Run]:
    """All trainings. The rows "contrastive" of `methods` are also the whole recipe of `ablation`."""
    masks = [{"class_path": f"ssl_audio.augmentations.features.{name}"} for name in ("BandMask", "FrameMask")]
    ablation: dict[str, dict[str, Any]] = {
        "without input statistics": {f"{ENCODER}.input_statistics": "false"},
        "normalised per band": {"model.frontend.init_args.normalize": "band"},
        "without spectral tilt": {TRANSFORMS: json.dumps(masks)},
        "without noise": {"model.augmentation": "null"},
        "any clips in a batch": ANY_CLIPS,
    }
    methods = ("contrastive", "uniformity-alignment", "vicreg", "byol")
    helped: dict[str, dict[str, Any]] = {
        "plain": PLAIN,
        "with the spectrum itself": {key: PLAIN[key] for key in PLAIN if "normalize" not in key},
        "with tilt and masks": {key: PLAIN[key] for key in PLAIN if "augmentation" not in key},
        "with batches of singers": {key: PLAIN[key] for key in PLAIN if key not in ANY_CLIPS},
        "batch-norm momentum .01": {**PLAIN, f"{ENCODER}.batch_norm_momentum": 0.01},
        "with all four": {},
    }
    rows = [("contrastive", row) for row in helped]
    rows += [(method, row) for method in methods[1:] for row in ("plain", "with all four")]
    slow = {"contrastive": 1e-4, "byol": 3e-5}  # the paper's learning rates
    every = range(seeds)
    return [
        *(Run("recipe", "recipe", seed=seed, share=1.0) for seed in every),
        *(Run("methods", method, method, seed=seed) for seed in every for method in methods),
        *(
            Run("chains", f"{chain}.yaml", seed=seed, configs=(f"augmentation/{chain}",))
            for seed in every
            for chain in ("clip", "device")
        ),
        *(Run("efficientnet", f"{m} {row}", m, EFFICIENTNET | helped[row], share=SHORTER) for m, row in rows),
        Run("efficientnet", "byol plain, longer", "byol", EFFICIENTNET | PLAIN),  # does it collapse?
        *(
            Run("efficientnet", f"{m} plain, longer, the paper's rate", m, EFFICIENTNET | PLAIN | {RATE: slow[m]})
            for m in slow
        ),
        *(
            Run("efficientnet", f"{m} {row}, long", m, EFFICIENTNET | helped[row], share=1.0)
            for m, row in (("contrastive", "plain"), ("contrastive", "with all four"), ("byol", "plain"))
        ),
        *(Run("ablation", row, overrides=ablation[row], seed=seed) for seed in every for row in ablation),
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
        for dataset in sorted(path for path in manifest.parent.glob("[!.]*") if path.is_dir()):
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
    rows = [row for row in rows if (folder / "test" / row["path"]).exists()]
    lines += [",".join('"' + row.get(name, "").replace('"', '""') + '"' for name in names) for row in rows]
    write_text(folder / "test" / METADATA_NAME, "\n".join(lines) + "\n")


def train(run: Run, splits: Path, output: Path, steps: int, precision: str) -> Path:
    """Train with the project's command on one thread; returns the run folder, of a run that has ended."""
    folder = output / "runs" / run.name
    done = folder / "done.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        sets = [str(path) for path in sorted((splits / "train").iterdir()) if path.is_dir()]
        steps = max(2, round(steps * run.share))
        options = {
            "seed_everything": run.seed, "data.dataset_dirs": json.dumps(sets), "data.eval_frac": 0,
            "data.num_workers": 0, "callbacks.best": "null", "callbacks.periodic": "null",
            "trainer.log_every_n_steps": 10, "callbacks.collapse.every_n_steps": 10,
            "trainer.max_time": "null", "trainer.max_steps": steps,
            "model.lr_scheduler.init_args": json.dumps({"warmup": min(30, steps // 4), "unit": "steps"}),
            "trainer.logger.init_args.save_dir": folder, "trainer.logger.init_args.name": "run",
        }  # fmt: skip
        words = [part for name in ("common", run.method, "recipes/small-voices", *run.configs, precision)
                 for part in ("--config", name)]  # fmt: skip
        for key, value in {**run.overrides, **options}.items():
            words += [f"--{key}", str(value)]
        folder.mkdir(parents=True)
        with open(folder / "log.txt", "w", encoding="utf-8") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ssl_audio.cli", "train", *words],
                stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if status:
            last = (folder / "log.txt").read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise InputError(f"{run.name} ended badly: {' '.join(last)}; see {folder / 'log.txt'}")
        figures = {**training_figures(folder), "minutes": (usage.ru_utime + usage.ru_stime) / 60}
        write_text(done, json.dumps(figures, indent=1))
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
    from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
    from ssl_audio.evaluation.retrieval_metrics import library_metrics
    from ssl_audio.evaluation.trials import all_pairs
    from ssl_audio.evaluation.verification import verify

    result = {}
    for name in SETS:
        if not (splits / "test" / name).is_dir():
            continue
        recordings = find_recordings(splits / "test" / name)
        trials = all_pairs(recordings)
        tested = EvalProtocol(model)
        tested.standardize = False
        raw = embed_recordings(tested, recordings.paths(), progress=None)
        z = (raw - raw.mean(0)) / np.maximum(raw.std(0), 1e-9)
        figures = {
            key: float(verify(x, trials, resamples=0, mnr=False).eer or 0) for key, x in (("raw", raw), ("z", z))
        }
        if name in RETRIEVAL:
            for key, x in (("raw", raw), ("z", z)):
                found = library_metrics(x, recordings.singers, takes=recordings.recording)
                figures[f"map_{key}"] = found["same_artist"]["mean_average_precision"]
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
    from ssl_audio.baselines import mean_mel, mfcc_statistics, untrained
    from ssl_audio.hub import load_model
    from ssl_audio.model import EmbeddingModel

    def not_whitened() -> EmbeddingModel:
        model: Any = load_model(str(recipe))
        return EmbeddingModel(model.frontend, model.encoder.encoder, model.sample_rate).eval()

    return {
        "the recipe, not whitened": not_whitened,
        "untrained": lambda: untrained(not_whitened(), seed),
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
    """The tables of what has been run."""
    baseline = {
        row: [found[f"{row}-{seed}"] for seed in range(seeds) if f"{row}-{seed}" in found]
        for row in ("MFCC", "MFCC 44.1 kHz", "mean mel", "untrained")
    }
    plain = "the recipe, not whitened"
    plainly = {plain: [found[f"{plain}-{seed}"] for seed in range(seeds) if f"{plain}-{seed}" in found]}
    text = ""
    for name, title in TABLES.items():
        chosen: dict[str, list[Run]] = defaultdict(list)
        for run in everything:
            if run.name in found and run.table == name:
                chosen[run.row].append(run)
            elif run.name in found and name == "ablation" and (run.table, run.row) == ("methods", "contrastive"):
                chosen["the recipe"].append(run)
        if not chosen:
            continue
        rows = {row: [found[run.name] for run in many] for row, many in chosen.items()}
        rows = {"recipe": baseline | plainly, "methods": baseline}.get(name, {}) | rows
        count = max(len(many) for many in chosen.values())
        text += f"\n### {title}: equal error rate, {count} seed{'s' if count > 1 else ''}\n\n{table(rows)}\n"
        if name == "recipe":
            text += "\n### Retrieval of the same singer: mean average precision\n\n"
            text += table(rows, ("map_raw", "map_z"), RETRIEVAL) + "\n"
        text += "\n| | steps | CPU minutes | last loss | mean cosine | effective rank | monitor warned |\n"
        text += f"|---|{'---:|' * 6}\n"
        for row, many in chosen.items():
            has = [done[run.name] for run in many]
            cells = [f"{np.mean([one[key] for one in has]):.2f}" for key in ("minutes", *WATCHED)]
            warned = f"{sum(one['warned'] for one in has)} of {len(has)}"
            text += f"| {row} | {has[0]['step'] + 1:.0f} | {' | '.join(cells)} | {warned} |\n"
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
    add("--steps", default=1200, type=int, help=f"of a training of the recipe (1200); others take {SHORT} or {SHORTER}")
    add("--seeds", default=3, type=int, help="of every row (3), but for EfficientNet-B0, which has one")
    add("--jobs", default=1, type=int, help="trainings at a time (1)")
    add("--only", default=",".join(TABLES), help=f"which trainings, by table ({','.join(TABLES)})")
    add("--precision", default="hardware/cpu", help="config stacked last (hardware/cpu)")
    args = parser.parse_args()
    everything = [run for run in runs(args.seeds) if run.table in args.only.split(",")]
    for seed in range(args.seeds):
        folder = args.output / f"split-{seed}"
        split(args.data, folder, seed)
        sets = [str(path) for path in sorted((folder / "train").iterdir())]
        words = [sys.executable, "-m", "ssl_audio.cli", "cache", *sets, "--sample_rate", "16000"]
        subprocess.run(words, check=True, stdout=subprocess.DEVNULL)

    def work(run: Run) -> None:
        from ssl_audio.hub import load_model

        splits = args.output / f"split-{run.seed}"
        folder = train(run, splits, args.output, args.steps, args.precision)
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
