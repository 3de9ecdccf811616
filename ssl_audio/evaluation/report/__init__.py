"""The report of a comparison: a folder that says which model is better, by how much, and whether this is significant.

- `report.html`: everything in one file, which needs no network.
- `metrics.json`: all metrics per model and data set, and the paired tests.
- `figures.csv`, `per_singer.csv`, `comparisons.csv`, `probe_per_class.csv`, `retrieval.csv`, `leaderboard.csv`: tables;
  `conditions.csv` if there are conditions.
- `plots/<data set>/`: det, scores, singers, ranks, confusion and map as PNG and SVG.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from tqdm import tqdm

from ssl_audio.evaluation.comparison import Arm, Comparison, Evaluation, compare_all
from ssl_audio.evaluation.report import html, plots
from ssl_audio.evaluation.report.conditions import conditions_section, cost_section
from ssl_audio.evaluation.report.leaderboard import METRICS, Entry, read_leaderboard
from ssl_audio.evaluation.report.tables import write_metrics, write_tables
from ssl_audio.evaluation.report.verdict import percent, points, verdict, with_interval
from ssl_audio.evaluation.verification import VerificationResult
from ssl_audio.provenance import versions
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.plotting import literal_text_style

REPORT = "report.html"
_PLOTS = ("det", "scores", "singers", "ranks", "confusion", "map")
_DPI = 130
_MARGIN = 6  # pixels around a panel


def write_comparison_report(
    evaluations: Sequence[Evaluation],
    output: Path,
    *,
    settings: dict[str, Any],
    arms: Sequence[Arm] = (),
    runs: Path | None = None,
    map_method: str = "pca",
    seed: int = 0,
    progress: bool = True,
) -> list[str]:
    """Write the report folder.

    Args:
        evaluations: one per model and test set, all bootstrapped with the same seed.
        output: the folder. An earlier report in it is replaced.
        settings: settings of the comparison, for metrics.json.
        arms: the same models on the same test sets under conditions.
        runs: folder to search for the metrics.json files of the leaderboard; default: the folder that holds `output`.
        map_method: "pca" or "umap".
        seed: of the map.
        progress: show a progress bar.

    Returns:
        The verdict, one sentence per entry, as at the top of the page.
    """
    evaluations = list(evaluations)
    comparisons, under = compare_all(evaluations), compare_all(arms)
    by_set: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        by_set.setdefault(evaluation.test_set.name, []).append(evaluation)
    write_metrics(output / METRICS, evaluations, [*comparisons, *under], settings, arms)
    _clear(output)
    board = read_leaderboard(runs or output.resolve().parent, output)
    write_tables(output, evaluations, [*comparisons, *under], board, arms)
    verdicts = {name: verdict(here, comparisons) for name, here in by_set.items()}
    body = _top(by_set, verdicts)
    jobs = [(name, *job) for name, here in by_set.items() for job in _plots(here, map_method, seed)]
    drawn: dict[str, list[str]] = {name: [] for name in by_set}
    for name, stem, drawing, alt, caption in tqdm(jobs, "drawing", disable=not progress, leave=False):
        with literal_text_style():
            panels = _save(drawing(), output / "plots" / name / stem)
        drawn[name].append(html.figure(panels, alt, caption))
    for name, here in by_set.items():
        body += _section(name, here, comparisons)
        body += conditions_section(_ordered(here), [arm for arm in arms if arm.test_set.name == name], under)
        body += drawn[name]
    body += _bottom(board, settings)
    write_text(output / REPORT, html.page("Evaluation of embeddings", body))
    return [f"{name}: {sentence}" for name, sentences in verdicts.items() for sentence in sentences]


def _clear(output: Path) -> None:
    """Remove the page and the plots of an earlier report, which do not belong to the new metrics."""
    (output / REPORT).unlink(missing_ok=True)
    for path in (output / "plots").glob("*/*"):
        if path.stem in _PLOTS and path.suffix in (".png", ".svg"):
            path.unlink()
    for folder in (output / "plots").glob("*"):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _plots(here: list[Evaluation], map_method: str, seed: int) -> Iterator[tuple[str, Callable[[], Figure], str, str]]:
    """(file stem, function that draws the plot, alternative text, caption) for every plot of one test set."""
    names = ", ".join(e.model for e in here)
    eers = "; ".join(f"{e.model} {percent(e.verification.eer)}" for e in here)
    ranks = "; ".join(f"{e.model} {percent(e.verification.mnr)}" for e in here)
    yield ("det", lambda: plots.det_plot(here), f"Misses against false accepts of {names}. EER: {eers}.",
           "Detection error trade-off. The lower left is better. Bands are 95 % intervals over singers. The EER is on "
           "the diagonal. Baselines are dashed.")  # fmt: skip
    yield ("scores", lambda: plots.score_plot(here), f"Histograms of trial scores of {names}. EER: {eers}.",
           "Scores of same-singer and different-singer trials. Less overlap is better.")  # fmt: skip
    if any(e.singer_eer for e in here):
        hardest = max(here[0].singer_eer, key=lambda s: here[0].singer_eer[s], default="-")
        yield ("singers", lambda: plots.singer_plot(here), f"EER of each singer; {hardest} has the highest.",
               "EER of each singer's trials, the highest on top.")  # fmt: skip
    yield ("ranks", lambda: plots.rank_plot(here), f"Histograms of normalised ranks. Mean: {ranks}.",
           "Normalised rank of a singer's other recordings among the recordings of all other singers. 0 is "
           "best.")  # fmt: skip
    probed = [e for e in here if e.probe is not None]
    if probed:
        right = "; ".join(f"{e.model} {percent(e.probe.metrics.summary['accuracy'])}" for e in probed if e.probe)
        yield ("confusion", lambda: plots.confusion_plot(here), f"Confusion matrices of singers. Accuracy: {right}.",
               "Singer identification by a simple classifier on frozen embeddings. Rows are the true "
               "singers.")  # fmt: skip
    yield ("map", lambda: plots.map_plot(here, map_method, seed), f"Maps of the embeddings of {names}.",
           f"Embeddings in two dimensions by {map_method.upper()}; one colour per singer"
           f"{plots.map_sample_note(here)}.")  # fmt: skip


_METRICS_EXPLAINED = (
    "EER, equal error rate: the error rate of deciding whether two recordings are by the same singer, at the threshold "
    "where false accepts are as frequent as misses. 50 % is chance.",
    "MNR, mean normalised rank: the rank of a singer's other recordings among the recordings of all other singers, "
    "divided by their number. 50 % is chance.",
    "minDCF, minimum detection cost: the cost of the errors at the best threshold if one trial in a hundred is of the "
    "same singer. 1 is the cost of rejecting every trial.",
    "Ranges are 95 % intervals over the choice of singers.",
)


def _top(by_set: dict[str, list[Evaluation]], verdicts: dict[str, list[str]]) -> list[str]:
    parts = [html.heading(1, "Which model is better, by how much, and is the difference significant?")]
    for name, sentences in verdicts.items():
        parts += [html.heading(3, name)] if len(by_set) > 1 else []
        parts.append(html.verdict_box(sentences or ["One model and no baseline: there is nothing to compare with."]))
    return [*parts, *(html.paragraph(sentence, "soft") for sentence in _METRICS_EXPLAINED)]


def _section(name: str, here: list[Evaluation], comparisons: list[Comparison]) -> list[str]:
    first = here[0]
    files, singers, paired = (
        getattr(first.verification, f"n_{what}") for what in ("files", "singers", "paired_singers")
    )
    some = f" (same-singer trials from {paired} of them)" if paired < singers else ""
    tested = f"{files:,} recordings of {singers} singers{some}, {first.test_set.trials_description()}."
    calibrated = any(e.verification.cllr is not None for e in here)
    header = ["model", "EER", "minDCF", "AUC", *(["Cllr, bits"] if calibrated else []), "MNR", "singer identification"]
    ordered = _ordered(here)
    rows = []
    for e in ordered:
        v, probe = e.verification, e.probe.metrics if e.probe else None
        accuracy = with_interval(probe.summary["accuracy"], probe.intervals.get("accuracy")) if probe else "-"
        cells = [e.model, with_interval(v.eer, v.eer_interval), f"{v.min_dcf:.3f}", f"{v.auc:.3f}"]
        cells += [_cost(v)] if calibrated else []
        rows.append([*cells, with_interval(v.mnr, v.mnr_interval), accuracy])
    parts = [html.heading(2, name), html.paragraph(tested), html.table(header, rows, [e.baseline for e in ordered])]
    parts += [html.paragraph(text, "soft") for text in [*_score_notes(here), *_probe_notes(here)]]
    notes = {e.probe_note for e in here if e.probe_note} | {n for e in here if e.probe for n in e.probe.notes}
    parts += [html.paragraph(f"Singer identification: {note}.", "soft") for note in sorted(notes)]
    models = {e.model for e in here if not e.baseline}
    pairs = [c for c in comparisons if c.test_set == name and {c.first, c.second} & models]
    rows = [
        [c.first, c.second, points(c.test.difference), " to ".join(map(points, c.test.interval)),
         f"{c.test.p_value:.2g}"]
        for c in pairs
    ]  # fmt: skip
    if rows:
        header = ["model", "against", "EER difference, points", "95 % interval", "p"]
        parts += [html.heading(3, "Paired tests on the same trials"), html.table(header, rows)]
    if len(rows) > 1:
        uncorrected = (
            "The p values are not corrected for multiple tests: of many pairs of equal models, one in twenty has p "
            "below 0.05 by chance."
        )
        parts.append(html.paragraph(uncorrected, "soft"))
    return parts + cost_section(ordered) + _retrieval(ordered)


def _ordered(here: list[Evaluation]) -> list[Evaluation]:
    """Models before baselines, each by EER."""
    return sorted(here, key=lambda e: (e.baseline, e.verification.eer))


def _cost(v: VerificationResult) -> str:
    """`0.41 (0.35 to 0.48), minimum 0.38`."""
    if v.cllr is None:
        return "-"
    around = f" ({v.cllr_interval[0]:.2f} to {v.cllr_interval[1]:.2f})" if v.cllr_interval else ""
    return f"{v.cllr:.2f}{around}, minimum {v.min_cllr:.2f}"


def _score_notes(here: list[Evaluation]) -> list[str]:
    """Sentences about normalisation and calibration."""
    first = here[0].verification
    sentences = []
    if first.cohort:
        sentences.append(f"Scores are {first.score} with {first.cohort}. MNR and retrieval use plain cosines.")
    fitted = next((e.verification.calibrated_on for e in here if e.verification.calibrated_on), "")
    if fitted:
        sentences.append(
            "Cllr is the cost of the calibrated scores in bits per trial. 0 is best; 1 means that the scores carry no "
            "information. The minimum is the Cllr of the best possible calibration. The calibration was fitted on "
            f"{fitted}."
        )
    notes = {f"{e.model} is not calibrated: {e.verification.calibration_note}." for e in here
             if e.verification.calibration_note}  # fmt: skip
    return sentences + sorted(notes)


def _probe_notes(here: list[Evaluation]) -> list[str]:
    """A sentence about the accuracy of the probe and the accuracy of guessing."""
    probe = next((e.probe for e in here if e.probe is not None), None)
    if probe is None or probe.metrics.confusion is None:
        return []
    how = "a vote of the nearest recordings" if probe.kind == "knn" else "a linear classifier"
    guess = probe.metrics.confusion.sum(axis=1).max() / probe.n_test
    return [
        f"Singer identification is the accuracy of {how} on {probe.n_test:,} files of {len(probe.classes)} singers, in "
        f"folds by recording. A classifier that always names the most frequent singer has {percent(guess)}."
    ]


_TASKS = {
    "same_artist": "same singer (other recordings)",
    "same_genre": "same genre",
    "same_genre_other_artist": "same genre, other singers",
}


def _retrieval(ordered: list[Evaluation]) -> list[str]:
    """A table of the retrieval metrics of every model and task."""
    header = ["model", "relevant", "precision at 1", "at 5", "at 10", "hit rate at 10", "mean AP", "chance"]
    columns = ["precision_at_1", "precision_at_5", "precision_at_10", "hit_rate_at_10"]
    columns += ["mean_average_precision", "chance"]
    found = [(e, task, e.retrieval[task]) for task in _TASKS for e in ordered if task in e.retrieval]
    rows = [[e.model, _TASKS[task], *(percent(metrics[name]) for name in columns)] for e, task, metrics in found]
    if not rows:
        return []
    text = (
        "Each recording is a query against all others. Precision is the fraction of relevant recordings among the k "
        "nearest. Hit rate is the fraction of queries with at least one relevant recording among them. Mean AP is the "
        "mean average precision of the whole ranking."
    )
    table = html.table(header, rows, [e.baseline for e, _, _ in found])
    return [html.heading(3, "Retrieval"), html.paragraph(text, "soft"), table]


def _bottom(board: list[Entry], settings: dict[str, Any]) -> list[str]:
    header = ["data set", "trials", "model", "score", "EER", "MNR", "report"]
    rows = [
        [e.data_set, e.trials, e.model, e.score, with_interval(e.eer, e.eer_interval), percent(e.mnr), e.report]
        for e in board
    ]
    return [
        html.heading(2, "Leaderboard"),
        html.paragraph(
            "This report and all others in the same folder. Rows with the same trials are comparable.", "soft"
        ),
        html.table(header, rows, [e.baseline for e in board]),
        html.heading(2, "Settings and versions"),
        html.table(["setting", "value"], [[k, _plain(v)] for k, v in settings.items() if v not in (None, [], "")]),
        html.table(["library", "version"], [[name, str(version)] for name, version in versions().items()]),
    ]


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _save(figure: Figure, stem: Path) -> list[html.Panel]:
    """Write a plot as PNG and SVG, and return its panels for the page; the whole plot would be too small on a phone."""
    figure.set_dpi(_DPI)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    with write_atomically(stem.with_suffix(".png")) as temporary:
        image.save(temporary)
    shown = [axis for axis in figure.axes if axis.axison]
    if len(shown) == 1:
        panels = [html.Panel(_png(image), "")]
    else:
        panels = [html.Panel(_png(_crop(image, axis, canvas)), axis.get_title()) for axis in shown]
    figure.set_layout_engine("none")  # the layout is already computed
    with write_atomically(stem.with_suffix(".svg")) as temporary:
        figure.savefig(temporary, format="svg")
    return panels


def _crop(image: Image.Image, axis: Axes, canvas: FigureCanvasAgg) -> Image.Image:
    """One panel of a plot, with its title and labels."""
    box = axis.get_tightbbox(canvas.get_renderer())
    assert box is not None
    left, right = max(box.x0 - _MARGIN, 0), min(box.x1 + _MARGIN, image.width)
    top, bottom = max(image.height - box.y1 - _MARGIN, 0), min(image.height - box.y0 + _MARGIN, image.height)
    return image.crop((round(left), round(top), round(right), round(bottom)))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
