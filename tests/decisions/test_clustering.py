"""Clustering of embeddings: the threshold, corrections, confidence, many files."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist

from ssl_audio.decisions.clustering import Contradiction, Voices, cluster_voices, kmeans
from ssl_audio.evaluation.calibration import Calibration
from ssl_audio.evaluation.clustering_metrics import clustering_metrics
from ssl_audio.evaluation.false_accepts import fit_false_accepts
from ssl_audio.evaluation.model_calibration import ModelCalibration


def calibration(weights=(), **more):
    """log-likelihood ratio = 10 score - 5 + weights . lengths."""
    return ModelCalibration(
        line=Calibration(10.0, -5.0, tuple(weights)),
        false_accepts=fit_false_accepts(np.random.default_rng(0).normal(0, 0.3, 1000)),
        refits=np.array([[10.0, -5.0, *weights]]),
        score_range=(-1.0, 1.0),
        length_range=(0.5, 20.0),
        uses_length=bool(weights),
        **more,
    )


def voices(people=8, files=5, dim=24, noise=0.13, seed=0):
    """(embeddings, who)."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(people), files)
    centres = rng.standard_normal((people, dim))
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    return (centres[who] + noise * rng.standard_normal((len(who), dim))).astype(np.float32), who


def test_a_block_of_ratios_is_what_pairs_one_by_one_give():
    x, _ = voices()
    rng = np.random.default_rng(1)
    seconds = rng.uniform(0.3, 25, len(x))
    cohort = rng.standard_normal((9, x.shape[1])).astype(np.float32)
    for kind in (None, "z", "s", "as"):
        fitted = calibration((0.5, -1.0, 0.3), normalization=kind, cohort=None if kind is None else cohort)
        pairs = rng.integers(0, len(x), (200, 2))
        expected = fitted.ratios(fitted.scorer()(x, pairs), seconds[pairs])
        block = Voices.of(x, seconds, fitted)
        assert block.ratios(block)[tuple(pairs.T)] == pytest.approx(expected, abs=1e-4)


def test_clusters_are_those_of_average_linkage_cut_at_the_threshold():
    x, who = voices(noise=0.16)
    found = cluster_voices(Voices.of(x, np.ones(len(x)), calibration()), threshold=0.0)
    tree = linkage(pdist(x.astype(np.float64), "cosine"), "average")
    expected = fcluster(tree, 0.5, "distance")  # 10 cos - 5 = 0
    assert clustering_metrics(found.labels, expected, 0)["adjusted_rand"] == pytest.approx(1)
    assert (np.diff(np.bincount(found.labels)) <= 0).all()  # the largest first
    assert clustering_metrics(found.labels, who, 0)["adjusted_rand"] > 0.5


def test_average_cosine_merges_the_published_example():
    """Unit vectors at 0, 6, 40, 46 and 180 degrees, merged above a cosine of .8."""
    angles = np.radians([0, 6, 40, 46, 180])
    found = cluster_voices(Voices.of(np.stack([np.cos(angles), np.sin(angles)], 1), np.ones(5), None), 0.8)
    assert found.labels.tolist() == [0, 0, 1, 1, 2] and np.isnan(found.confidence).all()
    assert found.nearest.tolist() == [1, 1, 0, 0, 1]


def test_a_known_number_of_voices_is_kept():
    x, who = voices()
    found = cluster_voices(Voices.of(x, np.ones(len(x)), None), 0.0, number=8)
    assert clustering_metrics(found.labels, who, 0)["adjusted_rand"] == pytest.approx(1)
    with pytest.raises(ValueError, match="41 clusters of 40 files"):
        cluster_voices(Voices.of(x, np.ones(len(x)), None), 0.0, number=41)


@pytest.mark.parametrize("overcluster", [0, 20])
def test_corrections_are_kept(overcluster):
    x, _who = voices()
    same, different = np.array([[0, 5], [5, 10], [1, 39]]), np.array([[0, 1], [20, 21], [20, 22]])
    found = cluster_voices(
        Voices.of(x, np.ones(len(x)), calibration()), 0.0, same=same, different=different, overcluster=overcluster
    )
    assert (found.labels[same[:, 0]] == found.labels[same[:, 1]]).all()
    assert (found.labels[different[:, 0]] != found.labels[different[:, 1]]).all()
    with pytest.raises(Contradiction) as clash:
        cluster_voices(Voices.of(x, np.ones(len(x)), None), 0.0, same=same, different=np.array([[3, 4], [0, 10]]))
    assert clash.value.pair == 1


def test_confidence_is_the_probability_by_the_ratios_to_the_others():
    x, _who = voices(people=3, files=3, dim=6, noise=0.2)
    found = cluster_voices(Voices.of(x, np.ones(9), calibration()), 1.5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for i in range(9):
        others = [j for j in range(9) if j != i]
        mean = {c: np.mean([10 * unit[i] @ unit[j] - 5 for j in others if found.labels[j] == c])
                for c in set(found.labels[others])}  # fmt: skip
        own = mean.pop(found.labels[i], None)
        rest = max(mean.values())
        weights = [np.exp(1.5), np.exp(rest)] if own is None else [np.exp(own), np.exp(rest), np.exp(1.5)]
        assert found.confidence[i] == pytest.approx(weights[0] / sum(weights), rel=1e-3)
        assert mean[found.nearest[i]] == pytest.approx(rest)


def test_overclustering_finds_the_same_voices_among_many_files():
    x, who = voices(people=60, files=20, dim=64, noise=0.08)
    found = cluster_voices(Voices.of(x, np.ones(len(x)), calibration()), 0.0, overcluster=300)
    assert clustering_metrics(found.labels, who, 0)["b_cubed_f1"] > 0.98
    small = kmeans(Voices.of(x, np.ones(len(x)), None).rows, 300)
    assert small.max() + 1 <= 300 and clustering_metrics(small, who, 0)["purity"] > 0.95


def test_unknown_lengths_are_refused_where_the_calibration_needs_them():
    x, _ = voices()
    with pytest.raises(ValueError, match="no known length"):
        Voices.of(x, np.zeros(len(x)), calibration((1.0,)))


def test_one_file_is_one_cluster():
    found = cluster_voices(Voices.of(np.ones((1, 3)), np.ones(1), calibration()), 0.0)
    assert found.labels.tolist() == [0] and found.nearest.tolist() == [-1] and found.confidence[0] == 1
