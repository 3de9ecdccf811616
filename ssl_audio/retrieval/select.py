"""From candidates in order of relevance to the list that is shown: at most so many a group, and not all alike."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ssl_audio.retrieval.search import similarity


def select(scores: np.ndarray, groups: Sequence[str], n: int, per_group: int | None = None) -> list[int]:
    """Positions of the first `n` candidates with no group more than `per_group` times.

    Args:
        scores: `(candidates,)`, best first.
        groups: artist, folder, ... of each candidate.
    """
    chosen: list[int] = []
    taken: Counter[str] = Counter()
    for position in range(len(scores)):
        if len(chosen) == n:
            break
        if per_group is None or taken[groups[position]] < per_group:
            taken[groups[position]] += 1
            chosen.append(position)
    return chosen


def maximal_marginal_relevance(
    scores: np.ndarray,
    vectors: np.ndarray,
    groups: Sequence[str],
    n: int,
    weight: float,
    metric: str = "cosine",
    per_group: int | None = None,
) -> list[int]:
    """Pick one by one what is relevant and unlike what is already picked (Carbonell & Goldstein, SIGIR 1998).

    Each step takes the candidate with the largest `weight * score - (1 - weight) * max similarity to those picked`.

    Args:
        scores: `(candidates,)`, best first.
        vectors: `(candidates, dim)`, as `search.normalize` leaves them.
        weight: lambda of the paper, in [0, 1]; 1 is the plain order.

    Returns:
        Positions, in the order they were picked.
    """
    scores = np.asarray(scores, np.float32)
    chosen: list[int] = []
    taken: Counter[str] = Counter()
    available = np.ones(len(scores), bool)
    redundancy = np.zeros(len(scores), np.float32)
    while len(chosen) < n and available.any():
        value = weight * scores - (1 - weight) * redundancy
        best = int(np.argmax(np.where(available, value, -np.inf)))
        closeness = similarity(vectors[best][None], vectors, metric)[0]
        redundancy = closeness if not chosen else np.maximum(redundancy, closeness)
        chosen.append(best)
        available[best] = False
        taken[groups[best]] += 1
        if per_group is not None and taken[groups[best]] >= per_group:
            available &= np.array([group != groups[best] for group in groups])
    return chosen
