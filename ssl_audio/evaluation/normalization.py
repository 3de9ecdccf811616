"""Score normalisation with a cohort of recordings by singers who are in no trial.

The score of a trial is shifted and scaled by the mean and deviation of the scores against the cohort:

- z-norm uses the cohort scores of the first side of the trial.
- s-norm averages the normalised scores of both sides.
- adaptive s-norm is s-norm with only the closest cohort recordings of each side (Matejka et al., Interspeech 2017).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.ranks import unit_length
from ssl_audio.evaluation.scoring import finite, score_trials

KINDS = ("z", "s", "as")
_ROWS = 1 << 10


def normalize_scores(
    embeddings: ArrayLike,
    pairs: np.ndarray,
    cohort: ArrayLike,
    kind: str = "as",
    top: int = 300,
    unbiased: bool = False,
    cosine: bool = True,
) -> np.ndarray:
    """Normalised cosine scores of trials.

    Args:
        embeddings: (recordings, dim).
        pairs: (trials, 2) positions in `embeddings`.
        cohort: (cohort recordings, dim) embeddings of singers who are in no trial.
        kind: "z", "s" or "as" (adaptive s-norm).
        top: number of closest cohort recordings that adaptive s-norm uses; a smaller cohort is used whole.
        unbiased: divide the squared deviations by n - 1 (sslsv), not by n (WeSpeaker).
        cosine: see `score_trials`.

    Returns:
        (trials,) float64, in standard deviations above the mean cohort score.

    Raises:
        InputError: the kind is unknown, the cohort has fewer than two recordings or other dimensions, or its scores do
            not vary.
    """
    mean, deviation = cohort_statistics(embeddings, cohort, kind, top, unbiased, cosine)
    scores = score_trials(embeddings, pairs, cosine).astype(np.float64)
    sides = [(scores - mean[side]) / deviation[side] for side in (pairs[:, 0], pairs[:, 1])]
    return sides[0] if kind == "z" else (sides[0] + sides[1]) / 2


def cohort_statistics(
    embeddings: ArrayLike,
    cohort: ArrayLike,
    kind: str = "as",
    top: int = 300,
    unbiased: bool = False,
    cosine: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """(recordings,) mean and deviation of each recording's scores against the cohort; see `normalize_scores`."""
    if kind not in KINDS:
        raise InputError(f"unknown score normalisation {kind!r}; choose one of {', '.join(KINDS)}")
    unit, others = (unit_length(table) if cosine else finite(table) for table in (embeddings, cohort))
    if len(others) < 2 or top < 2:
        raise InputError(f"normalisation needs at least two cohort recordings, got {len(others)} (top {top})")
    if others.shape[1] != unit.shape[1]:
        raise InputError(f"the cohort has {others.shape[1]} dimensions, the recordings {unit.shape[1]}")
    closest = min(top, len(others)) if kind == "as" else len(others)
    return _statistics(unit, others, closest, int(unbiased))


def reduce_cohort(cohort: ArrayLike, by: str, singers: Sequence[str], seed: int = 0) -> np.ndarray:
    """One embedding a singer, or a cluster, in place of one a recording.

    Args:
        cohort: (recordings, dim).
        by: "file" changes nothing; "singer" takes the mean of each singer (WeSpeaker); "clusters:N" the mean of each of
            N clusters (k-means of unit vectors), for cohorts whose singers are not known.
        singers: (recordings,) names.
        seed: of the clusters.

    Raises:
        InputError: another word, or not between 2 clusters and as many as recordings.
    """
    kind, count = parse_cohort(by)
    table = np.asarray(cohort, dtype=np.float32)
    if kind == "file":
        return table
    if kind == "singer":
        codes = np.unique(np.asarray(singers, dtype=object).astype(str), return_inverse=True)[1]
    else:
        from sklearn.cluster import KMeans

        if count > len(table):
            raise InputError(f"--cohort_by {by}: the cohort has {len(table)} recordings; give fewer clusters")
        codes = KMeans(count, n_init=3, random_state=seed).fit_predict(unit_length(table))
    sums = np.zeros((codes.max() + 1, table.shape[1]), dtype=np.float64)
    np.add.at(sums, codes, table)
    return (sums / np.bincount(codes)[:, None]).astype(np.float32)


def parse_cohort(by: str) -> tuple[str, int]:
    """("file", 0), ("singer", 0) or ("clusters", N) of `file`, `singer` or `clusters:N`."""
    kind, _, number = by.partition(":")
    if by in ("file", "singer"):
        return by, 0
    if kind == "clusters" and number.isdecimal() and int(number) >= 2:
        return kind, int(number)
    raise InputError(f"--cohort_by {by} is unknown; give file, singer, or clusters:N with N of at least 2")


def _statistics(unit: np.ndarray, cohort: np.ndarray, top: int, ddof: int) -> tuple[np.ndarray, np.ndarray]:
    """(recordings,) mean and standard deviation of each recording's `top` highest cohort scores."""
    mean, deviation = np.empty(len(unit)), np.empty(len(unit))
    for first in range(0, len(unit), _ROWS):
        scores = unit[first : first + _ROWS] @ cohort.T
        if top < len(cohort):
            scores = np.partition(scores, len(cohort) - top, axis=1)[:, -top:]
        mean[first : first + _ROWS] = scores.mean(axis=1, dtype=np.float64)
        deviation[first : first + _ROWS] = scores.std(axis=1, dtype=np.float64, ddof=ddof)
    if deviation.min() < 1e-9:
        raise InputError("the cohort scores do not vary; the cohort must hold recordings of several singers")
    return mean, deviation
