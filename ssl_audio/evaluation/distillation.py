"""What a student keeps of its teacher: shared neighbours, and metrics with paired intervals."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.evaluation.bootstrap import (
    RESAMPLES,
    bootstrap_mean,
    paired_test,
    percentile_interval,
    singer_multiplicities,
)
from ssl_audio.evaluation.ranks import unit_length
from ssl_audio.evaluation.trials import Trials
from ssl_audio.evaluation.verification import VerificationResult, verify

Interval = tuple[float, float]
NEIGHBOURS = 10


def neighbour_overlap(first: ArrayLike, second: ArrayLike, k: int = NEIGHBOURS) -> np.ndarray:
    """For each recording, the share of its k nearest others in one space that are among the k nearest in the other.

    Args:
        first, second: `(recordings, dim)` embeddings of the same recordings; neighbours are by cosine.
        k: at most one less than there are recordings.

    Returns:
        `(recordings,)` in [0, 1]; by chance k / (recordings - 1).

    Example:
        >>> import numpy as np
        >>> x = np.random.default_rng(0).normal(size=(30, 4))
        >>> float(neighbour_overlap(x, 3 * x).mean())
        1.0
    """
    nearest = []
    for embeddings in (first, second):
        unit = unit_length(embeddings)
        cosines = unit @ unit.T
        np.fill_diagonal(cosines, -np.inf)
        nearest.append(np.argsort(-cosines, axis=1, kind="stable")[:, :k])
    return np.array([len(np.intersect1d(a, b)) / k for a, b in zip(*nearest, strict=True)])


@dataclass(frozen=True)
class Kept:
    """A model on recordings that the student was not taught on, beside its teacher.

    Attributes:
        name: of the model.
        overlap: see `neighbour_overlap` with the teacher, the mean; None for the teacher itself.
        overlap_interval: 95 %, by a bootstrap over people, or over recordings without them.
        verification: EER and mean normalised rank; None without labels.
        differences: {"eer", "mnr": (difference to the teacher, 95 % interval, paired)}; empty for the teacher.
    """

    name: str
    overlap: float | None = None
    overlap_interval: Interval | None = None
    verification: VerificationResult | None = None
    differences: dict[str, tuple[float, Interval]] = field(default_factory=dict)

    def metrics(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        verification = {} if self.verification is None else self.verification.metrics()
        return {
            **verification,
            "model": self.name,
            "overlap": self.overlap,
            "overlap_interval": self.overlap_interval,
            "differences": {name: [value, list(bounds)] for name, (value, bounds) in self.differences.items()},
        }


def compare_with_teacher(
    embeddings: dict[str, np.ndarray], trials: Trials | None, seed: int = 0, resamples: int = RESAMPLES
) -> list[Kept]:
    """Metrics of each model on the same recordings.

    Args:
        embeddings: `(recordings, dim)` by name, of the same recordings; the teacher first.
        trials: pairs of these recordings; None where no labels are known.
        seed, resamples: of the bootstrap.

    Raises:
        InputError: trials that decide nothing.
    """
    (_, of_teacher), *_ = embeddings.items()
    count = len(of_teacher)
    people = np.arange(count) if trials is None else np.unique(trials.singers, return_inverse=True)[1]
    times = singer_multiplicities(int(people.max()) + 1, resamples, seed)
    k = min(NEIGHBOURS, count - 1)
    found: list[Kept] = []
    for name, own in embeddings.items():
        verification = None if trials is None else verify(own, trials, seed=seed, resamples=resamples)
        if not found:
            found.append(Kept(name, verification=verification))
            continue
        shares = neighbour_overlap(of_teacher, own, k)
        bounds = percentile_interval(bootstrap_mean(shares, people, times))
        differences = _differences(verification, found[0].verification)
        found.append(Kept(name, float(shares.mean()), bounds, verification, differences))
    return found


def _differences(
    mine: VerificationResult | None, teachers: VerificationResult | None
) -> dict[str, tuple[float, Interval]]:
    if mine is None or teachers is None:
        return {}
    tests = {
        name: paired_test(getattr(mine, name), getattr(teachers, name), mine.resampled[name], teachers.resampled[name])
        for name in ("eer", "mnr")
    }
    return {name: (test.difference, test.interval) for name, test in tests.items()}
