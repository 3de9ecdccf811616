"""`python -m benchmarks.matrix`: train every combination of method, encoder, data and augmentation for two steps.

    python -m benchmarks.matrix --output matrix.csv                # all of them: hours; run it again to continue
    python -m benchmarks.matrix --output matrix.csv --sample 60    # 60 combinations that cover many pairs

The recordings are a few tones, made on the spot. A combination is a stack of packaged files, in one of `ORDERS`. It

- `works`: two steps of training end with status 0;
- is `refused`: one line for a reason of `REASONS` (docs/methods.md explains them), before data is read: the line is the
  same where the recordings do not exist;
- `fails`: anything else, such as a traceback. The script then ends with status 1.
"""

import argparse
import contextlib
import csv
import io
import itertools
import re
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ssl_audio import audio
from ssl_audio.cli import main as ssl_audio
from ssl_audio.errors import InputError
from ssl_audio.training.config import load_config
from ssl_audio.training.config_files import packaged_configs

NOT_A_METHOD = ("common", "demo", "distil")  # distil needs the table of a teacher, or a teacher
DATA = ("data/folder", "data/esc10", "data/windows", "data/musicnet-windows", "data/shards", "data/shards-plain")
ORDERS = ("method encoder data chain", "data method chain encoder", "method chain encoder data")
REASONS = {
    "spectrogram augmentation of samples": r"model\.feature_augmentation changes spectrograms, and \w+ gives samples",
    "short crops that are too short": r"a short crop of \d+ samples is too short: the model needs \d+",
    "too few frames for the steps of CPC": r"a clip of \d+ frames has none that is followed by \d+ others",
}
RATES = (16000, 22050, 44100)
SMALL = {
    "data.batch_size": "2",
    "data.nr_samples": "60000",
    "data.num_workers": "0",
    "data.eval_frac": "0",
    "data.short": "repeat",
    "trainer.max_steps": "2",
    "trainer.accelerator": "cpu",
    "trainer.enable_progress_bar": "false",
    "callbacks.periodic": "null",
    "callbacks.early_stopping": "null",
}
COLUMNS = ("method", "encoder", "data", "chain", "order", "outcome", "reason", "seconds", "message")


class Cell(NamedTuple):
    """A combination of packaged config files."""

    method: str
    encoder: str
    data: str
    chain: str
    order: str

    @property
    def stack(self) -> list[str]:
        """The names of the files, in order."""
        return ["common", *(getattr(self, word) for word in self.order.split())]


class Outcome(NamedTuple):
    """What came of a combination."""

    outcome: str
    reason: str = ""
    message: str = ""


def cells() -> list[Cell]:
    """All combinations of the packaged files."""
    names = packaged_configs()
    methods = [name for name in names if "/" not in name and name not in NOT_A_METHOD]
    encoders, chains = ([name for name in names if name.startswith(f"{kind}/")] for kind in ("encoder", "augmentation"))
    return [Cell(*values) for values in itertools.product(methods, encoders, DATA, chains, ORDERS)]


def covering(all_cells: Sequence[Cell], count: int, seed: int = 0) -> list[Cell]:
    """`count` combinations that cover as many values, and pairs of values, as a greedy choice finds."""
    rng, seen, chosen = np.random.default_rng(seed), set(), []
    for _ in range(min(count, len(all_cells))):
        candidates = [all_cells[i] for i in rng.integers(len(all_cells), size=200)]
        best = max(candidates, key=lambda cell: (len(_values(cell) - seen), len(_pairs(cell) - seen)))
        seen |= _values(best) | _pairs(best)
        chosen.append(best)
    return chosen


def _values(cell: Cell) -> set:
    return set(enumerate(cell))


def _pairs(cell: Cell) -> set:
    return set(itertools.combinations(enumerate(cell), 2))


def write_recordings(folder: Path) -> None:
    """Tones for every kind of data: singers, ESC-10, MusicNet, and shards at each rate of `RATES`."""
    from ssl_audio.data.shards import write_shards

    rng = np.random.default_rng(0)

    def write(path: Path, seconds: float = 4.0, rate: int = 44100) -> None:
        time = np.arange(round(seconds * rate)) / rate
        tone = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 900) * time) + 0.01 * rng.standard_normal(len(time))
        audio.write(path, tone.astype(np.float32), rate)

    for singer, song in itertools.product(range(4), range(3)):
        write(folder / "singers" / f"singer{singer}" / f"{song}.wav")
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold, target in itertools.product(range(1, 6), range(2)):
        rows.append(f"{fold}-{target}.wav,{fold},{target},{('dog', 'rain')[target]},True,{10 * fold + target},A")
        write(folder / "esc" / "audio" / f"{fold}-{target}.wav", 3.0)
    (folder / "esc" / "meta").mkdir()
    (folder / "esc" / "meta" / "esc50.csv").write_text("\n".join(rows), encoding="utf-8")
    table = ["id,composer,composition,movement,ensemble,seconds"]
    for number in range(4):
        write(folder / "musicnet" / "train_data" / f"{1700 + number}.wav", 5.0)
        table.append(f"{1700 + number},Bach,Work {number},1,{('Duo', 'Trio')[number % 2]},5.0")
    write(folder / "musicnet" / "test_data" / "2500.wav")
    table.append("2500,Bach,Work,1,Duo,4.0")
    (folder / "musicnet" / "musicnet_metadata.csv").write_text("\n".join(table), encoding="utf-8")
    for rate in RATES:
        write_shards(folder / "singers", folder / f"shards-{rate}", rate, progress=False)


