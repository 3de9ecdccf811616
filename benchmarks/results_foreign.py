"""What one can download beside a network from scratch, on the same trials.

    python -m benchmarks.results_foreign --data DATA --output DIR

DATA and the splits of singers are those of `benchmarks.results`, so that the results compare with its tables. The
report of `ssl-audio evaluate` for each seed is in DIR/report-<seed>; the tables are in DIR/tables.md. What is done
already is not done again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.results import SETS, Run, split, train
from ssl_audio.embedding.conditions import parse_condition
from ssl_audio.utils.files import write_text

SCRATCH, CENTRED = "from scratch", "from scratch, centred"
RESEMBLYZER, BEST = "Resemblyzer", "Resemblyzer, trimmed and centred"
BASELINE = "MFCC statistics"
ADDRESSES = {RESEMBLYZER: "package:resemblyzer", BEST: "package:resemblyzer?level=-30&trim=webrtc"}


def rows(kept: Any, models: dict[str, Any], test: list[Path], training: list[Path], condition: Any) -> dict[str, Any]:
    """{row: (files, dim)} of the test recordings; centred rows have lost the mean of the training recordings."""
    from ssl_audio.embedding.recordings import standardized

    found = {}
    for name, model in models.items():
        raw = kept.embed(model, test, condition)
        if name == SCRATCH:
            found[SCRATCH], found[CENTRED] = raw, raw - kept.embed(model, training).mean(axis=0)
        elif name == BEST:
            found[BEST] = raw - kept.embed(model, training).mean(axis=0)
        else:
            found[name] = standardized(model, raw)[0]
    return found


def table(seed: int, evaluations: list[Any], arms: list[Any]) -> list[str]:
    """A line for each set and condition: the EER of each row, and the paired difference of the first two."""
    from ssl_audio.evaluation.comparison import compare_all
    from ssl_audio.evaluation.report.verdict import points, with_interval

    found = [*((e, "clean") for e in evaluations), *((arm, arm.condition) for arm in arms)]
    tests = {(c.test_set, c.condition or "clean", c.first, c.second): c.test for c in
             (*compare_all(evaluations), *compare_all(arms))}  # fmt: skip
    lines = []
    for case in dict.fromkeys((one.test_set.name, condition) for one, condition in found):
        here = {one.model: one.verification for one, condition in found if (one.test_set.name, condition) == case}
        first = next(iter(here))
        cells = [case[0], case[1], str(seed), str(here[BEST].n_paired_singers)]
        cells += [with_interval(v.eer, v.eer_interval) for v in here.values()]
        test = tests.get((*case, BEST, first))
        sign = 1 if test else -1
        test = test or tests[(*case, first, BEST)]
        low, high = sorted(sign * bound for bound in test.interval)
        lines.append(f"| {' | '.join(cells)} | {points(sign * test.difference)} ({points(low)} to {points(high)}) |")
    names = list(dict.fromkeys(e.model for e in evaluations))
    header = ["set", "condition", "seed", "singers", *names, f"{BEST}, less {names[0]}: points"]
    return [f"| {' | '.join(header)} |", "|---|---|---:|---:|" + "---|" * (len(names) + 1), *lines]


def costs(kept: Any, models: dict[str, Any]) -> list[str]:
    """Size and speed of each model, in Markdown."""
    from ssl_audio.evaluation.cost import machine, model_cost

    lines = [f"| on {machine()} | parameters | dimension | seconds an hour | licence |", "|---|---:|---:|---:|---|"]
    for name, model in models.items():
        cost = model_cost(model, kept.seconds_per_hour(model), getattr(model, "licence", "-"))
        seconds = "-" if cost.seconds_per_hour is None else f"{cost.seconds_per_hour:.0f}"
        lines.append(f"| {name} | {cost.parameters:,} | {cost.dim} | {seconds} | {cost.licence} |")
    return lines


def evaluate(args: argparse.Namespace, seed: int, models: dict[str, Any], kept: Any) -> list[str]:
    """Evaluate all models on the test singers of one split; write the report; return the lines of the table."""
    from ssl_audio.evaluation.comparison import evaluate_condition, evaluate_model, load_test_set
    from ssl_audio.evaluation.recordings import find_recordings
    from ssl_audio.evaluation.report import write_comparison_report

    splits = args.output / f"split-{seed}"
    evaluations, arms = [], []
    for name in tqdm(SETS, f"split {seed}", unit="set"):
        test_set = load_test_set(splits / "test" / name)
        paths, training = test_set.recordings.paths(), find_recordings(splits / "train" / name).paths()
        clean = {
            row: evaluate_model(row, embeddings, test_set, baseline=row == BASELINE, probe=None)
            for row, embeddings in rows(kept, models, paths, training, None).items()
        }
        evaluations += clean.values()
        for condition in map(parse_condition, args.condition):
            for row, embeddings in rows(kept, models, paths, training, condition).items():
                arms.append(evaluate_condition(clean[row], condition.name, embeddings))
    write_comparison_report(evaluations, args.output / f"report-{seed}", settings={"steps": args.steps}, arms=arms)
    return table(seed, evaluations, arms)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_foreign", description=__doc__)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder of collections with a manifest.csv each")
    add("--output", required=True, type=Path, help="folder for splits, runs, embeddings, reports and tables.md")
    add("--steps", default=1200, type=int, help="of a training from scratch by the recipe (1200); 0 leaves it out")
    add("--seeds", default=3, type=int, help="splits, each with its training (3)")
    add("--condition", action="append", default=[], help="see ssl-audio evaluate; repeatable")
    add("--precision", default="hardware/cpu", help="config stacked last (hardware/cpu)")
    args = parser.parse_args()
    from ssl_audio import load_model
    from ssl_audio.baselines import mfcc_statistics
    from ssl_audio.embedding.kept import KeptEmbeddings

    kept = KeptEmbeddings(args.output / "embeddings")
    foreign = {name: load_model(address) for name, address in ADDRESSES.items()}
    lines: list[str] = []
    models: dict[str, Any] = {}
    for seed in range(args.seeds):
        splits = args.output / f"split-{seed}"
        split(args.data, splits, seed)
        models = {}
        if args.steps:
            run = Run("foreign", "recipe", seed=seed, share=1.0)
            models[SCRATCH] = load_model(str(train(run, splits, args.output, args.steps, args.precision)))
        models |= {**foreign, BASELINE: mfcc_statistics()}
        found = evaluate(args, seed, models, kept)
        lines += found[2:] if lines else found
    text = "\n".join([*lines, "", *costs(kept, models), ""])
    write_text(args.output / "tables.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
