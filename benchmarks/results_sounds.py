"""CLMR on music and WaveBYOL on sounds: `python -m benchmarks.results_sounds --data DATA --output DIR`.

DATA holds `music` (notes, vocal_mixtures, librosa_examples, aligned_samples, note_mixes and their tables), `esc`,
`voices_dev` and `singing_dev`. Each study trains the project's own stack of configs without labels, seed by seed, and
probes the frozen encoder beside the same network untrained (weights drawn from the same seed), the mean mel spectrum
and statistics of MFCCs, by `ssl-audio probe`. What is done already is not done again; `tables.md` has all that is.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.results import training_figures
from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_text

MUSIC = ("music/notes", "music/vocal_mixtures", "music/librosa_examples", "music/aligned_samples")
SOUNDS = (*MUSIC, "voices_dev", "singing_dev")
BASELINES = ("mean mel", "MFCC statistics")
FEW = "--fractions 0.1 --seeds 3"


class Probe(NamedTuple):
    """One task: its title, corpus and place in DATA, further words of `ssl-audio probe`, and the figures to show."""

    title: str
    corpus: str
    root: str
    options: str = ""
    figures: tuple[str, ...] = ("accuracy",)


class Study(NamedTuple):
    """What is trained, on which folders of DATA, and what is asked of it."""

    title: str
    configs: tuple[str, ...]
    folders: tuple[str, ...]
    probes: tuple[Probe, ...]


TAGS = ("roc_auc", "average_precision")
BOTH = ("accuracy", "average_precision")
NOTES = "--option label=instrument"
MUSIC_PROBES = (
    Probe("instrument of a note", "csv", "music/notes.csv", NOTES, BOTH),
    Probe("instrument of a note, 10 % of the labels", "csv", "music/notes.csv", f"{NOTES} {FEW}", BOTH),
    Probe("artist of an excerpt", "csv", "music/vocal_mixtures.csv", "--option label=artist"),
    Probe("genre of an excerpt", "csv", "music/vocal_mixtures.csv", "--option label=genre"),
    Probe("instruments of a mixture", "musicnet", "music/note_mixes", "--option label=instrument", TAGS),
)
ESC_PROBES = (
    Probe("linear", "esc10", "esc"),
    Probe("mlp", "esc10", "esc", "--head mlp"),
    Probe("linear, 10 % of the labels", "esc10", "esc", FEW),
)
CLMR = ("common", "clmr", "data/folder", "recipes/clmr-small")
WAVEBYOL = ("common", "wavebyol", "data/folder", "recipes/wavebyol-small")
STUDIES = {
    "clmr": Study("CLMR, trained on the music", CLMR, MUSIC, MUSIC_PROBES),
    "wavebyol": Study("WaveBYOL, trained on music, voices and singing", WAVEBYOL, SOUNDS, ESC_PROBES),
    "wavebyol-esc": Study("WaveBYOL, trained on the tested sounds themselves", WAVEBYOL, ("esc",), ESC_PROBES),
}
WATCHED = ("loss/train_step", "collapse/mean_cosine", "collapse/effective_rank")
Rows = list[dict[str, Any]]


def run_command(words: list[str], log: Path) -> None:
    """One of the project's commands, in a process of its own; InputError with its last line if it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        done = subprocess.run([sys.executable, "-m", "ssl_audio.cli", *words], stdout=file, stderr=file)
    if done.returncode:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise InputError(f"ssl-audio {words[0]} ended with status {done.returncode}: {' '.join(last)}; see {log}")