def overrides(cell: Cell, folder: Path) -> dict[str, str]:
    """The keys that make a combination small and name its recordings, below `folder`.

    Raises:
        InputError: as training would.
    """
    small = dict(SMALL)
    if cell.method == "cpc":
        small |= {"model.steps": "2", "model.num_negatives": "8"}
    if cell.data == "data/musicnet-windows":
        return small | {"data.root": f"{folder}/musicnet", "data.cache": "false"}
    if cell.data.startswith("data/shards"):
        rate = load_config(cell.stack)["data"]["init_args"]["sample_rate"]
        return small | {"data.shards": f"{folder}/shards-{rate}"}
    return small | {"data.dataset_dirs": f"[{folder}/{'esc' if cell.data == 'data/esc10' else 'singers'}]"}


def train(cell: Cell, folder: Path) -> tuple[int, str, str]:
    """Train a combination; returns status, last line of what it said to stderr, and a traceback or ""."""
    said = io.StringIO()
    try:
        keys = overrides(cell, folder)
        words = [word for name in cell.stack for word in ("--config", name)]
        words += [word for key, value in keys.items() for word in (f"--{key}", value)]
        with tempfile.TemporaryDirectory() as runs, contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            status = ssl_audio(["train", *words, "--trainer.logger.save_dir", runs])
    except InputError as error:
        return 2, f"error: {error}", ""
    except Exception:  # a traceback is what this script looks for
        return 1, "", traceback.format_exc()
    lines = [line for line in said.getvalue().splitlines() if line.startswith("error: ")]
    return status, lines[-1] if lines else "", ""


def attempt(cell: Cell, folder: Path) -> Outcome:
    """What comes of a combination whose recordings are in `folder`."""
    status, line, trace = train(cell, folder)
    if status == 0:
        return Outcome("works")
    reason = explained(line)
    if status != 2 or trace or not reason:
        return Outcome("fails", "", trace.strip().splitlines()[-1] if trace else line)
    if train(cell, folder / "nowhere")[1] != line:
        return Outcome("fails", reason, f"said only after data was read: {line}")
    return Outcome("refused", reason, line)


def explained(line: str) -> str:
    """The name in `REASONS` of a refusal; "" for one that is not there."""
    return next((name for name, pattern in REASONS.items() if re.search(pattern, line)), "")


def results(chosen: Sequence[Cell], table: Path) -> Iterator[tuple[Cell, Outcome]]:
    """The outcome of each combination, from the table where it has it, else added to it."""
    done: dict[Cell, Outcome] = {}
    if table.is_file():
        with open(table, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                done[Cell(*(row[key] for key in Cell._fields))] = Outcome(*(row[key] for key in Outcome._fields))
    else:
        table.parent.mkdir(parents=True, exist_ok=True)
        table.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    with tempfile.TemporaryDirectory() as name:
        if any(cell not in done for cell in chosen):
            write_recordings(Path(name))
        for cell in chosen:
            if cell not in done:
                begun = time.perf_counter()
                outcome = attempt(cell, Path(name))
                row = [*cell, outcome.outcome, outcome.reason, f"{time.perf_counter() - begun:.1f}"]
                message = outcome.message.replace(name, "")
                with open(table, "a", newline="", encoding="utf-8") as file:
                    csv.writer(file, lineterminator="\n").writerow([*row, message])
                done[cell] = outcome._replace(message=message)
            yield cell, done[cell]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the combinations, print what does not work, and how many do. Returns 1 if one fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.matrix", description=__doc__.split("\n")[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--output", type=Path, default=Path("matrix.csv"), help="table; combinations that it has are not run again"
    )
    parser.add_argument("--sample", type=int, metavar="N", help="only N combinations, which cover many pairs")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    args = parser.parse_args(arguments)
    chosen = cells() if args.sample is None else covering(cells(), args.sample, args.seed)
    counts: dict[str, int] = {}
    for number, (cell, outcome) in enumerate(results(chosen, args.output), 1):
        counts[outcome.outcome] = counts.get(outcome.outcome, 0) + 1
        if outcome.outcome != "works":
            print(f"{number}/{len(chosen)} {' + '.join(cell.stack)}: {outcome.outcome}: {outcome.message}", flush=True)
    print(
        ", ".join(f"{count} {name}" for name, count in sorted(counts.items())), f"of {len(chosen)}; see {args.output}"
    )
    return 1 if counts.get("fails") else 0


if __name__ == "__main__":
    sys.exit(main())
