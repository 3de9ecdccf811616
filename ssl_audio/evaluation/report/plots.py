"""The plots of a report, as matplotlib figures. They need no display and are deterministic."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ssl_audio.evaluation.comparison import Evaluation, sample_recordings
from ssl_audio.evaluation.probes import ProbeResult
from ssl_audio.evaluation.projection import project
from ssl_audio.evaluation.verification import DET_RATES

COLOURS = ("#4269d0", "#ff725c", "#3ca951", "#a463f2", "#9c6b4e", "#6cc5b0", "#ff8ab7", "#97bbf5", "#efb118", "#777777")
MAX_MAPPED = 3_000  # recordings in a map, at most: more would overlap, and UMAP would take minutes
_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
_TITLE = 30  # letters of a name above a panel or at an axis, at most
_NAMED_SINGERS = 12  # a map of more singers has no legend
_SHOWN_SINGERS = 40  # singers in the plot of the EER per singer, at most
_SHOWN_CLASSES = 50  # a confusion matrix of more classes has no names at its axes


def det_plot(evaluations: Sequence[Evaluation]) -> Figure:
    """Misses against false accepts on normal-deviate axes, with a 95 % band over singers around each model."""
    figure, axes = _figure(1)
    for evaluation, colour in zip(evaluations, _cycle(), strict=False):
        curve, misses = evaluation.verification.curve, evaluation.verification.resampled.get("miss")
        assert curve is not None
        line = "--" if evaluation.baseline else "-"
        x, y = _probit(DET_RATES), _probit(curve.miss_at(DET_RATES))
        axes[0].plot(x, y, line, color=colour, label=_label(evaluation.model))
        if misses is not None and not evaluation.baseline:
            low, high = np.nanquantile(misses, [0.025, 0.975], axis=0)
            axes[0].fill_between(x, _probit(low), _probit(high), color=colour, alpha=0.12, linewidth=0)
    ends = _probit(np.array([0.001, 0.8]))
    axes[0].plot(ends, ends, color="#999999", linewidth=0.8)
    places, names = _probit(np.array(_TICKS)), [f"{100 * tick:g}" for tick in _TICKS]
    axes[0].set(xlim=ends, ylim=ends, xlabel="false accepts, %", ylabel="misses, %")
    axes[0].set_xticks(places, names)
    axes[0].set_yticks(places, names)
    axes[0].grid(alpha=0.3)
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def score_plot(evaluations: Sequence[Evaluation]) -> Figure:
    """Histograms of same-singer and different-singer scores with the EER threshold; one panel per model."""
    figure, axes = _figure(len(evaluations))
    for axis, evaluation in zip(axes, evaluations, strict=False):
        scores, labels = evaluation.verification.scores, evaluation.test_set.trials.labels
        assert scores is not None and evaluation.verification.threshold is not None
        bins = np.linspace(float(scores.min()), float(scores.max()), 50).tolist()
        for label, name, colour in ((False, "different singers", COLOURS[1]), (True, "same singer", COLOURS[0])):
            axis.hist(scores[labels == label], bins, density=True, alpha=0.6, color=colour, label=name)
        axis.axvline(evaluation.verification.threshold, color="black", linewidth=0.8, label="EER threshold")
        axis.set(title=_short(evaluation.model), xlabel=evaluation.verification.score, yticks=[])
    axes[0].legend(frameon=False, fontsize="small")
    return figure


def singer_plot(evaluations: Sequence[Evaluation]) -> Figure:
    """EER of the trials of each singer, for all models; the singers with the highest EER of the first model on top."""
    shown = [e for e in evaluations if not e.baseline] or list(evaluations)
    first = shown[0].singer_eer
    names = sorted(first, key=lambda name: first[name])[-_SHOWN_SINGERS:]
    figure = Figure(figsize=(6, 1.6 + 0.24 * len(names)), layout="constrained")
    axis = figure.subplots()
    places = np.arange(len(names))
    for evaluation, colour in zip(shown, _cycle(), strict=False):
        values = [100 * evaluation.singer_eer.get(name, np.nan) for name in names]
        axis.scatter(values, places, color=colour, label=_label(evaluation.model), s=24)
    axis.set_yticks(places, map(_short, names), fontsize="small")
    axis.set(xlabel="EER, %", ylim=(-0.7, len(names) - 0.3))
    axis.grid(axis="x", alpha=0.3)
    axis.legend(frameon=False, fontsize="small", loc="lower right")
    return figure


def rank_plot(evaluations: Sequence[Evaluation]) -> Figure:
    """Histograms of the normalised ranks; one panel per model."""
    figure, axes = _figure(len(evaluations))
    for axis, evaluation in zip(axes, evaluations, strict=False):
        ranks, mnr = evaluation.verification.ranks, evaluation.verification.mnr
        assert ranks is not None and mnr is not None
        axis.hist(100 * ranks, np.linspace(0, 100, 41).tolist(), color=COLOURS[0])
        axis.axvline(100 * mnr, color="black", linewidth=0.8, label=f"mean {100 * mnr:.1f} %")
        axis.set(title=_short(evaluation.model), xlabel="normalised rank, %", ylabel="pairs")
        axis.legend(frameon=False, fontsize="small")
    return figure


def confusion_plot(evaluations: Sequence[Evaluation]) -> Figure:
    """Confusion matrices of the singers by the probe; one panel per model."""
    return confusion_figure([Confusion.of(e.model, e.probe) for e in evaluations if e.probe is not None], "singer")


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix to draw.

    Attributes:
        model: name of the model.
        counts: (classes, classes), rows are the true classes.
        classes: names of the classes.
        accuracy: fraction of correct decisions.
    """

    model: str
    counts: np.ndarray
    classes: Sequence[str]
    accuracy: float

    @classmethod
    def of(cls, model: str, result: ProbeResult) -> "Confusion":
        """The confusion matrix of a single-label probe."""
        assert result.metrics.confusion is not None
        return cls(model, result.metrics.confusion, result.classes, result.metrics.summary["accuracy"])


