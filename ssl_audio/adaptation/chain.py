"""The steps of an adaptation: fitted on embeddings, applied to embeddings, and built into a model."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ssl_audio.adaptation.data import Embedded, mel_statistics, wrapped
from ssl_audio.adaptation.statistics import mean_layer, nearest_mean_layer, scatter_layer, standardising_layer
from ssl_audio.encoders import Encoder, Joined, Views, Whitened, Whitening
from ssl_audio.encoders.views import join
from ssl_audio.evaluation.backend import Scorer
from ssl_audio.model import EmbeddingModel

RUNGS = ("use", "mean", "scatter", "whitening", "join", "scores")
PEOPLE_OF_A_MEAN = 15  # people of a collection that gets a mean of its own


class Step(NamedTuple):
    """A rung with one of its settings, such as `Step("use", "plain+speech")`."""

    rung: str
    setting: str

    def __str__(self) -> str:
        return f"{self.rung}: {self.setting}"


def candidates(rung: str, data: Embedded) -> list[Step]:
    """The settings of a rung that can be tried on these recordings."""
    settings = {
        "use": ["speech", "level", "plain+speech", "plain+level", "plain+speech+level"],
        "mean": ["all", "collection"] if len(np.unique(centres(data))) > 1 else ["all"],
        "scatter": ["folders .6", "folders .3", "parts .6"],
        "whitening": ["4", "16"],
        "join": [".1", ".2", ".4"],
        "scores": ["as"],
    }
    return [Step(rung, setting) for setting in settings[rung]]


def centres(data: Embedded) -> np.ndarray:
    """(recordings,) number of the mean of each: its collection's, or -1 for that of all collections with few people."""
    voices = data.voices
    large = [i for i in range(len(voices.names)) if voices.people_in(i) >= PEOPLE_OF_A_MEAN]
    return np.where(np.isin(voices.collection, large), voices.collection, -1)


@dataclass
class Chain:
    """Fitted steps.

    Attributes:
        views: names of the views that are averaged.
        layers: what rows pass through.
        scaling, weight: of the second embedding, if one is joined.
        cohort: (recordings, dim) for the normalisation of scores; None for cosines.
    """

    views: list[str] = field(default_factory=lambda: ["plain"])
    layers: list[nn.Module] = field(default_factory=list)
    scaling: Whitening | None = None
    weight: float = 0.0
    cohort: np.ndarray | None = None

    def rows(self, data: Embedded, places: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(places, dim) adapted embeddings of recordings."""
        rows = torch.from_numpy(data.rows(self.views)[places])
        for layer in self.layers:
            rows = layer(rows)
        if self.scaling is not None:
            rows = join(rows, self.scaling(torch.from_numpy(data.mel()[places])), self.weight)
        return rows.numpy()

    def scorer(self) -> Scorer:
        """From adapted embeddings to scores."""
        return Scorer("as" if self.cohort is not None else None, self.cohort)

    def model(self, start: EmbeddingModel) -> EmbeddingModel:
        """The start with all steps but the cohort inside."""
        encoder: Encoder = Views(start, self.views)
        for layer in self.layers:
            encoder = Whitened(encoder, layer)  # type: ignore[arg-type]
        if self.scaling is not None:
            encoder = Joined(encoder, mel_statistics(start), self.scaling, self.weight)
        return wrapped(start, encoder)


def fit(steps: Sequence[Step], data: Embedded, places: np.ndarray) -> Chain:
    """Fit steps on the recordings at these places.

    Raises:
        InputError: a step cannot be fitted on them.
    """
    chain = Chain()
    for step in steps:
        if step.rung == "use":
            chain.views = step.setting.split("+")
        elif step.rung == "join":
            chain.scaling = standardising_layer(torch.from_numpy(data.mel()[places]))
            chain.weight = float(step.setting)
        elif step.rung == "scores":
            chain.cohort = chain.rows(data, places)
        else:
            chain.layers.append(_layer(step, chain, data, places))
    return chain


def _layer(step: Step, chain: Chain, data: Embedded, places: np.ndarray) -> nn.Module:
    rows = torch.from_numpy(chain.rows(data, places))
    collection = data.voices.collection[places]
    if step.rung == "mean":
        return (
            mean_layer(rows, collection) if step.setting == "all" else nearest_mean_layer(rows, centres(data)[places])
        )
    if step.rung == "whitening":
        layer = Whitening(rows.shape[1], float(step.setting))
        layer.fit([rows[torch.from_numpy(collection == one)] for one in np.unique(collection)])
        return layer
    source, shrinkage = step.setting.split()
    if source == "folders":
        return scatter_layer(rows, data.voices.people[places], float(shrinkage))
    values, recording = data.parts(chain.views)
    here = np.isin(recording, places)
    parts = torch.from_numpy(values[here])
    for before in chain.layers:
        parts = before(parts)
    return scatter_layer(parts, recording[here], float(shrinkage))
