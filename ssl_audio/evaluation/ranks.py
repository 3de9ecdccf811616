"""Mean normalised rank: where the partner of a recording comes among everybody else's recordings.

For a pair (anchor, partner) of one singer, the candidates are the partner and every recording of the other singers.
The rank is how many of them are closer to the anchor than the partner (an equally close one counts half), divided by
their number: 0 is best, about .5 is chance. Singers are compared as whole names: `female1` never stands for `female10`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError

PAPER_TRIALS, PAPER_NEGATIVES = 1000, 512
_BLOCK = 1 << 23  # similarities held at a time (32 MB of float32)


def mean_normalized_rank(embeddings: ArrayLike, singers: Sequence, pairs: ArrayLike | None = None) -> float:
    """Exact mean over the pairs, against all recordings of all other singers.

    Args:
        embeddings: (recordings, dim); compared by cosine.
        singers: (recordings,) who sings, any hashable names.
        pairs: (pairs, 2) indices (anchor, partner) of recordings of one singer; default: every ordered pair there is.

    Returns:
        Mean rank in [0, 1).

    Raises:
        InputError: fewer than two singers, no pair, a pair of two singers, NaN or all-zero embeddings.
    """
    return float(normalized_ranks(embeddings, singers, pairs)[1].mean())


def normalized_ranks(
    embeddings: ArrayLike, singers: Sequence, pairs: ArrayLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(pairs, ranks): (pairs, 2) the pairs and (pairs,) the normalised rank of each; see `mean_normalized_rank`."""
    unit = unit_length(embeddings)
    codes = _codes(singers, len(unit))
    pairs = _all_pairs(codes) if pairs is None else _check_pairs(pairs, codes)
    by_singer = np.argsort(codes, kind="stable")  # the recordings of a singer then lie side by side
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
    """Normalised ranks of the partners' similarities, (partners,), in an anchor's row without its `own` singer."""
    others = len(row) - (own.stop - own.start)
    if len(targets) < 8:  # counting beats sorting for a few partners
        closer = np.array([_closer(row, target) - _closer(row[own], target) for target in targets])
    else:
        negatives = np.sort(np.r_[row[: own.start], row[own.stop :]])
        below, up_to = (np.searchsorted(negatives, targets, side=side) for side in ("left", "right"))
        closer = others - (below + up_to) / 2
    return closer / (others + 1)


def _closer(negatives: np.ndarray, target: float) -> float:
    """How many similarities lie above `target`, equal ones counted half."""
    return (np.count_nonzero(negatives > target) + np.count_nonzero(negatives >= target)) / 2


def paper_normalized_ranks(
    embeddings: ArrayLike,
    singers: Sequence,
    pairs: ArrayLike | None = None,
    seed: int = 0,
    trials: int = PAPER_TRIALS,
    negatives: int = PAPER_NEGATIVES,
) -> tuple[np.ndarray, np.ndarray]:
    """The ISMIR 2023 protocol: up to 1,000 of the pairs, each against 512 random recordings of other singers, over 513.

    Both draws come from `seed`, without replacement. A set with fewer pairs uses all of them.

    Returns:
        (pairs drawn, ranks), as in `normalized_ranks`.

    Raises:
        InputError: as in `normalized_ranks`, and when a singer has fewer than 512 recordings of others to compare with.
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
    """The pairs of the paper's protocol, (<= trials, 2); needs no embeddings, so that what is missing is said before.

    Raises:
        InputError: as `paper_normalized_ranks`.
    """
    codes = _codes(singers, len(singers))
    pairs = _all_pairs(codes) if pairs is None else _check_pairs(pairs, codes)
    pairs = pairs[np.sort(rng.permutation(len(pairs))[:trials])]
    others = len(codes) - int(np.bincount(codes)[codes[pairs[:, 0]]].max())
    if others < negatives:
        raise InputError(
            f"the paper's rank protocol needs {negatives} recordings of other singers, here are {others}; "
            "use the exact one: --rank_protocol exact"
        )
    return pairs


def check_positions(pairs: np.ndarray, count: int) -> None:
    """InputError when a pair names a recording that is not there; numpy would take -1 for the last one."""
    wrong = pairs[(pairs < 0) | (pairs >= count)]
    if len(wrong):
        raise InputError(f"pairs name recording {int(wrong[0])}, but there are {count} (numbers start at 0)")


def unit_length(embeddings: ArrayLike) -> np.ndarray:
    """(recordings, dim) float32 rows of length 1, so that a dot product is a cosine.

    Raises:
        InputError: not a table, NaN or infinite values, or a row of zeros (its direction is undefined).
    """
    try:
        with np.errstate(over="ignore"):  # what is too large for float32 is called infinite below
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
    if not norms.all() or not np.isfinite(norms).all():  # squares that left the range of float32
        largest = np.abs(x).max(axis=1, keepdims=True)
        x = np.divide(x, largest, where=largest > 0, out=x.copy())
        norms = np.linalg.norm(x, axis=1, keepdims=True)
    if not norms.all():
        first = int(np.argmin(norms)) + 1
        raise InputError(f"embedding number {first} is all zeros; its cosine to anything is undefined")
    return x / norms


def _codes(singers: Sequence, count: int) -> np.ndarray:
    """(recordings,) one integer a singer, in order of first appearance."""
    if len(singers) != count:
        raise InputError(f"{count} embeddings but {len(singers)} singers; each recording needs one")
    numbers: dict = {}
    names = singers.tolist() if isinstance(singers, np.ndarray) else list(singers)
    codes = np.array([numbers.setdefault(name, len(numbers)) for name in names])
    if len(numbers) < 2:
        here = f"here is only {names[0]!r}" if names else "here are none"
        raise InputError(f"ranks need recordings of at least two singers, {here}")
    return codes


def _all_pairs(codes: np.ndarray) -> np.ndarray:
    """Every ordered pair of two recordings of one singer, (pairs, 2)."""
    found = []
    for members in np.split(np.argsort(codes, kind="stable"), np.flatnonzero(np.diff(np.sort(codes))) + 1):
        first, second = np.meshgrid(members, members, indexing="ij")
        different = first != second
        found.append(np.stack([first[different], second[different]], axis=1))
    pairs = np.concatenate(found)
    if not len(pairs):
        raise InputError("no singer has two recordings; ranks need at least one pair of one singer")
    return pairs


def _check_pairs(pairs: ArrayLike, codes: np.ndarray) -> np.ndarray:
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise InputError(f"pairs must be a non-empty (pairs, 2) list of recording numbers, got shape {pairs.shape}")
    if not np.issubdtype(pairs.dtype, np.integer):
        raise InputError(f"pairs must be whole numbers of recordings, got {pairs.dtype}")
    check_positions(pairs, len(codes))
    wrong = codes[pairs[:, 0]] != codes[pairs[:, 1]]
    if wrong.any():
        raise InputError(f"pair {int(np.argmax(wrong)) + 1} joins two singers; a rank needs two recordings of one")
    itself = pairs[:, 0] == pairs[:, 1]
    if itself.any():
        raise InputError(f"pair {int(np.argmax(itself)) + 1} is of a recording with itself; a rank needs another one")
    return pairs.astype(np.int64)