def confusion_figure(matrices: Sequence[Confusion], truth: str) -> Figure:
    """Confusion matrices as fractions of the items of each true class; one panel per matrix.

    Args:
        matrices: at least one.
        truth: label of the axis of the true classes.
    """
    most = max(len(matrix.classes) for matrix in matrices)
    figure, axes = _figure(len(matrices), side=3.6 + 0.08 * min(most, _SHOWN_CLASSES))
    for axis, matrix in zip(axes, matrices, strict=False):
        fractions = matrix.counts / np.maximum(matrix.counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(fractions, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        title = f"{_short(matrix.model)}: {100 * matrix.accuracy:.0f} % correct"
        axis.set(title=title, xlabel="predicted", ylabel=truth)
        places = range(len(matrix.classes)) if len(matrix.classes) <= _SHOWN_CLASSES else []
        names = [_short(matrix.classes[i]) for i in places]
        axis.set_xticks(places, names, rotation=90, fontsize=6)
        axis.set_yticks(places, names, fontsize=6)
    return figure


def map_plot(evaluations: Sequence[Evaluation], method: str = "pca", seed: int = 0) -> Figure:
    """Up to `MAX_MAPPED` unit-length embeddings in two dimensions, one colour per singer; one panel per model."""
    figure, axes = _figure(len(evaluations))
    for axis, evaluation in zip(axes, evaluations, strict=False):
        kept = sample_recordings(evaluation.test_set.recordings, seed, MAX_MAPPED)
        singers = np.array(evaluation.test_set.recordings.singers)[kept]
        embeddings = evaluation.embeddings[kept]
        unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
        points = project(unit, method, seed)
        names = np.unique(singers)
        for name, colour in zip(names, _singer_colours(len(names)), strict=True):
            own = points[singers == name]
            axis.scatter(
                own[:, 0], own[:, 1], s=10, color=colour, label=_label(name), linewidths=0, rasterized=len(points) > 500
            )
        axis.set(title=_short(evaluation.model), xticks=[], yticks=[])
    if len(names) <= _NAMED_SINGERS:
        axes[0].legend(frameon=False, fontsize="x-small")
    return figure


def map_sample_note(evaluations: Sequence[Evaluation]) -> str:
    """How many recordings the map shows, for its caption; "" if it shows all."""
    files = len(evaluations[0].test_set.recordings)
    return f" ({MAX_MAPPED:,} of {files:,} recordings, about as many of each singer)" if files > MAX_MAPPED else ""


def _figure(panels: int, side: float | None = None) -> tuple[Figure, list[Axes]]:
    """A figure of panels, two in a row; `side` is the width and height of a panel in inches."""
    columns = min(panels, 2)
    rows = -(-panels // columns)
    width, height = (side, side) if side is not None else (4.0, 3.4) if columns > 1 else (6.0, 5.0)
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes


def _short(name: str) -> str:
    """A name, shortened in its middle to fit above a panel or at an axis."""
    return name if len(name) <= _TITLE else f"{name[: _TITLE // 2 - 1]}…{name[-_TITLE // 2 :]}"


def _label(name: str) -> str:
    """A name for a legend, with a space before an underscore: matplotlib leaves out labels that begin with one."""
    return " " * name.startswith("_") + _short(name)


def _probit(rates: np.ndarray) -> np.ndarray:
    inverse = NormalDist().inv_cdf
    return np.array([inverse(min(max(float(rate), 5e-4), 1 - 5e-4)) for rate in np.ravel(rates)])


def _cycle() -> list[str]:
    return list(COLOURS) * 10


def _singer_colours(count: int) -> list[tuple[float, float, float]]:
    """Evenly spaced hues with two alternating lightnesses."""
    import colorsys

    return [colorsys.hls_to_rgb(i / count, 0.42 if i % 2 else 0.6, 0.65) for i in range(count)]
