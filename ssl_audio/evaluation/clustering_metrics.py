"""How well clusters match known labels: B-cubed, NMI, adjusted Rand index and purity, with intervals over the labels.

All follow from the contingency table of clusters and labels. B-cubed: Bagga and Baldwin, "Entity-based cross-document
coreferencing using the vector space model", COLING-ACL 1998. Adjusted Rand index: Hubert and Arabie, Journal of
Classification 2, 1985. NMI is normalised by the mean of both entropies. Intervals are from a jackknife over groups of
labels (people): a bootstrap would count a person twice, which makes every cluster look purer.
"""

from collections.abc import Sequence

import numpy as np

GROUPS = 200  # of labels that are left out in turn, at most
_NORMAL = 1.96  # deviations of a 95 % interval


def clustering_metrics(
    clusters: Sequence, labels: Sequence, groups: int = GROUPS, seed: int = 0
) -> dict[str, float | tuple[float, float]]:
    """Agreement of clusters with labels.

    Args:
        clusters, labels: (files,) names or numbers.
        groups: number of groups of labels for the jackknife; below two, or with fewer than three labels, there are no
            intervals.
        seed: of the groups.

    Returns:
        `clusters` and `labels`, their numbers; `b_cubed_precision`, `b_cubed_recall`, `b_cubed_f1`, `nmi`,
        `adjusted_rand`, `purity`, each in [0, 1] (the adjusted Rand index in [-.5, 1]), and the 95 %
        `*_interval` of each.
    """
    # sparse: as many cells as there are pairs of a cluster and a label, at most the number of files
    _, rows = np.unique(np.asarray(clusters), return_inverse=True)
    _, columns = np.unique(np.asarray(labels), return_inverse=True)
    cells, counts = np.unique(np.stack([rows, columns], axis=1), axis=0, return_counts=True)
    table = (cells[:, 0], cells[:, 1], counts.astype(np.float64))
    found: dict[str, float | tuple[float, float]] = {"clusters": int(rows.max()) + 1, "labels": int(columns.max()) + 1}
    whole = _agreement(*table)
    found |= whole
    groups = min(groups, int(columns.max()) + 1)
    if groups > 2:
        group = np.random.default_rng(seed).permutation(np.arange(columns.max() + 1) % groups)[table[1]]
        left_out = [_agreement(table[0], table[1], table[2] * (group != g)) for g in range(groups)]
        for name, value in whole.items():
            values = np.array([one[name] for one in left_out])
            error = np.sqrt((groups - 1) / groups * ((values - values.mean()) ** 2).sum())
            found[f"{name}_interval"] = (float(value - _NORMAL * error), min(1.0, float(value + _NORMAL * error)))
    return found


def _agreement(rows: np.ndarray, columns: np.ndarray, counts: np.ndarray) -> dict[str, float]:
    """The metrics of a sparse contingency table; cells with a count of 0 do not matter."""
    kept = counts > 0
    rows, columns, counts = rows[kept], columns[kept], counts[kept]
    total = counts.sum()
    of_cluster, of_label = np.bincount(rows, counts), np.bincount(columns, counts)
    precision = float((counts**2 / of_cluster[rows]).sum() / total)
    recall = float((counts**2 / of_label[columns]).sum() / total)
    largest = np.zeros(len(of_cluster))
    np.maximum.at(largest, rows, counts)
    mutual = float((counts / total * np.log(counts * total / of_cluster[rows] / of_label[columns])).sum())
    entropies = _entropy(of_cluster) + _entropy(of_label)
    pairs, by_cluster, by_label = (float((x * (x - 1) / 2).sum()) for x in (counts, of_cluster, of_label))
    everything = total * (total - 1) / 2
    expected, best = by_cluster * by_label / everything if everything else 0.0, (by_cluster + by_label) / 2
    return {
        "b_cubed_precision": precision,
        "b_cubed_recall": recall,
        "b_cubed_f1": 2 * precision * recall / (precision + recall),
        "nmi": 2 * mutual / entropies if entropies else 1.0,
        "adjusted_rand": (pairs - expected) / (best - expected) if best != expected else 1.0,
        "purity": float(largest.sum() / total),
    }


def _entropy(counts: np.ndarray) -> float:
    share = counts[counts > 0] / counts.sum()
    return float(-(share * np.log(share)).sum())
