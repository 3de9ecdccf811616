"""Cosine scores of trials, and error curves of all pairs in bounded memory."""

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from ssl_audio.evaluation.metrics import ErrorCurve, curve_from_counts
from ssl_audio.evaluation.ranks import check_positions, unit_length

BINS = 1 << 18
_ROWS = 1 << 10  # of a block of similarities
_VALUES = 1 << 16  # floats gathered at a time when trials are scored: they stay in the cache, ten times quicker


def score_trials(embeddings: ArrayLike, pairs: np.ndarray) -> np.ndarray:
    """Cosine of each pair.

    Args:
        embeddings: (recordings, dim).
        pairs: (trials, 2) positions in `embeddings`.

    Returns:
        (trials,) float32 in [-1, 1].

    Raises:
        InputError: NaN, infinite or all-zero embeddings, or a pair of recordings that are not there.
    """
    unit = unit_length(embeddings)
    check_positions(pairs, len(unit))
    scores = np.empty(len(pairs), dtype=np.float32)
    rows = max(1, _VALUES // unit.shape[1])
    for first in range(0, len(pairs), rows):
        a, b = pairs[first : first + rows].T
        scores[first : first + rows] = np.einsum("td,td->t", unit[a], unit[b])
    return scores


def all_pairs_curve(
    embeddings: ArrayLike, singers: np.ndarray, recordings: np.ndarray | None = None, progress: bool = False
) -> ErrorCurve:
    """The error curve over every pair of recordings, without ever holding the scores.

    Cosines are counted in 2^18 bins of width 7.6e-6, block by block over the upper triangle of the similarity matrix.
    Each point of the curve is exact for its threshold; the EER, taken on straight lines between points, is off by at
    most the share of trials that fall into the one bin where the curves cross (of 2 x 10^8 random scores: 3e-5).

    Args:
        embeddings: (recordings, dim).
        singers: (recordings,) integer codes of who sings.
        recordings: (recordings,) integer codes; same-singer pairs with equal codes are left out.
        progress: show a bar.

    Raises:
        InputError: NaN or all-zero embeddings, one singer only, no same-singer pair, all scores equal.
    """
    unit = unit_length(embeddings)
    singers = np.asarray(singers, dtype=np.int32)
    recordings = None if recordings is None else np.asarray(recordings, dtype=np.int32)
    same = np.zeros(BINS, dtype=np.int64)
    total = np.zeros(BINS, dtype=np.int64)
    order = np.argsort(singers, kind="stable")  # same-singer pairs then lie in a narrow band along the diagonal
    unit, singers = unit[order], singers[order]
    recordings = None if recordings is None else recordings[order]
    blocks = range(0, len(unit), _ROWS)
    for first in tqdm(blocks, "scoring all pairs", disable=not progress, leave=False, delay=2):
        last = min(first + _ROWS, len(unit))
        for column in range(first, len(unit), _ROWS):
            end = min(column + _ROWS, len(unit))
            bins = _bins(unit[first:last] @ unit[column:end].T)
            keep = np.triu(np.ones(bins.shape, dtype=bool), 1) if column == first else None
            if singers[column] <= singers[last - 1]:  # some pair in this block may be of one singer
                together = singers[first:last, None] == singers[None, column:end]
                if keep is not None:
                    together &= keep
                if recordings is not None:
                    repeated = together & (recordings[first:last, None] == recordings[None, column:end])
                    together &= ~repeated
                    keep = ~repeated if keep is None else keep & ~repeated
                same += np.bincount(bins[together], minlength=BINS)
            total += np.bincount(bins.ravel() if keep is None else bins[keep], minlength=BINS)
    return curve_from_counts(same, total - same, np.linspace(-1, 1, BINS + 1))


def _bins(similarities: np.ndarray) -> np.ndarray:
    """The bin of each cosine in [-1, 1]; rounding may push a cosine past 1, so the ends are clipped."""
    similarities += 1
    similarities *= BINS / 2
    np.clip(similarities, 0, BINS - 1, out=similarities)
    return similarities.astype(np.int64)
