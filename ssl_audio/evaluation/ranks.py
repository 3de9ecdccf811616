"""Mean normalised rank (MNR) of the recordings of one singer among the recordings of all other singers.

For a pair (anchor, partner) of one singer, the candidates are the partner and every recording of the other singers. The
normalised rank is the number of candidates that are closer to the anchor than the partner (an equally close one counts
half), divided by the number of candidates. 0 is best, about .5 is chance. Singer names are compared as a whole:
`female1` does not match `female10`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError

PAPER_TRIALS, PAPER_NEGATIVES = 1000, 512
_BLOCK = 1 << 23  # similarities in memory at a time (32 MB of float32)


def mean_normalized_rank(embeddings: ArrayLike, singers: Sequence, pairs: ArrayLike | None = None) -> float:
    """Mean normalised rank of all pairs, against all recordings of all other singers.

    Args:
        embeddings: (recordings, dim); compared by cosine.
        singers: (recordings,) name of the singer of each recording; any hashable values.
        pairs: (pairs, 2) positions (anchor, partner) of two recordings of one singer; default: every ordered pair.

    Returns:
        Mean normalised rank in [0, 1).

    Raises:
        InputError: there are fewer than two singers or no pairs, a pair is of two singers, or embeddings are NaN,
            infinite or all zero.
    """
    return float(normalized_ranks(embeddings, singers, pairs)[1].mean())


def normalized_ranks(
    embeddings: ArrayLike, singers: Sequence, pairs: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised rank of every pair; for arguments and errors see `mean_normalized_rank`.

    Returns:
        (the pairs (pairs, 2), their normalised ranks (pairs,)).
    """
    unit = unit_length(embeddings)
    codes = _codes(singers, len(unit))
    pairs = _all_pairs(codes) if pairs is None else _check_pairs(pairs, codes)
    by_singer = np.argsort(codes, kind="stable")  # makes the recordings of one singer adjacent
    place = np.argsort(by_singer)
    unit, firsts = unit[by_singer], np.searchsorted(codes[by_singer], np.arange(codes.max() + 2))
    order = np.argsort(pairs[:, 0], kind="stable")
    anchors, starts = np.unique(pairs[order, 0], return_index=True)
    ends = np.r_[starts[1:], len(pairs)]
    ranks = np.empty(len(pairs))
    rows = max(1, _BLOCK // len(unit))
    for first in range(0, len(anchors), rows):
        block = anchors[first : first + rows]
        similarities = unit[place[block]] @ unit.T
        for row, anchor, start, end in zip(similarities, block, starts[first:], ends[first:], strict=False):
            here = order[start:end]
            own = slice(firsts[codes[anchor]], firsts[codes[anchor] + 1])
            ranks[here] = _ranks_in_row(row, own, row[place[pairs[here, 1]]])
    return pairs, ranks


def _ranks_in_row(row: np.ndarray, own: slice, targets: np.ndarray) -> np.ndarray:
    """Normalised ranks of the partners of one anchor.

    Args:
        row: (recordings,) similarities of all recordings to the anchor.
        own: the positions of the anchor's singer in `row`; they are no candidates.
        targets: (partners,) similarities of the partners.

    Returns:
        (partners,).
    """
    others = len(row) - (own.stop - own.start)
    if len(targets) < 8:  # for a few partners, counting is faster than sorting
        closer = np.array([_closer(row, target) - _closer(row[own], target) for target in targets])
    else:
        negatives = np.sort(np.r_[row[: own.start], row[own.stop :]])
        below, up_to = (np.searchsorted(negatives, targets, side=side) for side in ("left", "right"))
        closer = others - (below + up_to) / 2
    return closer / (others + 1)


def _closer(negatives: np.ndarray, target: float) -> float:
    """Number of similarities above `target`; equal ones count half."""
    return (np.count_nonzero(negatives > target) + np.count_nonzero(negatives >= target)) / 2


def paper_normalized_ranks(
    embeddings: ArrayLike,
    singers: Sequence,
    pairs: ArrayLike | None = None,
    seed: int = 0,
    trials: int = PAPER_TRIALS,
    negatives: int = PAPER_NEGATIVES,
) -> tuple[np.ndarray, np.ndarray]:
    """Normalised ranks by the protocol of the singer-identity paper (ISMIR 2023).

    Up to 1,000 pairs are drawn. The partner of each is ranked among 512 random recordings of other singers, and the
    rank is divided by 513. Pairs and recordings are drawn without replacement.

    Args:
        embeddings: (recordings, dim).
        singers: see `mean_normalized_rank`.
        pairs: see `mean_normalized_rank`.
        seed: of the drawn pairs and recordings.
        trials: number of pairs to draw; all are used if there are fewer.
        negatives: number of recordings of other singers for each pair.

    Returns:
        (the drawn pairs (pairs, 2), their normalised ranks (pairs,)).

    Raises:
        InputError: see `mean_normalized_rank`; also if a singer of a drawn pair has fewer than `negatives` recordings
            of other singers.
    """
    unit = unit_length(embeddings)
    codes, rng = _codes(singers, len(unit)), np.random.default_rng(seed)
    pairs = draw_paper_pairs(singers, pairs, rng, trials, negatives)
    ranks = np.empty(len(pairs))
    rows = max(1, _BLOCK // len(unit))
    for first in range(0, len(pairs), rows):
        block = pairs[first : first + rows]
        for i, (row, (anchor, partner)) in enumerate(zip(unit[block[:, 0]] @ unit.T, block, strict=True), start=first):
            drawn = row[rng.choice(np.flatnonzero(codes != codes[anchor]), negatives, replace=False)]
            ranks[i] = _closer(drawn, row[partner]) / (negatives + 1)
    return pairs, ranks


def draw_paper_pairs(
    singers: Sequence,
    pairs: ArrayLike | None,
    rng: np.random.Generator,
    trials: int = PAPER_TRIALS,
    negatives: int = PAPER_NEGATIVES,
) -> np.ndarray:
    """Draw the pairs of `paper_normalized_ranks`. It needs no embeddings, so it can check a data set beforehand.

    Args:
        singers: see `mean_normalized_rank`.
        pairs: see `mean_normalized_rank`.
        rng: draws the pairs.
        trials: see `paper_normalized_ranks`.
        negatives: see `paper_normalized_ranks`.

    Returns:
        (at most `trials`, 2).

    Raises:
        InputError: see `paper_normalized_ranks`.
    """
    codes = _codes(singers, len(singers))
    pairs = _all_pairs(codes) if pairs is None else _check_pairs(pairs, codes)
    pairs = pairs[np.sort(rng.permutation(len(pairs))[:trials])]
    others = len(codes) - int(np.bincount(codes)[codes[pairs[:, 0]]].max())
    if others < negatives:
        raise InputError(
            f"the paper's rank protocol needs {negatives} recordings of other singers and there are {others}; "
            "use --rank_protocol exact"
        )
    return pairs


def check_positions(pairs: np.ndarray, count: int) -> None:
    """Raise InputError if a pair holds a position outside 0 to count - 1 (numpy would accept -1)."""
    wrong = pairs[(pairs < 0) | (pairs >= count)]
    if len(wrong):
        raise InputError(f"a pair names recording {int(wrong[0])}, but there are only 0 to {count - 1}")


def unit_length(embeddings: ArrayLike) -> np.ndarray:
    """Scale every row to length 1, so that a dot product is a cosine.

    Args:
        embeddings: (recordings, dim).

    Returns:
        (recordings, dim) float32.

    Raises:
        InputError: the shape is another one, or a row holds NaN or infinite values or only zeros.
    """
    try:
        with np.errstate(over="ignore"):  # values too large for float32 become infinite and are refused below
            x = np.ascontiguousarray(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"embeddings must be a (recordings, dim) table of numbers: {error}") from error
    if x.ndim != 2 or not x.size:
        raise InputError(f"embeddings must be a (recordings, dim) table with at least one row, got shape {x.shape}")
    bad = ~np.isfinite(x).all(axis=1)
    if bad.any():
        raise InputError(
            f"{int(bad.sum())} of {len(x)} embeddings hold NaN or infinite values, "
            f"number {int(np.argmax(bad)) + 1} first; check the model's weights and the audio"
        )
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all() or not np.isfinite(norms).all():  # the squares overflow or underflow float32
        largest = np.abs(x).max(axis=1, keepdims=True)
        x = np.divide(x, largest, where=largest > 0, out=x.copy())
        norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all():
        first = int(np.argmin(norms)) + 1
        raise InputError(f"embedding number {first} is all zeros; its cosine to anything is undefined")
    return x / norms


def _codes(singers: Sequence, count: int) -> np.ndarray:
    """(recordings,) one integer per singer, in order of first appearance."""
    if len(singers) != count:
        raise InputError(f"there are {count} embeddings but {len(singers)} singers; give the singer of each recording")
    numbers: dict = {}
    names = singers.tolist() if isinstance(singers, np.ndarray) else list(singers)
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    if len(numbers) < 2:
        here = f"there is only {names[0]!r}" if names else "there are none"
        raise InputError(f"ranks need recordings of at least two singers, but {here}")
    return codes


def _all_pairs(codes: np.ndarray) -> np.ndarray:
    """(pairs, 2) every ordered pair of two recordings of one singer."""
    found = []
    for members in np.split(np.argsort(codes, kind="stable"), np.flatnonzero(np.diff(np.sort(codes))) + 1):
        first, second = np.meshgrid(members, members, indexing="ij")
        different = first != second
        found.append(np.stack([first[different], second[different]], axis=1))
    pairs = np.concatenate(found)
    if not len(pairs):
        raise InputError("no singer has two recordings; ranks need two recordings of at least one singer")
    return pairs


def _check_pairs(pairs: ArrayLike, codes: np.ndarray) -> np.ndarray:
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise InputError(f"pairs must be a non-empty (pairs, 2) array of positions, got shape {pairs.shape}")
    if not np.issubdtype(pairs.dtype, np.integer):
        raise InputError(f"pairs must be integer positions, got {pairs.dtype}")
    check_positions(pairs, len(codes))
    wrong = codes[pairs[:, 0]] != codes[pairs[:, 1]]
    if wrong.any():
        raise InputError(f"pair {int(np.argmax(wrong)) + 1} is of two singers; a rank needs two recordings of one")
    itself = pairs[:, 0] == pairs[:, 1]
    if itself.any():
        raise InputError(f"pair {int(np.argmax(itself)) + 1} holds one recording twice; a rank needs two recordings")
    return pairs.astype(np.int64)
