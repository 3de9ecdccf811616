"""Selection among ranked candidates: a limit per group, and maximal marginal relevance for varied results."""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from ssl_audio.retrieval.search import similarity


def select(scores: np.ndarray, groups: Sequence[str], n: int, per_group: int | None = None) -> list[int]:
    """Select the first candidates, with a limit per group.

    Args:
        scores: `(candidates,)`, best first.
        groups: group of each candidate, such as its artist; one of "" is in a group of its own.
        n: number of candidates to select.
        per_group: maximum number of candidates of one group; None for no limit.

    Returns:
        Positions of the selected candidates.
    """
    chosen: list[int] = []
    taken: Counter[str] = Counter()
    for position in range(len(scores)):
        if len(chosen) == n:
            break
        if per_group is None or not groups[position] or taken[groups[position]] < per_group:
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
    """Select candidates by maximal marginal relevance (Carbonell & Goldstein, SIGIR 1998).

    Each step selects the candidate with the largest `weight * score - (1 - weight) * redundancy`. The redundancy is the
    largest similarity to a candidate that is already selected.

    Args:
        scores: `(candidates,)`, best first.
        vectors: `(candidates, dim)` from `search.normalize`.
        groups: group of each candidate; one of "" is in a group of its own.
        n: number of candidates to select.
        weight: lambda of the paper, in [0, 1]; 1 keeps the order of the scores.
        metric: "cosine" or "euclidean".
        per_group: maximum number of candidates of one group; None for no limit.

    Returns:
        Positions in the order of selection.
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
        if per_group is not None and groups[best] and taken[groups[best]] >= per_group:
            available &= np.array([group != groups[best] for group in groups])
    return chosen
