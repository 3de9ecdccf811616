"""Who sounds when in long recordings: clusters of windows as RTTM, as labels for Audacity, and as a picture."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.decisions.cluster_files import Embedded
from ssl_audio.decisions.clustering import Clusters
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.plotting import literal_text_style


@dataclass(frozen=True)
class Turn:
    """A stretch of one recording in which one cluster sounds; times in seconds."""

    start: float
    end: float
    cluster: int


def turns(start: np.ndarray, end: np.ndarray, clusters: np.ndarray) -> list[Turn]:
    """The turns of one recording.

    Args:
        start, end: (windows,) in seconds, in order of time. Where windows overlap, one ends and the next begins in the
            middle of what they share.
        clusters: (windows,).
    """
    edges = [float(start[0]), *((start[1:] + end[:-1]) / 2).tolist(), float(end[-1])]
    found: list[Turn] = []
    for i, cluster in enumerate(clusters.tolist()):
        if found and found[-1].cluster == cluster:
            found[-1] = Turn(found[-1].start, edges[i + 1], cluster)
        else:
            found.append(Turn(edges[i], edges[i + 1], cluster))
    return found


def turns_of(rows: Embedded, clusters: Clusters) -> dict[str, list[Turn]]:
    """{name of the recording: its turns}."""
    windows: dict[str, list[int]] = defaultdict(list)
    for i, name in enumerate(rows.names):
        windows[name].append(i)
    return {name: turns(rows.start[of], rows.end[of], clusters.labels[of]) for name, of in windows.items()}


def rttm(name: str, found: list[Turn]) -> str:
    """Lines of NIST's Rich Transcription Time Marked format; spaces in the name become underscores."""
    name = "_".join(Path(name).stem.split())
    lines = [
        f"SPEAKER {name} 1 {turn.start:.3f} {turn.end - turn.start:.3f} <NA> <NA> cluster{turn.cluster} <NA> <NA>\n"
        for turn in found
    ]
    return "".join(lines)


def audacity_labels(found: list[Turn]) -> str:
    """Lines of Audacity's label tracks: start, end, text."""
    return "".join(f"{turn.start:.6f}\t{turn.end:.6f}\tcluster {turn.cluster}\n" for turn in found)


def write_timelines(folder: str | os.PathLike, rows: Embedded, clusters: Clusters) -> None:
    """`folder/<name>.rttm`, `.txt` (Audacity) and `.png` of each recording; folders in names stay."""
    for name, found in turns_of(rows, clusters).items():
        base = Path(folder) / name.lstrip("/")
        write_text(base.with_name(base.name + ".rttm"), rttm(name, found))
        write_text(base.with_name(base.name + ".txt"), audacity_labels(found))
        with write_atomically(base.with_name(base.name + ".png")) as temporary:
            draw(name, found).savefig(temporary, dpi=100)


@literal_text_style()
def draw(name: str, found: list[Turn]) -> Any:
    """A matplotlib figure with a row a cluster."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    order = list(dict.fromkeys(turn.cluster for turn in found))
    figure = Figure((10, 1.2 + 0.3 * len(order)), layout="constrained")
    axes = figure.subplots()
    for row, cluster in enumerate(order):
        bars = [(turn.start, turn.end - turn.start) for turn in found if turn.cluster == cluster]
        axes.broken_barh(bars, (row - 0.4, 0.8), color=colormaps["tab10"](row % 10))
    axes.set_yticks(range(len(order)), [f"cluster {cluster}" for cluster in order])
    axes.set(xlabel="seconds", title=name, xlim=(found[0].start, found[-1].end))
    axes.invert_yaxis()
    return figure
