"""What one can download beside a network from scratch, on the same trials.

    python -m benchmarks.results_foreign --data DATA --output DIR

DATA is as for `benchmarks.results`; the split of singers and the training are its own. The report of `ssl-audio
evaluate` is in DIR/report, the tables in DIR/tables.md. What is done already is not done again.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.results import SETS, Run, split, train
from ssl_audio.embedding.conditions import parse_condition
from ssl_audio.utils.files import write_text

SCRATCH, RESEMBLYZER = "from scratch", "Resemblyzer"
CENTRED, BEST = "from scratch, centred", "Resemblyzer, trimmed and centred"
BASELINE = "MFCC statistics"
ADDRESSES = {RESEMBLYZER: "package:resemblyzer", BEST: "package:resemblyzer?level=-30&trim=webrtc"}


def rows(kept: Any, models: dict[str, Any], test: list[Path], training: list[Path], condition: Any) -> dict[str, Any]:
    """{row: (files, dim)} of the test recordings; centred rows have lost the mean of the training recordings."""
    from ssl_audio.embedding.recordings import standardized

    raw = {name: kept.embed(model, test, condition) for name, model in models.items()}
    mean = {name: kept.embed(models[name], training).mean(axis=0) for name in (SCRATCH, BEST)}
    return {
        SCRATCH: raw[SCRATCH],
        CENTRED: raw[SCRATCH] - mean[SCRATCH],
        RESEMBLYZER: raw[RESEMBLYZER],
        BEST: raw[BEST] - mean[BEST],
        BASELINE: standardized(models[BASELINE], raw[BASELINE])[0],
    }


def table(evaluations: list[Any], arms: list[Any]) -> str:
    """The EER of each row on each set, and the paired difference of the best rows, in Markdown."""
    from ssl_audio.evaluation.comparison import compare_all
    from ssl_audio.evaluation.report.verdict import points, with_interval

    lines = ["| set | condition | singers | " + " | ".join((SCRATCH, CENTRED, RESEMBLYZER, BEST, BASELINE))
             + f" | {BEST} less {CENTRED}, points |", "|---|---|---:|" + "---|" * 6]  # fmt: skip
    found = [*((e, "") for e in evaluations), *((arm, arm.condition) for arm in arms)]
    pairs = {(c.test_set, c.condition, frozenset((c.first, c.second))): c for c in
             (*compare_all(evaluations), *compare_all(arms))}  # fmt: skip
    for case in dict.fromkeys((one.test_set.name, condition) for one, condition in found):
        here = {one.model: one.verification for one, condition in found if (one.test_set.name, condition) == case}
        pair = pairs[(*case, frozenset((CENTRED, BEST)))]
        sign = 1 if pair.first == BEST else -1
        low, high = sorted(sign * bound for bound in pair.test.interval)
        cells = [with_interval(v.eer, v.eer_interval) for v in here.values()]
        difference = f"{points(sign * pair.test.difference)} ({points(low)} to {points(high)})"
        cells = [case[0], case[1] or "clean", str(here[BEST].n_paired_singers), *cells, difference]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def costs(kept: Any, models: dict[str, Any]) -> str:
    """Size and speed of each model, in Markdown."""
    from ssl_audio.evaluation.cost import machine, model_cost

    lines = [
        f"| model | parameters | dimension | seconds an hour ({machine()}) | licence |",
        "|---|---:|---:|---:|---|",
    ]
    for name, model in models.items():
        cost = model_cost(model, kept.seconds_per_hour(model), getattr(model, "licence", "-"))
        seconds = "-" if cost.seconds_per_hour is None else f"{cost.seconds_per_hour:.0f}"
        lines.append(f"| {name} | {cost.parameters:,} | {cost.dim} | {seconds} | {cost.licence} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_foreign", description=__doc__)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder of collections with a manifest.csv each")
    add("--output", required=True, type=Path, help="folder for split, run, embeddings, report and tables.md")
    add("--steps", default=1200, type=int, help="of the training from scratch (1200)")
    add("--seed", default=0, type=int, help="of the split and the training (0)")
    add("--condition", action="append", default=[], help="see ssl-audio evaluate; repeatable")
    add("--precision", default="hardware/cpu", help="config stacked last (hardware/cpu)")
    args = parser.parse_args()
    from ssl_audio import load_model
    from ssl_audio.baselines import mfcc_statistics
    from ssl_audio.embedding.kept import KeptEmbeddings
    from ssl_audio.evaluation.comparison import evaluate_condition, evaluate_model, load_test_set
    from ssl_audio.evaluation.recordings import find_recordings
    from ssl_audio.evaluation.report import write_comparison_report

    splits = args.output / f"split-{args.seed}"
    split(args.data, splits, args.seed)
    run = Run("foreign", "recipe", seed=args.seed, share=1.0)
    models: dict[str, Any] = {SCRATCH: load_model(str(train(run, splits, args.output, args.steps, args.precision)))}
    models |= {name: load_model(address) for name, address in ADDRESSES.items()}
    models[BASELINE] = mfcc_statistics()
    kept = KeptEmbeddings(args.output / "embeddings")
    evaluations, arms = [], []
    for name in SETS:
        test_set = load_test_set(splits / "test" / name)
        paths, training = test_set.recordings.paths(), find_recordings(splits / "train" / name).paths()
        for row, embeddings in rows(kept, models, paths, training, None).items():
            evaluations.append(evaluate_model(row, embeddings, test_set, baseline=row == BASELINE, probe=None))
        clean = {e.model: e for e in evaluations if e.test_set.name == name}
        for condition in map(parse_condition, args.condition):
            for row, embeddings in rows(kept, models, paths, training, condition).items():
                arms.append(evaluate_condition(clean[row], condition.name, np.asarray(embeddings)))
    write_comparison_report(evaluations, args.output / "report", settings={"steps": args.steps}, arms=arms)
    text = f"{table(evaluations, arms)}\n\n{costs(kept, models)}\n"
    write_text(args.output / "tables.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
