"""Score normalisation with a cohort: recordings of singers who are in no trial show what a chance score looks like.

z-norm shifts and scales by the cohort scores of the first side, s-norm by the average over both sides, adaptive s-norm
by the closest cohort recordings of each side only (Matejka et al., Interspeech 2017).
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
        cohort: (cohort, dim) embeddings of other singers than those in the trials.
        kind: "z", "s" or "as" (adaptive s-norm).
        top: how many of the closest cohort recordings adaptive s-norm uses; all when the cohort is smaller.

    Returns:
        (trials,) float64, in standard deviations above the cohort's mean.

    Raises:
        InputError: unknown kind, fewer than two cohort recordings, other dimensions, or a cohort without spread.
    """
    if kind not in KINDS:
        raise InputError(f"no score normalisation {kind!r}; there are {', '.join(KINDS)}")
    unit, others = unit_length(embeddings), unit_length(cohort)
    if len(others) < 2 or top < 2:
        raise InputError(f"normalisation needs at least two cohort recordings, got {len(others)} (top {top})")
    if others.shape[1] != unit.shape[1]:
        raise InputError(f"the cohort has {others.shape[1]} dimensions, the recordings {unit.shape[1]}")
    mean, deviation = _cohort_statistics(unit, others, min(top, len(others)) if kind == "as" else len(others))
    scores = score_trials(unit, pairs).astype(np.float64)
    sides = [(scores - mean[side]) / deviation[side] for side in (pairs[:, 0], pairs[:, 1])]
    return sides[0] if kind == "z" else (sides[0] + sides[1]) / 2


def _cohort_statistics(unit: np.ndarray, cohort: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """(recordings,) mean and standard deviation of each recording's `top` highest cohort scores."""
    mean, deviation = np.empty(len(unit)), np.empty(len(unit))
    for first in range(0, len(unit), _ROWS):
        scores = unit[first : first + _ROWS] @ cohort.T
        if top < len(cohort):
            scores = np.partition(scores, len(cohort) - top, axis=1)[:, -top:]
        mean[first : first + _ROWS] = scores.mean(axis=1, dtype=np.float64)
        deviation[first : first + _ROWS] = scores.std(axis=1, dtype=np.float64)
    if deviation.min() < 1e-9:
        raise InputError("the cohort's scores do not vary; it must hold recordings of several singers")
    return mean, deviation
