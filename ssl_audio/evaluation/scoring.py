"""Cosine scores of trials, and the error curve of all pairs in bounded memory."""

import numpy as np
from numpy.typing import ArrayLike
from tqdm import tqdm

from ssl_audio.evaluation.metrics import ErrorCurve, curve_from_counts
from ssl_audio.evaluation.ranks import check_positions, unit_length

BINS = 1 << 18
_NARROW = 0.01
_ROWS = 1 << 10  # rows of a block of the similarity matrix
_VALUES = 1 << 16  # floats gathered at a time when trials are scored; they fit in the cache, which is ten times faster


def score_trials(embeddings: ArrayLike, pairs: np.ndarray, cosine: bool = True) -> np.ndarray:
    """Cosine of each pair.

    Args:
        embeddings: (recordings, dim).
        pairs: (trials, 2) positions in `embeddings`.
        cosine: False gives dot products instead. Of means over the unit vectors of crops, they are the mean cosine over
            all pairs of crops.

    Returns:
        (trials,) float32 in [-1, 1].

    Raises:
        InputError: embeddings are NaN, infinite or all zero, or a pair holds a position that does not exist.
    """
    unit = unit_length(embeddings) if cosine else finite(embeddings)
    check_positions(pairs, len(unit))
    scores = np.empty(len(pairs), dtype=np.float32)
    rows = max(1, _VALUES // unit.shape[1])
    for first in range(0, len(pairs), rows):
        a, b = pairs[first : first + rows].T
        scores[first : first + rows] = np.einsum("td,td->t", unit[a], unit[b])
    return scores


def finite(embeddings: ArrayLike) -> np.ndarray:
    """The embeddings as float32, after the checks of `unit_length`."""
    unit_length(embeddings)
    return np.ascontiguousarray(embeddings, dtype=np.float32)


def all_pairs_curve(
    embeddings: ArrayLike, singers: np.ndarray, recordings: np.ndarray | None = None, progress: bool = False
) -> ErrorCurve:
    """The error curve of every pair of recordings, without keeping the scores in memory.

    The cosines are counted in 2^18 bins between the least and the largest cosine, block by block over the upper
    triangle of the similarity matrix. Each point of the curve is exact for its threshold. The EER is interpolated
    between points. Its error is at most the fraction of trials in the bin where the two error rates cross (3e-5 for
    2 x 10^8 random scores).

    Args:
        embeddings: (recordings, dim).
        singers: (recordings,) integer codes of the singers.
        recordings: (recordings,) integer codes; a same-singer pair with equal codes (two clips of one recording) is
            left out. None: no pair is left out.
        progress: show a progress bar.

    Raises:
        InputError: embeddings are NaN, infinite or all zero; there is one singer only or no same-singer pair; all
            scores are equal.
    """
    unit = unit_length(embeddings)
    singers = np.asarray(singers, dtype=np.int32)
    recordings = None if recordings is None else np.asarray(recordings, dtype=np.int32)
    same = np.zeros(BINS, dtype=np.int64)
    total = np.zeros(BINS, dtype=np.int64)
    order = np.argsort(singers, kind="stable")  # moves same-singer pairs into a narrow band along the diagonal
    unit, singers = unit[order], singers[order]
    recordings = None if recordings is None else recordings[order]
    low, high = _range(unit)
    if high - low < _NARROW:  # float32 has few values between cosines that lie close together
        unit = unit.astype(np.float64)
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        low, high = _range(unit)
    blocks = range(0, len(unit), _ROWS)
    for first in tqdm(blocks, "scoring all pairs", disable=not progress, leave=False, delay=2):
        last = min(first + _ROWS, len(unit))
        for column in range(first, len(unit), _ROWS):
            end = min(column + _ROWS, len(unit))
            bins = _bins(unit[first:last] @ unit[column:end].T, low, high)
            keep = np.triu(np.ones(bins.shape, dtype=bool), 1) if column == first else None
            if singers[column] <= singers[last - 1]:  # the block may hold same-singer pairs
                together = singers[first:last, None] == singers[None, column:end]
                if keep is not None:
                    together &= keep
                if recordings is not None:
                    repeated = together & (recordings[first:last, None] == recordings[None, column:end])
                    together &= ~repeated
                    keep = ~repeated if keep is None else keep & ~repeated
                same += np.bincount(bins[together], minlength=BINS)
            total += np.bincount(bins.ravel() if keep is None else bins[keep], minlength=BINS)
    return curve_from_counts(same, total - same, np.linspace(low, high, BINS + 1))


def _range(unit: np.ndarray) -> tuple[float, float]:
    """The least and the largest cosine of two different rows."""
    low, high = np.inf, -np.inf
    for first in range(0, len(unit), _ROWS):
        rows = unit[first : first + _ROWS]
        for column in range(first, len(unit), _ROWS):
            cosines = rows @ unit[column : column + _ROWS].T
            if column == first:
                if len(rows) < 2:
                    continue
                cosines = cosines[np.triu_indices(len(rows), 1)]
            low, high = min(low, float(cosines.min())), max(high, float(cosines.max()))
    return low, high


def _bins(similarities: np.ndarray, low: float, high: float) -> np.ndarray:
    """Bin numbers of cosines. Rounding may push a cosine outside the range, so the bin numbers are clipped."""
    similarities -= low
    similarities *= BINS / max(high - low, 1e-12)
    np.clip(similarities, 0, BINS - 1, out=similarities)
    return similarities.astype(np.int64)
