"""Which recordings are one voice: agglomerative clustering of log-likelihood ratios, with corrections.

Two clusters are merged while the mean log-likelihood ratio between their files is above a threshold (average linkage).
Many files are first gathered into many small clusters by k-means, whose centroids are then merged: k-means straight to
few clusters is worse (docs/decisions.md).
"""

from dataclasses import dataclass

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.model_calibration import ModelCalibration, log_lengths
from ssl_audio.evaluation.normalization import cohort_statistics
from ssl_audio.evaluation.ranks import unit_length

DIRECT = 10_000  # files that are merged one by one, without k-means, at most
_ROWS = 1 << 7  # rows of a block, which should fit the cache
_ITERATIONS, _SAMPLE = 8, 32  # of k-means, and files per centroid that it is fitted on
_CERTAIN = 1e12  # a log-likelihood ratio that no mean of others outweighs


@dataclass(frozen=True)
class Clusters:
    """Which file belongs to which cluster.

    Attributes:
        labels: (files,) number of the cluster; 0 is the largest.
        confidence: (files,) probability that the file belongs to its cluster, and neither to the nearest other one nor
            to none; NaN without a calibration.
        nearest: (files,) number of the nearest other cluster; -1 where there is none.
    """

    labels: np.ndarray
    confidence: np.ndarray
    nearest: np.ndarray

    def __len__(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1


@dataclass(frozen=True, eq=False)
class Voices:
    """Files, or groups of files, that can be compared in blocks.

    Attributes:
        rows: (files, dim) float32: embeddings of length 1, or the mean of those of a group. The product of two rows is
            a cosine, or the mean cosine between two groups.
        seconds: (files,) length of each file; 0 where it is not known.
        calibration: None compares by cosine.
        normal: (2, files) mean and deviation of the scores against the calibration's cohort; None without a cohort.
    """

    rows: np.ndarray
    seconds: np.ndarray
    calibration: ModelCalibration | None
    normal: np.ndarray | None

    @classmethod
    def of(cls, values: np.ndarray, seconds: np.ndarray, calibration: ModelCalibration | None) -> "Voices":
        """From (files, dim) embeddings.

        Raises:
            InputError: embeddings that are NaN or zero, or a length that the calibration needs and that is not known.
        """
        seconds = np.asarray(seconds, dtype=np.float64)
        if calibration is not None and calibration.uses_length:
            log_lengths(np.clip(seconds, 0, None))  # refuses unknown lengths
        return cls(unit_length(values), seconds, calibration, _normal(values, calibration))

    def at(self, places: np.ndarray) -> "Voices":
        """Those at these places."""
        normal = None if self.normal is None else self.normal[:, places]
        return Voices(self.rows[places], self.seconds[places], self.calibration, normal)

    def means(self, groups: np.ndarray) -> "Voices":
        """Mean and geometric mean length of each group; `groups` is (files,) from 0, none empty."""
        counts = np.bincount(groups).astype(np.float64)
        rows = (_sums(self.rows, groups, len(counts)) / counts[:, None]).astype(np.float32)
        logs = np.bincount(groups, np.log(np.maximum(self.seconds, 1e-9))) / counts
        return Voices(rows, np.exp(logs), self.calibration, _normal(rows, self.calibration))

    def scores(self, others: "Voices") -> np.ndarray:
        """(files, others) scores: cosines, or normalised ones where the calibration has a cohort."""
        return self._scores(others, self.rows @ others.rows.T, slice(None))

    def ratios(self, others: "Voices", cosines: np.ndarray | None = None) -> np.ndarray:
        """(files, others) float32 log-likelihood ratios; cosines without a calibration.

        Args:
            others: of the same model.
            cosines: (files, others), if they are known.
        """
        found = np.empty((len(self.rows), len(others.rows)), np.float32)
        for first in range(0, len(found), _ROWS):
            part = slice(first, first + _ROWS)
            block = self.rows[part] @ others.rows.T if cosines is None else cosines[part]
            if self.calibration is not None:
                block = self._scores(others, block, part)
                block = self.calibration.ratio_matrix(block, self.seconds[part], others.seconds)
            found[part] = block
        return found

    def _scores(self, others: "Voices", cosines: np.ndarray, part: slice) -> np.ndarray:
        if self.calibration is None or self.normal is None or others.normal is None:
            return cosines
        left, right = self.normal[:, part, None], others.normal[:, None]
        sides = [(cosines - mean) / deviation for mean, deviation in (left, right)]
        return sides[0] if self.calibration.normalization == "z" else (sides[0] + sides[1]) / 2


def _normal(values: np.ndarray, calibration: ModelCalibration | None) -> np.ndarray | None:
    if calibration is None or calibration.normalization is None or calibration.cohort is None:
        return None
    return np.stack(cohort_statistics(values, calibration.cohort, calibration.normalization))


def cluster_voices(
    voices: Voices,
    threshold: float,
    *,
    number: int | None = None,
    same: np.ndarray | None = None,
    different: np.ndarray | None = None,
    overcluster: int | None = None,
    seed: int = 0,
) -> Clusters:
    """Merge files into clusters, while the mean ratio between two of them is above the threshold.

    Args:
        voices: the files.
        threshold: log-likelihood ratio (a cosine without a calibration) above which two clusters are merged.
        number: of clusters, if it is known; `threshold` then serves the confidence alone.
        same, different: (pairs, 2) files that must, and must not, share a cluster.
        overcluster: number of small clusters that k-means makes first; 0 for none; None for a fourth of the files, at
            most 10,000, if there are more than `DIRECT`.
        seed: of k-means.

    Raises:
        InputError: corrections that contradict each other, or more clusters than files.
    """
    files = len(voices.rows)
    same, different = (
        np.empty((0, 2), int) if pairs is None else np.asarray(pairs, int) for pairs in (same, different)
    )
    if number is not None and not 1 <= number <= files:
        raise InputError(f"{number} clusters of {files} files are impossible; ask for 1 to {files}")
    if overcluster is None:
        overcluster = 0 if files <= DIRECT else min(files // 4, DIRECT)
    small = np.arange(files)
    if 0 < overcluster < files:
        named = np.unique(np.concatenate([same, different]))  # these stay alone, so that corrections can be kept
        rest = np.setdiff1d(small, named)
        groups = kmeans(voices.rows[rest], min(overcluster, len(rest)), seed)
        small = np.empty(files, dtype=int)
        small[rest], small[named] = groups, groups.max(initial=-1) + 1 + np.arange(len(named))
        parts = voices.means(small)
    else:
        parts = voices
    labels = _merge(parts.ratios(parts), threshold, number, small[same], small[different])[small]
    order = np.argsort(-np.bincount(labels), kind="stable")
    return assigned(voices, np.argsort(order)[labels], threshold)


def _merge(
    ratios: np.ndarray, threshold: float, number: int | None, same: np.ndarray, different: np.ndarray
) -> np.ndarray:
    """(items,) clusters of items with (items, items) ratios, by average linkage."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial.distance import squareform

    items = len(ratios)
    if items == 1:
        return np.zeros(1, dtype=int)
    linked = coo_array((np.ones(len(same)), tuple(same.T)), (items, items))
    _, together = connected_components(linked, directed=False)
    clash = np.flatnonzero(together[different[:, 0]] == together[different[:, 1]])
    if len(clash):
        raise Contradiction(int(clash[0]))
    highest = float(ratios.max())
    distances = squareform(highest - ratios.astype(np.float64, copy=False), checks=False)
    for group in np.flatnonzero(np.bincount(together) > 1):
        members = np.flatnonzero(together == group)
        a, b = np.triu_indices(len(members), 1)
        distances[_condensed(members[a], members[b], items)] = 0
    a, b = np.sort(different, axis=1).T
    distances[_condensed(a, b, items)] = _CERTAIN
    tree = linkage(distances, "average")
    if number is None:
        return fcluster(tree, highest - threshold, "distance") - 1
    return fcluster(tree, number, "maxclust") - 1


class Contradiction(InputError):
    """Two files that must not share a cluster are the same by other corrections; `pair` is the number of the pair."""

    def __init__(self, pair: int) -> None:
        super().__init__("corrections contradict each other")
        self.pair = pair


def _condensed(a: np.ndarray, b: np.ndarray, items: int) -> np.ndarray:
    """Places of the pairs a < b in scipy's condensed matrix."""
    return items * a - a * (a + 1) // 2 + b - a - 1


def assigned(voices: Voices, labels: np.ndarray, threshold: float) -> Clusters:
    """`Clusters` of (files,) labels: each file is compared with all of each cluster, of its own without itself."""
    counts, means = np.bincount(labels), voices.means(labels)
    here, elsewhere = np.empty(len(labels)), np.empty(len(labels))
    nearest = np.full(len(labels), -1)
    for first in range(0, len(labels), _ROWS):
        rows = np.arange(first, min(first + _ROWS, len(labels)))
        part, place = voices.at(rows), (np.arange(len(rows)), labels[rows])
        cosines = part.rows @ means.rows.T
        size = np.maximum(counts[labels[rows]], 2)
        cosines[place] = (size * cosines[place] - 1) / (size - 1)  # the mean cosine with the other files
        ratios = part.ratios(means, cosines)
        own, ratios[place] = ratios[place], -np.inf
        other, alone = ratios.max(axis=1), counts[labels[rows]] == 1
        if len(counts) > 1:
            nearest[rows] = ratios.argmax(axis=1)
        # being in no cluster weighs as much as a ratio at the threshold; for a file that is alone, this is its cluster
        here[rows] = np.where(alone, threshold, own)
        elsewhere[rows] = np.where(alone, other, np.logaddexp(other, threshold))
    confidence = np.exp(here - np.logaddexp(here, elsewhere))
    return Clusters(labels, confidence if voices.calibration is not None else np.full(len(labels), np.nan), nearest)


def kmeans(unit: np.ndarray, clusters: int, seed: int = 0) -> np.ndarray:
    """(files,) clusters by spherical k-means (Dhillon and Modha, Machine Learning 42, 2001); some may have merged.

    Args:
        unit: (files, dim) of length 1.
        clusters: number of them; `files` or less.
        seed: of the files that they start from, and of the sample that they are fitted on.
    """
    if not len(unit):
        return np.empty(0, dtype=int)
    rng = np.random.default_rng(seed)
    sample = unit if len(unit) <= _SAMPLE * clusters else unit[rng.choice(len(unit), _SAMPLE * clusters, replace=False)]
    centroids = sample[rng.choice(len(sample), clusters, replace=False)]
    for _ in range(_ITERATIONS):
        places = _closest(sample, centroids)
        used, places = np.unique(places, return_inverse=True)
        centroids = unit_length(_sums(sample, places, len(used)))
    return np.unique(_closest(unit, centroids), return_inverse=True)[1]


def _closest(unit: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    blocks = (unit[first : first + _ROWS] @ centroids.T for first in range(0, len(unit), _ROWS))
    return np.concatenate([block.argmax(axis=1) for block in blocks])


def _sums(values: np.ndarray, groups: np.ndarray, number: int) -> np.ndarray:
    from scipy.sparse import csr_array

    ones = np.ones(len(groups), np.float32)
    return csr_array((ones, (groups, np.arange(len(groups)))), (number, len(groups))) @ values
