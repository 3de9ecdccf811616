"""Score normalisation with a cohort of recordings by singers who are in no trial.

The score of a trial is shifted and scaled by the mean and deviation of the scores against the cohort:

- z-norm uses the cohort scores of the first side of the trial.
- s-norm averages the normalised scores of both sides.
- adaptive s-norm is s-norm with only the closest cohort recordings of each side (Matejka et al., Interspeech 2017).
"""

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.ranks import unit_length
from ssl_audio.evaluation.scoring import score_trials

KINDS = ("z", "s", "as")
_ROWS = 1 << 10


def normalize_scores(
    embeddings: ArrayLike, pairs: np.ndarray, cohort: ArrayLike, kind: str = "as", top: int = 300
) -> np.ndarray:
    """Normalised cosine scores of trials.

    Args:
        embeddings: (recordings, dim).
        pairs: (trials, 2) positions in `embeddings`.
        cohort: (cohort recordings, dim) embeddings of singers who are in no trial.
        kind: "z", "s" or "as" (adaptive s-norm).
        top: number of closest cohort recordings that adaptive s-norm uses; a smaller cohort is used whole.

    Returns:
        (trials,) float64, in standard deviations above the mean cohort score.

    Raises:
        InputError: the kind is unknown, the cohort has fewer than two recordings or other dimensions, or its scores do
            not vary.
    """
    mean, deviation = cohort_statistics(embeddings, cohort, kind, top)
    scores = score_trials(embeddings, pairs).astype(np.float64)
    sides = [(scores - mean[side]) / deviation[side] for side in (pairs[:, 0], pairs[:, 1])]
    return sides[0] if kind == "z" else (sides[0] + sides[1]) / 2


def cohort_statistics(
    embeddings: ArrayLike, cohort: ArrayLike, kind: str = "as", top: int = 300
) -> tuple[np.ndarray, np.ndarray]:
    """(recordings,) mean and deviation of each recording's scores against the cohort; see `normalize_scores`."""
    if kind not in KINDS:
        raise InputError(f"unknown score normalisation {kind!r}; choose one of {', '.join(KINDS)}")
    unit, others = unit_length(embeddings), unit_length(cohort)
    if len(others) < 2 or top < 2:
        raise InputError(f"normalisation needs at least two cohort recordings, got {len(others)} (top {top})")
    if others.shape[1] != unit.shape[1]:
        raise InputError(f"the cohort has {others.shape[1]} dimensions, the recordings {unit.shape[1]}")
    return _statistics(unit, others, min(top, len(others)) if kind == "as" else len(others))


def _statistics(unit: np.ndarray, cohort: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(recordings,) mean and standard deviation of each recording's `top` highest cohort scores."""
    mean, deviation = np.empty(len(unit)), np.empty(len(unit))
    for first in range(0, len(unit), _ROWS):
        scores = unit[first : first + _ROWS] @ cohort.T
        if top < len(cohort):
            scores = np.partition(scores, len(cohort) - top, axis=1)[:, -top:]
        mean[first : first + _ROWS] = scores.mean(axis=1, dtype=np.float64)
        deviation[first : first + _ROWS] = scores.std(axis=1, dtype=np.float64)
    if deviation.min() < 1e-9:
        raise InputError("the cohort scores do not vary; the cohort must hold recordings of several singers")
    return mean, deviation