def train(study: Study, seed: int, folder: Path, args: argparse.Namespace) -> Path:
    """Train on the study's folders; returns the run folder, of a run that has ended."""
    done = folder / "done.json"
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folders = [str(args.data / name) for name in study.folders]
        options: dict[str, Any] = {
            "seed_everything": seed, "data.dataset_dirs": json.dumps(folders), "data.group_by_artist": "false",
            "data.eval_frac": 0, "data.num_workers": 0, "callbacks.best": "null", "callbacks.periodic": "null",
            "trainer.log_every_n_steps": 1, "callbacks.collapse.every_n_steps": 1,
            "trainer.logger.init_args.save_dir": folder, "trainer.logger.init_args.name": "run",
        }  # fmt: skip
        if args.steps:
            options["trainer.max_steps"] = args.steps
            options["model.lr_scheduler.init_args.warmup"] = min(20, args.steps // 4)
        words = ["train"]
        for config in (*study.configs, args.precision, *args.config):
            words += ["--config", config]
        for key, value in options.items():
            words += [f"--{key}", str(value)]
        before = os.times()
        run_command(words, folder / "log.txt")
        after = os.times()
        spent = after.children_user + after.children_system - before.children_user - before.children_system
        figures = {**training_figures(folder), "cpu_minutes": spent / 60, **first_figures(folder)}
        write_text(done, json.dumps(figures, indent=1))
    return next(folder.rglob("config.yaml")).parent


def first_figures(folder: Path) -> dict[str, float]:
    """Loss and effective rank as first logged."""
    found: dict[str, float] = {}
    with open(next(folder.rglob("metrics.csv")), newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for key in WATCHED:
                if row.get(key):
                    found.setdefault(f"first {key}", float(row[key]))
    return found


def untrained_model(run: Path, seed: int, folder: Path) -> Path:
    """The network of a run with fresh weights drawn from `seed`, saved."""
    from ssl_audio.baselines import untrained
    from ssl_audio.hub import load_model
    from ssl_audio.hub.saved import save_model

    if not folder.exists():
        save_model(untrained(load_model(str(run)), seed), folder)
    return folder


def probe(model: Path, task: Probe, folder: Path, data: Path, baselines: bool) -> dict[str, Any]:
    """`probe.json` of the command."""
    report = folder / "probe.json"
    if not report.exists():
        words = ["probe", "--model", str(model), "--corpus", task.corpus, "--root", str(data / task.root)]
        words += [*task.options.split(), *(() if baselines else ("--no_baselines",)), "--output", str(folder)]
        run_command(words, folder.with_suffix(".log"))
    return json.loads(report.read_text(encoding="utf-8"))


def study_results(name: str, args: argparse.Namespace) -> dict[str, dict[str, Rows]]:
    """{probe's title: {"trained", "untrained", baselines: rows, one a seed (and draw of labels)}}."""
    study, found = STUDIES[name], {}
    for seed in tqdm(range(args.seeds), name, unit="seed"):
        folder = args.output / f"{name}-{seed}"
        run = train(study, seed, folder / "run", args)
        models = {"trained": run, "untrained": untrained_model(run, seed, folder / "untrained")}
        for i, task in enumerate(study.probes):
            rows = found.setdefault(task.title, {"trained": [], "untrained": [], **{key: [] for key in BASELINES}})
            for row, model in models.items():
                results = probe(model, task, folder / "probes" / f"{i}-{row}", args.data, row == "trained")["results"]
                rows[row] += [result for result in results if not result["baseline"]]
                for result in results:
                    if result["model"] in BASELINES and seed == 0:  # they have no seed
                        rows[result["model"]].append(result)
    return found


def paired_table(name: str, args: argparse.Namespace) -> str:
    """Markdown: how much better trained is, seed by seed, with intervals of the paired bootstrap; all labels."""
    others = ["untrained", *BASELINES]
    lines = [f"| seed | figure | {' | '.join(f'against {other}' for other in others)} |", "|---|---|---|---|---|"]
    for seed in range(args.seeds):
        for i, task in enumerate(STUDIES[name].probes):
            report = args.output / f"{name}-{seed}" / "probes" / f"{i}-trained" / "probe.json"
            pairs = json.loads(report.read_text(encoding="utf-8"))["differences"]
            found = {pair["other"]: pair for pair in pairs if pair["label_fraction"] == 1}
            for figure in task.figures if found else ():
                numbers = [[100 * number for number in found[other][figure]] for other in others]
                cells = [f"{value:+.1f} [{low:+.1f}, {high:+.1f}]" for value, low, high in numbers]
                lines.append(f"| {seed} | {task.title}: {figure.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(results: Rows, figure: str) -> str:
    """Per cent: mean ± deviation over seeds, or one value with the interval of the bootstrap over files."""
    values = [100 * result[figure] for result in results]
    if len(values) > 1:
        return f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"
    low, high = results[0]["intervals"].get(figure, (np.nan, np.nan))
    return f"{values[0]:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


def table(found: dict[str, dict[str, Rows]], probes: tuple[Probe, ...]) -> str:
    """Markdown: a line a task and figure, a column a model."""
    models = list(next(iter(found.values())))
    lines = [f"| | {' | '.join(models)} |", f"|---|{'---|' * len(models)}"]
    for task in probes:
        for figure in task.figures:
            cells = [cell(rows, figure) for rows in found[task.title].values()]
            lines.append(f"| {task.title}: {figure.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(lines)


def training_table(name: str, args: argparse.Namespace) -> str:
    """Markdown: a line a seed, what the training looked like at its first and last logged step."""
    lines = ["| seed | steps | CPU minutes | loss | mean cosine | effective rank |", "|---|---:|---:|---:|---:|---:|"]
    for seed in range(args.seeds):
        has = json.loads((args.output / f"{name}-{seed}" / "run" / "done.json").read_text(encoding="utf-8"))
        moved = [f"{has['first ' + key]:.3g} to {has[key]:.3g}" for key in WATCHED]
        lines.append(f"| {seed} | {has['step'] + 1:.0f} | {has['cpu_minutes']:.1f} | {' | '.join(moved)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_sounds", description=__doc__)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder of the recordings")
    add("--output", required=True, type=Path, help="folder for runs, probes and tables.md")
    add("--steps", type=int, default=None, help="of a training; default: the recipe's")
    add("--seeds", type=int, default=1, help="trainings of each study (1)")
    add("--only", default=",".join(STUDIES), help=f"which studies ({','.join(STUDIES)})")
    add("--precision", default="hardware/cpu", help="config stacked after the recipe (hardware/cpu)")
    add("--config", action="append", default=[], help="further configs, stacked last")
    args = parser.parse_args()
    names = args.only.split(",")
    if unknown := [name for name in names if name not in STUDIES]:
        parser.error(f"no study {', '.join(unknown)}; there are {', '.join(STUDIES)}")
    text = ""
    for name in names:
        found = study_results(name, args)
        tables = (table(found, STUDIES[name].probes), paired_table(name, args), training_table(name, args))
        text += f"### {STUDIES[name].title}\n\n" + "\n\n".join(tables) + "\n\n"
    write_text(args.output / "tables.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
