"""The pictures of a report, each a matplotlib figure; nothing here draws from a random state or needs a display."""

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.linalg import eigh
from scipy.sparse.linalg import eigsh

from ssl_audio.evaluation.comparison import Evaluation, sample_recordings
from ssl_audio.evaluation.verification import DET_RATES

COLOURS = ("#4269d0", "#ff725c", "#3ca951", "#a463f2", "#9c6b4e", "#6cc5b0", "#ff8ab7", "#97bbf5", "#efb118", "#777777")
MAX_MAPPED = 3_000  # recordings in a map: more hide each other, and UMAP takes minutes
_TICKS = (0.001, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
_TITLE = 30  # letters of a name above a panel or at an axis
_NAMED_SINGERS = 12  # more than that get no legend
_SHOWN_SINGERS = 40  # in the bars of the EER per singer
_SHOWN_CLASSES = 30  # of a confusion matrix that get a name at the axes


def det_plot(evaluations: Sequence[Evaluation]) -> Figure:
    """Misses against false accepts on normal-deviate axes, a 95 % band over singers around each model."""
    figure, axes = _figure(1)
    for evaluation, colour in zip(evaluations, _cycle(), strict=False):
        curve, draws = evaluation.verification.curve, evaluation.verification.draws.get("miss")
        assert curve is not None
        line = "--" if evaluation.baseline else "-"
        x, y = _probit(DET_RATES), _probit(curve.miss_at(DET_RATES))
        axes[0].plot(x, y, line, color=colour, label=_label(evaluation.model))
        if draws is not None and not evaluation.baseline:
            low, high = np.nanquantile(draws, [0.025, 0.975], axis=0)
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
    """Histograms of the scores of both classes of trials, a panel a model, with the EER threshold."""
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
    """EER of every singer's own trials, all models beside each other, the hardest singers of the first model on top."""
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
    """How the normalised ranks of the partners are spread, a panel a model; everything at 0 would be perfect."""
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
    """Who is taken for whom by the probe: shares of each singer's clips, a panel a model; rows are the truth."""
    shown = [e for e in evaluations if e.probe is not None]
    figure, axes = _figure(len(shown))
    for axis, evaluation in zip(axes, shown, strict=False):
        assert evaluation.probe is not None and evaluation.probe.figures.confusion is not None
        counts = evaluation.probe.figures.confusion
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        axis.imshow(shares, vmin=0, vmax=1, cmap="Blues", interpolation="nearest")
        accuracy = evaluation.probe.figures.summary["accuracy"]
        axis.set(title=f"{_short(evaluation.model)}: {100 * accuracy:.0f} % right", xlabel="taken for", ylabel="singer")
        places = range(len(counts)) if len(counts) <= _SHOWN_CLASSES else []
        names = [_short(evaluation.probe.classes[i]) for i in places]
        axis.set_xticks(places, names, rotation=90, fontsize=5)
        axis.set_yticks(places, names, fontsize=5)
    return figure


def map_plot(evaluations: Sequence[Evaluation], method: str = "pca", seed: int = 0) -> Figure:
    """The embeddings, or `MAX_MAPPED` of them, in two dimensions, coloured by singer, a panel a model."""
    figure, axes = _figure(len(evaluations))
    for axis, evaluation in zip(axes, evaluations, strict=False):
        kept = sample_recordings(evaluation.test_set.recordings, seed, MAX_MAPPED)
        singers = np.array(evaluation.test_set.recordings.singers)[kept]
        points = project(evaluation.embeddings[kept], method, seed)
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


def mapped_words(evaluations: Sequence[Evaluation]) -> str:
    """What of the recordings the map leaves out, for its caption."""
    files = len(evaluations[0].test_set.recordings)
    return f" ({MAX_MAPPED:,} of {files:,} recordings, drawn evenly over singers)" if files > MAX_MAPPED else ""


def project(embeddings: np.ndarray, method: str = "pca", seed: int = 0) -> np.ndarray:
    """(files, 2) by principal components, or by UMAP (cosine, from the seed)."""
    unit = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)
    if method == "umap":
        import umap

        start = "spectral" if len(unit) > 3 else "random"  # the first needs more points than eigenvectors
        return umap.UMAP(
            n_neighbors=min(15, len(unit) - 1), metric="cosine", init=start, random_state=seed, n_jobs=1
        ).fit_transform(unit)
    centred = (unit - unit.mean(axis=0)).astype(np.float64)
    covariance, dim = centred.T @ centred, centred.shape[1]
    solve = (
        eigh if dim < 10 else lambda matrix: eigsh(matrix, k=2, v0=np.ones(dim))
    )  # the second needs no full solution
    values, vectors = solve(covariance)
    vectors = vectors[:, np.argsort(-values)[:2]]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), [0, 1]])  # the same picture on every machine
    return centred @ vectors


def _figure(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of panels, two in a row."""
    columns = min(panels, 2)
    rows = -(-panels // columns)
    figure = Figure(figsize=(4 * columns if columns > 1 else 6, 3.4 * rows if columns > 1 else 5), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for axis in axes[panels:]:
        axis.set_axis_off()
    return figure, axes


def _short(name: str) -> str:
    """A name that fits above a panel or at an axis."""
    return name if len(name) <= _TITLE else f"{name[: _TITLE // 2 - 1]}…{name[-_TITLE // 2 :]}"


def _label(name: str) -> str:
    """A name in a legend, from which matplotlib leaves out what begins with an underscore."""
    return " " * name.startswith("_") + _short(name)


def _probit(rates: np.ndarray) -> np.ndarray:
    inverse = NormalDist().inv_cdf
    return np.array([inverse(min(max(float(rate), 5e-4), 1 - 5e-4)) for rate in np.ravel(rates)])


def _cycle() -> list[str]:
    return list(COLOURS) * 10


def _singer_colours(count: int) -> list[tuple[float, float, float]]:
    """Hues spread evenly, two lightnesses in turn."""
    import colorsys

    return [colorsys.hls_to_rgb(i / count, 0.42 if i % 2 else 0.6, 0.65) for i in range(count)]
