"""Tagging of a recording over time, by a model whose head holds the names of its outputs."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from ssl_audio.downstream.features import AnyLength, clip_seconds
from ssl_audio.embedding import embed_files
from ssl_audio.errors import InputError
from ssl_audio.heads import ProbeHead
from ssl_audio.utils.device import best_device
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.plotting import literal_text_style


@dataclass(frozen=True)
class Tags:
    """Tag probabilities of one recording.

    Attributes:
        path: the audio file.
        names: names of the tags, in the order of the columns of `scores`.
        multi_label: True if several tags can hold at a time; False if exactly one holds.
        times: (clips, 2) start and end of each clip in seconds.
        scores: (clips, tags) probabilities.
    """

    path: Path
    names: list[str]
    multi_label: bool
    times: np.ndarray
    scores: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """(tags,) mean probability over the clips."""
        return self.scores.mean(axis=0)

    def strongest(self, count: int) -> list[tuple[str, float, float]]:
        """The tags with the highest mean probability.

        Args:
            count: number of tags.

        Returns:
            (name, mean probability, middle of the clip with the highest probability in seconds) of each tag, the
            highest mean first.
        """
        order = np.argsort(-self.means, kind="stable")[:count]
        middles = self.times.mean(axis=1)
        return [(self.names[i], float(self.means[i]), float(middles[self.scores[:, i].argmax()])) for i in order]


def load_tagger(name: str | Path, trusted: bool = False) -> Any:
    """Load an `EmbeddingModel` with a `ProbeHead`.

    Args:
        name: the folder that `ssl-audio probe --output` wrote, its sub-folder `model`, a saved model, or the folder of
            a supervised training run.
        trusted: see `load_model`.

    Raises:
        InputError: there is no such model, or it has no classifier with named outputs.
    """
    from ssl_audio.hub import load_model

    inside = Path(name) / "model"
    path = inside if (Path(name) / "probe.json").is_file() and inside.is_dir() else name
    model = load_model(path, trusted=trusted)
    if model.head is None and Path(path).exists():
        try:
            model = load_model(path, projection=True, trusted=trusted)  # a run or checkpoint of supervised training
        except InputError as error:
            raise InputError(f"{name} has no classifier and no tags; fit one with ssl-audio probe --output") from error
    if not isinstance(model.head, ProbeHead):
        raise InputError(f"{name} has no classifier and no tags; fit one with ssl-audio probe --output")
    return model


def tag_file(
    model: Any, path: Path, seconds: float | None = None, hop_seconds: float | None = None, device: str | None = None
) -> Tags:
    """Tag consecutive or overlapping clips that cover a recording.

    Args:
        model: from `load_tagger`.
        path: the audio file.
        seconds: length of a clip; default: the length that the head was fitted on, else see `clip_seconds`.
        hop_seconds: from the start of one clip to the start of the next; default: the length of a clip.
        device: None uses a GPU if there is one.

    Raises:
        InputError: the file cannot be read, or the clips are shorter than the model accepts.
    """
    seconds = clip_seconds(model, model.head.clip_seconds if seconds is None else seconds)
    clips = embed_files(
        AnyLength(model).eval(),  # type: ignore[arg-type]
        [path],
        window_seconds=seconds,
        hop_seconds=hop_seconds,
        device=best_device(device),
    )
    found = list(tqdm(clips, f"tagging {path.name}", unit="clip", leave=False, delay=2))
    logits = torch.from_numpy(np.stack([clip.embedding for clip in found if clip.embedding is not None]))
    times = np.array([[clip.start, clip.end] for clip in found])
    return Tags(path, model.head.classes, model.head.multi_label, times, model.head.probabilities(logits).numpy())


def write_json(path: Path, tags: Tags) -> None:
    """Write tags as JSON.

    The keys are `file`, `multi_label`, `tags` (the names), `mean` ({tag: probability}) and `clips` (a list of `start`
    and `end` in seconds and `scores` in the order of the tags).
    """
    content = {
        "file": str(tags.path),
        "multi_label": tags.multi_label,
        "tags": tags.names,
        "mean": {name: round(float(value), 6) for name, value in zip(tags.names, tags.means, strict=True)},
        "clips": [
            {"start": round(float(start), 4), "end": round(float(end), 4), "scores": [round(float(v), 6) for v in row]}
            for (start, end), row in zip(tags.times, tags.scores, strict=True)
        ],
    }
    write_text(path, json.dumps(content, ensure_ascii=False))


@literal_text_style()
def write_taggram(path: Path, tags: Tags, count: int) -> None:
    """Draw the probabilities of the strongest tags over time; one row per tag, the strongest on top.

    Args:
        path: the image to write.
        tags: from `tag_file`.
        count: number of tags.
    """
    from matplotlib.figure import Figure

    order = np.argsort(-tags.means, kind="stable")[:count]
    figure = Figure(figsize=(9, 1.4 + 0.28 * len(order)), layout="constrained")
    axis = figure.subplots()
    starts, ends = tags.times[:, 0], tags.times[:, 1]
    middles = tags.times.mean(axis=1)
    # Each clip is drawn around its middle, up to the next clip; the first and last reach the ends of the recording.
    edges = np.concatenate([[starts[0]], (middles[1:] + middles[:-1]) / 2, [ends[-1]]])
    rows = np.arange(len(order) + 1) - 0.5
    mesh = axis.pcolormesh(edges, rows, tags.scores[:, order].T, vmin=0, cmap="Blues", rasterized=True)
    axis.set_yticks(range(len(order)), [tags.names[i] for i in order], fontsize="small")
    axis.set(xlabel="time, s", ylim=(len(order) - 0.5, -0.5), title=tags.path.name)
    figure.colorbar(mesh, label="probability")
    with write_atomically(path) as temporary:
        figure.savefig(temporary, dpi=120)
