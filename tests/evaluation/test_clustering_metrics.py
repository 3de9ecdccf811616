"""Agreement of clusters and labels, against scikit-learn and the definitions."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from ssl_audio.evaluation.clustering_metrics import clustering_metrics


def test_the_metrics_are_those_of_their_definitions():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 120)
    clusters = np.where(rng.random(120) < 0.6, labels + 10, rng.integers(0, 9, 120))
    found = clustering_metrics(clusters, labels)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(labels, clusters))
    assert found["adjusted_rand"] == pytest.approx(adjusted_rand_score(labels, clusters))
    together, alike = clusters[:, None] == clusters, labels[:, None] == labels
    precision = ((together & alike).sum(1) / together.sum(1)).mean()
    recall = ((together & alike).sum(1) / alike.sum(1)).mean()
    assert found["b_cubed_precision"] == pytest.approx(precision)
    assert found["b_cubed_recall"] == pytest.approx(recall)
    assert found["b_cubed_f1"] == pytest.approx(2 / (1 / precision + 1 / recall))
    assert found["purity"] == pytest.approx(sum(max(np.bincount(labels[clusters == c])) for c in set(clusters)) / 120)
    for name in ("b_cubed_f1", "nmi", "purity"):
        low, high = found[f"{name}_interval"]
        assert low < found[name] < high


def test_the_published_example_of_pseudo_labels():
    assert clustering_metrics((0, 0, 1, 1, 2, 2), (0, 0, 1, 1, 1, 2), 0)["nmi"] == pytest.approx(0.739667, abs=1e-6)


def test_intervals_hold_what_more_people_of_the_same_kind_give():
    """Many labels, each split into clusters by chance: the interval of 40 of them has the value of all."""
    rng = np.random.default_rng(1)
    labels = np.repeat(np.arange(2000), 5)
    clusters = 10 * labels + (rng.random(len(labels)) < 0.3)
    truth = clustering_metrics(clusters, labels, 0)["b_cubed_f1"]
    inside = 0
    for first in range(0, 2000, 40):
        here = (labels >= first) & (labels < first + 40)
        low, high = clustering_metrics(clusters[here], labels[here])["b_cubed_f1_interval"]
        inside += low <= truth <= high
    assert 43 <= inside <= 50  # 95 % of 50


def test_equal_partitions_are_perfect_and_one_cluster_is_not():
    perfect = clustering_metrics(["x", "x", "y"], ["b", "b", "a"])
    assert all(perfect[name] == pytest.approx(1) for name in ("b_cubed_f1", "nmi", "adjusted_rand", "purity"))
    one = clustering_metrics([0] * 4, [0, 0, 1, 1])
    assert (one["b_cubed_precision"], one["b_cubed_recall"], one["nmi"], one["adjusted_rand"]) == (0.5, 1, 0, 0)
    assert clustering_metrics([0, 0], [1, 1])["b_cubed_f1"] == 1
