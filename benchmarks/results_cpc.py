"""CPC on music: `python -m benchmarks.results_cpc --data DATA --output DIR`.

For each seed the recipe (`train_configs/recipes/cpc-small.yaml`) is trained without labels on DATA's training mixtures
of notes, excerpts of music and singing; a tenth of the singers and pieces is kept apart for the step accuracies. Then
its frozen frames, those of the same network with random weights, and the mel spectrum are read by the same heads: notes
of mixtures (`music/note_mixes`, whose test pieces are made of other recordings of notes than the training pieces) and
the instrument of single notes (`music/notes`, none of these files trained on; five folds by pitch, so that no pitch is
in training and test). All of it by the project's own commands; what is done already is not done again.
"""

import argparse
import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_text

SETS = {  # recordings trained on, and what of a file's path says which belong together and are never split
    "music/note_mixes/train_data": r"(.+)\.\w+",
    "music/librosa_examples": r"(.+)_\d+\.\w+",
    "music/vocal_mixtures": r"(.+?)/.*",
    "singing_dev/gtsinger": r"(.+?)/.*",
}
SHOWN = (1, 4, 12)  # prediction steps
MOMENTS = (0.05, 0.1, 0.25, 0.5, 1.0)  # of the training
FIGURES = ("frame_average_precision", "frame_f1", "note_f1")


def link(data: Path, folder: Path) -> None:
    """`folder/<set>_<group>/<file>`, links to the recordings of `SETS`. Raises InputError: a set is not there."""
    for name, group in SETS.items():
        paths = sorted(path for path in (data / name).rglob("*") if path.suffix in (".flac", ".wav"))
        if not paths:
            raise InputError(f"{data / name}: no recordings; --data is the folder that holds music and singing_dev")
        for path in paths:
            found = re.fullmatch(group, path.relative_to(data / name).as_posix())
            place = (
                folder / f"{name.replace('/', '_')}_{found[1] if found else path.stem}".replace("/", "_") / path.name
            )
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(path.resolve())


def call(words: Sequence[Any], log: Path) -> None:
    """Run `ssl-audio WORDS`, what it prints into `log`. Raises InputError when it fails."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as file:
        status = subprocess.run(
            [sys.executable, "-m", "ssl_audio.cli", *map(str, words)], stdout=file, stderr=file
        ).returncode
    if status:
        last = log.read_text(encoding="utf-8").strip().splitlines()[-1:]
        raise InputError(f"ssl-audio {words[0]} ended with status {status}: {' '.join(last)}; see {log}")


def train(folder: Path, recordings: Path, seed: int, steps: int, configs: Sequence[str], others: Sequence[str]) -> Path:
    """The run folder of a training that has ended."""
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        words: list[Any] = ["train"]
        for config in ("common", "cpc", "data/windows", "recipes/cpc-small", *configs):
            words += ["--config", config]
        options = {
            "seed_everything": seed, "data.seed": seed, "data.dataset_dirs": json.dumps([str(recordings)]),
            "data.eval_frac": 0.1, "data.num_workers": 0, "trainer.max_steps": steps, "trainer.log_every_n_steps": 5,
            "callbacks.best": "null", "callbacks.periodic": "null", "trainer.logger.init_args.save_dir": folder,
            "trainer.logger.init_args.name": "run",
        }  # fmt: skip
        for key, value in options.items():
            words += [f"--{key}", value]
        call([*words, *others], folder / "log.txt")
        write_text(folder / "done", f"{steps} steps\n")
    return next(folder.rglob("config.yaml")).parent


def accuracies(run: Path, steps: int) -> list[list[float]]:
    """At each of `MOMENTS`: the step, the training accuracies of `SHOWN` (means of the tenth of the steps before it),
    and those on the recordings kept apart, of the last validation until then (NaN before the first)."""
    with open(next(run.parent.rglob("metrics.csv")), newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    table = []
    for moment in MOMENTS:
        end = steps * moment
        until = [row for row in rows if int(row["step"]) < end]
        line = [round(end), *([float("nan")] * 2 * len(SHOWN))]
        for i, k in enumerate(SHOWN, 1):
            name = f"accuracy_{k}"
            near = [r[f"{name}/train_step"] for r in until if int(r["step"]) >= end - max(0.1 * end, 10)]
            if any(near):
                line[i] = float(np.mean([float(cell) for cell in near if cell]))
            kept = [r[f"{name}/val"] for r in until if r.get(f"{name}/val")]
            if kept:
                line[i + len(SHOWN)] = float(kept[-1])
        table.append(line)
    return table


def transcribe(folder: Path, model: str | Path, mixes: Path, seed: int, head: str, epochs: int) -> dict[str, float]:
    """Figures of a head fitted on a frozen model's frames."""
    done = folder / "figures.json"
    if not done.exists():
        words = ["fit-transcriber", mixes, "--model", model, "--output", folder, "--head", head, "--epochs", epochs]
        call([*words, "--seed", seed, "--batch_size", 8], folder / "log.txt")
    return json.loads(done.read_text(encoding="utf-8"))["figures"]


