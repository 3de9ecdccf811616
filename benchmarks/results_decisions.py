"""Calibration and clusters on people left out: `python -m benchmarks.results_decisions --data DATA --output DIR`.

DATA is as for `benchmarks.results`, whose split and recipe give the model of ours. The people whom it has not seen are
halved, seed by seed: a calibration is fitted on one half and tested on the other, and the reverse. Resemblyzer
(`package:resemblyzer`) is tested on the same people, and on all people of each set. Trials are pairs within one set,
without pairs of one recording, at lengths that are drawn. What is embedded already is not embedded again;
`decisions.md` has the tables.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from benchmarks.results import SETS, Run, split, train
from ssl_audio.decisions.calibrating import draw_lengths, embed_cut, figures_on
from ssl_audio.decisions.clustering import Voices, cluster_voices
from ssl_audio.errors import InputError
from ssl_audio.evaluation.bootstrap import percentile_interval
from ssl_audio.evaluation.calibration import cllr, fit_calibration, min_cllr
from ssl_audio.evaluation.calibration_fit import ScoredTrials, fit_model_calibration
from ssl_audio.evaluation.clustering_metrics import clustering_metrics
from ssl_audio.evaluation.model_calibration import ModelCalibration, length_inputs
from ssl_audio.evaluation.recordings import find_recordings
from ssl_audio.evaluation.scoring import score_trials
from ssl_audio.utils.files import write_atomically, write_text

ARRAYS = ("values", "seconds", "longer")
LENGTHS = (1.0, 2.0, 4.0)
TRIALS = 15_000  # of different people, a set
RESAMPLES, HANDFUL = 100, 3  # refits and resamples; people of the target set who repair an offset
PEOPLE = (5, 10, 20, 40)
RULES_OF_THUMB = (0.25, 0.75)


@dataclass(frozen=True, eq=False)
class Pool:
    """All recordings with their embeddings by one model.

    Attributes:
        sets, people, takes: (files,) names.
        unseen: (files,) bool: of people who were not in the training of ours.
        values: (lengths + 1, files, dim), whole recordings first; seconds: (lengths + 1, files).
        longer: (lengths + 1, files) bool: whether the cut is shorter than the file.
    """

    sets: np.ndarray
    people: np.ndarray
    takes: np.ndarray
    unseen: np.ndarray
    values: np.ndarray
    seconds: np.ndarray
    longer: np.ndarray

    def trials(self, files: np.ndarray, seed: int) -> ScoredTrials:
        """Of the (files,) bool, within each set."""
        rng = np.random.default_rng(seed)
        found = []
        for name in np.unique(self.sets[files]):
            here = np.flatnonzero(files & (self.sets == name))
            a, b = here[np.stack(np.triu_indices(len(here), 1))]
            same = self.people[a] == self.people[b]
            kept = ~(same & (self.takes[a] == self.takes[b]))
            different = np.flatnonzero(kept & ~same)
            different = rng.permutation(different)[:TRIALS]
            chosen = np.concatenate([np.flatnonzero(kept & same), different])
            found.append(np.stack([a[chosen], b[chosen]], axis=1))
        pairs = np.concatenate(found)
        count = self.values.shape[1]
        rows = np.where(self.longer, np.arange(len(self.values))[:, None] * count + np.arange(count), -1)
        cuts, kinds = draw_lengths(pairs, rows, np.array([np.nan, *LENGTHS]), rng)
        scores = score_trials(self.values.reshape(-1, self.values.shape[2]), cuts).astype(np.float64)
        _, codes = np.unique(self.people[pairs], return_inverse=True)
        labels = self.people[pairs[:, 0]] == self.people[pairs[:, 1]]
        return ScoredTrials(labels, scores, self.seconds.ravel()[cuts], codes.reshape(-1, 2), kinds)


def load_pool(name: str, model: Any, data: Path, splits: Path, output: Path) -> Pool:
    """Embed all sets, or read what was embedded."""
    sets, people, takes, unseen, paths = [], [], [], [], []
    for dataset in SETS:
        folder = next(data.glob(f"*/{dataset}"))
        found = find_recordings(folder)
        for path, file, singer, take in zip(found.paths(), found.files, found.singers, found.recording, strict=True):
            sets.append(dataset)
            people.append(singer)
            takes.append(take)
            paths.append(path)
            unseen.append((splits / "test" / dataset / file.split("/")[0]).exists())
    kept = output / f"{name}.npz"
    if not kept.exists():
        rng, made = np.random.default_rng(0), model()
        tables = [embed_cut(made, paths, seconds, rng, {}) for seconds in (None, *LENGTHS)]
        arrays = {
            key: np.stack([table[i] for table in tables]) for i, key in enumerate(("values", "seconds", "longer"))
        }
        with write_atomically(kept) as temporary:
            np.savez(temporary, **arrays)
    with np.load(kept) as arrays:
        values = [arrays[key] for key in ARRAYS]
    values[2][0] = True
    return Pool(np.array(sets), np.array(people), np.array(takes), np.array(unseen), *values)


def halves(pool: Pool, files: np.ndarray, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """((files,) bool to calibrate on, to test on), both ways; the people of each set are halved, and so are those of
    them who have two recordings."""
    rng = np.random.default_rng(seed)
    first = np.zeros(len(files), dtype=bool)
    for name in np.unique(pool.sets[files]):
        here = files & (pool.sets == name)
        people = np.unique(pool.people[here])
        several = [len(np.unique(pool.takes[here & (pool.people == one)])) > 1 for one in people]
        for kind in (True, False):
            group = rng.permutation(people[np.array(several) == kind])
            first |= np.isin(pool.people, group[: len(group) // 2]) & here
    yield first, files & ~first
    yield files & ~first, first


def fitted(pool: Pool, files: np.ndarray, seed: int) -> ModelCalibration | None:
    """The calibration of these files; None if there are too few people."""
    try:
        return fit_model_calibration(pool.trials(files, seed), seed=seed, resamples=RESAMPLES)
    except InputError:
        return None


def tested(pool: Pool, calibration: ModelCalibration, files: np.ndarray, seed: int) -> dict[str, Any] | None:
    """`figures_on`, and the rate asked and reached at each length; None where a set cannot be tested."""
    scored = pool.trials(files, seed)
    if not scored.labels.any() or scored.labels.all():
        return None
    try:
        found = figures_on(calibration, scored, seed, RESAMPLES)
    except InputError:
        return None
    found["by_length"] = {}
    for seconds in LENGTHS:
        here = ~scored.labels & (scored.kinds == seconds)
        if here.sum() >= 200 and calibration.false_accepts.smallest <= 0.05:
            hits = calibration.accepts(0.05, scored.scores[here], scored.lengths[here])
            found["by_length"][seconds] = float(hits.mean())
    return found


def repaired(pool: Pool, calibration: ModelCalibration, few: np.ndarray, files: np.ndarray, seed: int) -> float | None:
    """Cllr on `files` when the offset alone is fitted again on the recordings of a few people of that set."""
    own, scored = pool.trials(few, seed), pool.trials(files, seed)
    if not own.labels.any() or own.labels.all():
        return None
    ratios = calibration.ratios(own.scores, own.lengths)
    shift = minimize_scalar(lambda x: cllr(own.labels, ratios + x), bounds=(-10, 10), method="bounded").x
    return cllr(scored.labels, calibration.ratios(scored.scores, scored.lengths) + float(shift))


def across(pool: Pool, files: np.ndarray, name: str, seed: int) -> dict[str, Any] | None:
    """Calibrated on all other sets, tested on this one: `cllr`, `min_cllr`, and `repaired` by a handful of people."""
    here = files & (pool.sets == name)
    calibration = fitted(pool, files & ~here, seed)
    if calibration is None:
        return None
    people = np.unique(pool.people[here])
    several = [one for one in people if len(np.unique(pool.takes[here & (pool.people == one)])) > 1]
    few = here & np.isin(pool.people, np.random.default_rng(seed).permutation(several)[:HANDFUL])
    found = tested(pool, calibration, here & ~few, seed)
    return None if found is None else {**found, "repaired": repaired(pool, calibration, few, here & ~few, seed)}


def clustered(pool: Pool, calibration: ModelCalibration, files: np.ndarray) -> dict[str, dict[str, Any]]:
    """{rule: metrics} of whole recordings: by the calibration, and by rules of thumb."""
    places = np.flatnonzero(files)
    rules: list[tuple[str, ModelCalibration | None, float]] = [("calibrated", calibration, 0.0)]
    rules += [(f"cosine {threshold:g}", None, threshold) for threshold in RULES_OF_THUMB]
    found = {}
    for name, how, threshold in rules:
        voices = Voices.of(pool.values[0, places], pool.seconds[0, places], how)
        labels = cluster_voices(voices, threshold).labels
        found[name] = clustering_metrics(labels.tolist(), pool.people[places].tolist())
    return found


def by_people(pool: Pool, train_on: np.ndarray, test_on: np.ndarray, seed: int) -> dict[int, list[float]]:
    """{number of people: Cllr on `test_on` of calibrations on so many people of `train_on`, ten draws}."""
    scored, rng = pool.trials(test_on, seed), np.random.default_rng(seed)
    everybody = np.unique(pool.people[train_on])
    found: dict[int, list[float]] = {}
    for number in (number for number in PEOPLE if number <= len(everybody)):
        for draw in range(10):
            files = train_on & np.isin(pool.people, rng.permutation(everybody)[:number])
            own = pool.trials(files, seed + draw)
            try:
                line = fit_calibration(own.labels, own.scores, inputs=length_inputs(own.scores, own.lengths)[:, :2])
            except InputError:
                continue
            ratios = line(scored.scores, length_inputs(scored.scores, scored.lengths)[:, :2])
            found.setdefault(number, []).append(cllr(scored.labels, ratios))
    return found


# --- tables


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def calibration_table(rows: dict[str, list[dict[str, Any]]]) -> str:
    """A line a set: Cllr beside the least, then rates asked for and reached, over seeds and halves."""
    lines = ["| | Cllr | least | ratio | EER | 5 % asked | within | 1 % asked | within | 5 % at 1 s | 2 s | 4 s |",
             f"|---|{'---:|' * 11}"]  # fmt: skip
    for name, many in rows.items():
        if not many:
            lines.append(f"| {name} | too few people |{' |' * 10}")
            continue
        cells = [np.mean([one["cllr"] for one in many]), np.mean([one["min_cllr"] for one in many])]
        text = [
            number(cells[0]),
            number(cells[1]),
            f"{cells[0] / cells[1]:.2f}",
            number(np.mean([o["eer"] for o in many])),
        ]
        for asked in (0.05, 0.01):
            rates = [rate for one in many for rate in one["rates"] if rate["asked"] == asked]
            spans = [rate["false_accept_interval"] for rate in rates]
            inside = sum(low <= asked <= high for low, high in spans)
            if rates:
                low, high = np.mean(spans, axis=0)
                measured = 100 * np.mean([rate["false_accept"] for rate in rates])
                text += [f"{measured:.1f} ({100 * low:.1f}-{100 * high:.1f})", f"{inside} of {len(rates)}"]
            else:
                text += ["", ""]
        for seconds in LENGTHS:
            here = [one["by_length"][seconds] for one in many if seconds in one["by_length"]]
            text.append(f"{100 * np.mean(here):.1f}" if here else "")
        lines.append(f"| {name} | {' | '.join(text)} |")
    return "\n".join(lines)


def across_table(rows: dict[str, list[dict[str, Any]]]) -> str:
    lines = ["| | Cllr | least | offset repaired |", "|---|---:|---:|---:|"]
    for name, many in rows.items():
        if many:
            fixed = [one["repaired"] for one in many if one["repaired"] is not None]
            values = [np.mean([one[key] for one in many]) for key in ("cllr", "min_cllr")]
            cells = [number(float(value)) for value in values] + [number(float(np.mean(fixed)) if fixed else None)]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cluster_table(rows: dict[str, list[dict[str, dict[str, Any]]]]) -> str:
    """Voices found of those there, and B-cubed F1 with its mean interval."""
    rules = ["calibrated", *(f"cosine {threshold:g}" for threshold in RULES_OF_THUMB)]
    lines = [f"| | voices | {' | '.join(f'{rule}: found | B-cubed F1' for rule in rules)} |",
             f"|---|---:|{'---:|---:|' * len(rules)}"]  # fmt: skip
    for name, many in rows.items():
        cells = [f"{np.mean([one[rules[0]]['labels'] for one in many]):.0f}"]
        for rule in rules:
            spans = [one[rule]["b_cubed_f1_interval"] for one in many if "b_cubed_f1_interval" in one[rule]]
            value = f"{np.mean([one[rule]['b_cubed_f1'] for one in many]):.2f}"
            if len(spans) == len(many):  # with fewer than three people there is none
                value += " ({:.2f}-{:.2f})".format(*np.mean(spans, axis=0))
            cells += [f"{np.mean([one[rule]['clusters'] for one in many]):.0f}", value]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def length_table(calibrations: list[ModelCalibration]) -> str:
    lines = ["| length of both clips | Cllr | without the lengths |", "|---|---:|---:|"]
    for seconds in LENGTHS:
        rows = [row for one in calibrations for row in one.facts["by_length"] if row["seconds"] == seconds]
        if rows:
            values = [np.mean([row.get(key, row["cllr_without_length"]) for row in rows])
                      for key in ("cllr", "cllr_without_length")]  # fmt: skip
            lines.append(f"| {seconds:g} s | {values[0]:.3f} | {values[1]:.3f} |")
    return "\n".join(lines)


def people_table(found: dict[int, list[float]], least: float) -> str:
    lines = ["| people | Cllr, mean | 95 % of the draws |", "|---|---:|---:|"]
    for count, values in sorted(found.items()):
        low, high = percentile_interval(values)
        lines.append(f"| {count} | {np.mean(values):.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join(lines) + f"\n\nThe least possible Cllr on the tested people is {least:.3f}."


def study(title: str, pool: Pool, files: np.ndarray, seeds: int, whole: bool) -> str:
    """The tables of one model on some people; `whole` adds those that need many."""
    same: dict[str, list] = {name: [] for name in SETS}
    pooled: dict[str, list] = {name: [] for name in SETS}
    other: dict[str, list] = {name: [] for name in SETS}
    groups: dict[str, list] = {name: [] for name in SETS}
    by_length: list[ModelCalibration] = []
    curve: dict[int, list[float]] = {}
    least: list[float] = []
    for seed in range(seeds):
        for one, two in halves(pool, files, seed):
            calibration = fitted(pool, one, seed)
            assert calibration is not None
            by_length += [] if whole else [calibration]
            for count, values in by_people(pool, one, two, seed).items():
                curve.setdefault(count, []).extend(values)
            scored = pool.trials(two, seed)
            least.append(min_cllr(scored.labels, scored.scores))
            for name in SETS:
                here = pool.sets == name
                pooled[name].append(tested(pool, calibration, two & here, seed))
                own = fitted(pool, one & here, seed) if whole else None
                same[name].append(None if own is None else tested(pool, own, two & here, seed))
                groups[name].append(clustered(pool, own or calibration, two & here))
                by_length += [own] if own is not None else []
        for name in SETS:
            other[name].append(across(pool, files, name, seed))
    same, pooled, other = ({k: [x for x in v if x is not None] for k, v in d.items()} for d in (same, pooled, other))
    parts = [f"### {title}"]
    if whole:
        parts.append(f"Calibrated on half of a set's people, tested on the other half:\n\n{calibration_table(same)}")
    by_number = people_table(curve, float(np.mean(least)))
    parts += [
        f"Calibrated on half of the people of all sets, tested on the others, by set:\n\n{calibration_table(pooled)}",
        f"Calibrated on the other sets:\n\n{across_table(other)}",
        f"The lengths as inputs, on people left out:\n\n{length_table(by_length)}",
        f"By number of people that a calibration is fitted on (all sets):\n\n{by_number}",
        f"Clusters of the tested half, by the set's own calibration or that of all sets:\n\n{cluster_table(groups)}",
    ]
    return "\n\n".join(parts) + "\n"


def main() -> int:
    from ssl_audio.hub import load_model

    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_decisions", description=__doc__)
    add = parser.add_argument
    add("--data", required=True, type=Path, help="folder of collections with a manifest.csv each")
    add("--output", required=True, type=Path, help="folder for the split, the run, embeddings and decisions.md")
    add("--steps", default=300, type=int, help="of the training of the recipe (300)")
    add("--seeds", default=3, type=int, help="of the halves of the people (3)")
    add("--precision", default="hardware/cpu", help="config stacked last (hardware/cpu)")
    args = parser.parse_args()
    splits = args.output / "split-0"
    split(args.data, splits, 0)
    run = train(Run("recipe", "recipe", share=1.0), splits, args.output, args.steps, args.precision)
    models = {"resemblyzer": lambda: load_model("package:resemblyzer"), "ours": lambda: load_model(str(run))}
    pools = {name: load_pool(name, make, args.data, splits, args.output) for name, make in models.items()}
    everybody = np.ones(len(pools["ours"].sets), dtype=bool)
    unseen = pools["ours"].unseen
    studies = [
        ("package:resemblyzer, all people", "resemblyzer", everybody, True),
        ("The recipe, people whom it has not seen", "ours", unseen, False),
        ("package:resemblyzer, the same people", "resemblyzer", unseen, False),
    ]
    text = ""
    for title, name, files, whole in studies:
        text += study(title, pools[name], files, args.seeds, whole) + "\n"
        write_text(args.output / "decisions.md", text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
