"""Fusion of two models: the weighted mean of their cosines, as one embedding.

Side by side, two vectors of unit length, each multiplied by the root of a weight, have the weighted mean of the two
cosines as their cosine. So the fusion of two models is a model: it has ranks, retrieval and maps as others do.
"""

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.calibration import fit_calibration
from ssl_audio.evaluation.ranks import unit_length
from ssl_audio.evaluation.scoring import score_trials
from ssl_audio.evaluation.trials import Trials

Weights = tuple[float, float]


def split_fusion(text: str, names: list[str]) -> tuple[str, str]:
    """The two rows that `A+B` names; a name may hold a plus itself.

    Raises:
        InputError: they are not two of the names.
    """
    cuts = [i for i, letter in enumerate(text) if letter == "+"]
    for cut in cuts:
        first, second = text[:cut].strip(), text[cut + 1 :].strip()
        if first in names and second in names and first != second:
            return first, second
    raise InputError(f"--fuse {text}: give two different rows as A+B; the rows are {', '.join(names)}")


def fusion_weights(first: ArrayLike, second: ArrayLike, trials: Trials) -> Weights:
    """Weights of two models by logistic regression on calibration trials; they add up to 1.

    A model that would get a negative weight gets 0. If the calibration trials separate perfectly, so that the
    regression has no optimum, both weights are .5.

    Args:
        first, second: (files, dim) embeddings of `trials.files` by each model.
        trials: calibration trials, of singers who are not tested.
    """
    scores = [score_trials(np.asarray(table), trials.pairs) for table in (first, second)]
    try:
        line = fit_calibration(trials.labels, scores[0], inputs=scores[1][:, None])
    except InputError:
        return 0.5, 0.5
    raw = max(line.scale, 0.0), max(line.weights[0], 0.0)
    return (raw[0] / sum(raw), raw[1] / sum(raw)) if sum(raw) else (0.5, 0.5)


def fused(weights: Weights, first: ArrayLike, second: ArrayLike) -> np.ndarray:
    """(files, dim of both) float32, whose cosines are the weighted mean of the cosines of both models.

    Example:
        >>> fused((0.5, 0.5), [[2.0, 0.0]], [[0.0, 3.0]]).round(3)
        array([[0.707, 0.   , 0.   , 0.707]], dtype=float32)
    """
    tables = [
        np.sqrt(np.float32(weight)) * unit_length(table) for weight, table in zip(weights, (first, second), strict=True)
    ]
    return np.hstack(tables)