def probe(folder: Path, model: Path, notes: Path, head: str, baselines: bool) -> dict[str, float]:
    """{"model", "mean mel" and "MFCC statistics" (with `baselines`): balanced accuracy}."""
    done = folder / "probe.json"
    if not done.exists():
        words = ["probe", "--model", model, "--corpus", "csv", "--root", notes, "--head", head, "--output", folder]
        words += ["--option", "label=instrument", "--option", "group=midi_pitch"]
        call([*words, *([] if baselines else ["--no_baselines"])], folder / "log.txt")
    results = json.loads(done.read_text(encoding="utf-8"))["results"]
    return {row["model"] if row["baseline"] else "model": row["balanced_accuracy"] for row in results}


def cell(values: Iterable[float]) -> str:
    """Mean, and deviation where there are several values."""
    found = [value for value in values if value == value]
    if not found:
        return ""
    return f"{np.mean(found):.3f}" + (f" ± {np.std(found, ddof=1):.3f}" if len(found) > 1 else "")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Markdown, numbers to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(learned: list[list[list[float]]], notes: dict[str, list[dict[str, float]]], instruments: Any) -> str:
    """The three tables, over seeds."""
    names = [f"{part} t+{k}" for part in ("trained on", "kept apart") for k in SHOWN]
    rows = [[f"{lines[0][0]:.0f}", *(cell(column) for column in zip(*(line[1:] for line in lines), strict=True))]
            for lines in zip(*learned, strict=True)]  # fmt: skip
    text = f"### Step accuracy (chance 1/129 = .008)\n\n{table(['steps', *names], rows)}\n"
    rows = [[name, *(cell(found[key] for found in many) for key in FIGURES)] for name, many in notes.items()]
    chance = cell([next(iter(notes.values()))[0]["frame_chance"]])
    rows.append(["chance", chance, "", ""])
    text += "\n### Transcription of `music/note_mixes`, frozen frames\n\n"
    text += table(["frames, head", "frame AP", "frame F1", "note F1"], rows) + "\n"
    text += "\n### Instrument of `music/notes`, folds by pitch: balanced accuracy, frozen\n\n"
    rows = [[name, *(cell(values) for values in many.values())] for name, many in instruments.items()]
    return text + table(["features", *next(iter(instruments.values()))], rows) + "\n"


def save_untrained(run: Path, folder: Path, seed: int, recordings: Path, norm: str | None = None) -> Path:
    """The run's network with random weights, as a saved model.

    Batch norms have seen 5 seconds of each recording, without which they would not normalise at all: a network that
    never learned, not a broken one.

    Args:
        norm: another norm than the run's.
    """
    import torch

    from ssl_audio import audio
    from ssl_audio.config import build, describe
    from ssl_audio.hub import load_model
    from ssl_audio.hub.saved import save_model

    if not (folder / "config.yaml").exists():
        spec: dict[str, Any] = describe(load_model(str(run)))
        if norm:
            spec["init_args"]["encoder"]["init_args"]["norm"] = norm
        torch.manual_seed(seed)
        model = build(spec)
        norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
        for module in norms:
            module.momentum = None  # the mean over all that is heard
        with torch.no_grad():
            for path in sorted(recordings.rglob("*.*")) if norms else ():
                model.train().frames(
                    torch.from_numpy(audio.read(path, model.sample_rate)[None, : 5 * model.sample_rate])
                )
        save_model(model.eval(), folder)
    return folder


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_cpc", description=__doc__)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder with music and singing_dev")
    add("--output", required=True, type=Path, help="folder for links, runs, figures and tables.md")
    add("--steps", default=2000, type=int, help="of each training (2000)")
    add("--seeds", default=3, type=int, help="trainings (3)")
    add("--epochs", default=20, type=int, help="of each transcription head (20)")
    add("--heads", default="linear,conv", help="of transcription (linear,conv)")
    add("--config", action="append", default=[], help="stacked on the recipe, such as hardware/bf16")
    args, others = parser.parse_known_args()  # the rest goes to the training
    recordings = args.output / "recordings"
    link(args.data, recordings)
    mixes, labels = args.data / "music" / "note_mixes", args.data / "music" / "notes.csv"
    heads = args.heads.split(",")
    learned: list[list[list[float]]] = []
    notes: dict[str, list[dict[str, float]]] = {}
    instruments: dict[str, dict[str, list[float]]] = {}
    for seed in tqdm(range(args.seeds), "seeds"):
        own = args.output / f"seed-{seed}"
        run = train(own / "training", recordings, seed, args.steps, args.config, others)
        learned.append(accuracies(run, args.steps))
        encoders = {
            "trained": run,
            "untrained": save_untrained(run, own / "untrained", seed, args.output / "recordings"),
        }
        other = save_untrained(run, own / "untrained-channel-norm", seed, args.output / "recordings", "channel")
        encoders["untrained, channel norm"] = other
        for name, model in {**encoders, "mel spectrum": "mel"}.items():
            for head in heads:
                folder = own / f"{name}-{head}".replace(", ", "-").replace(" ", "-")
                found = transcribe(folder, model, mixes, seed, head, args.epochs)
                notes.setdefault(f"{name}, {head}", []).append(found)
        for name, model in encoders.items():
            for head in ("linear", "mlp"):
                folder = own / f"{name}-instruments-{head}".replace(", ", "-").replace(" ", "-")
                found = probe(folder, model, labels, head, seed == 0 and name == "trained")
                for key, value in found.items():
                    if key == "untrained":  # of another seed than ours
                        continue
                    row = instruments.setdefault(name if key == "model" else key, {})
                    row.setdefault(head, []).append(value)
        text = tables(learned, notes, instruments)
        write_text(args.output / "tables.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
