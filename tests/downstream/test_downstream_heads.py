"""Probes over several clips an item, the one-layer head, and heads that are kept."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from ssl_audio.encoders import CompactCNN, WaveBYOL
from ssl_audio.encoders.row_pooled import RowPooled
from ssl_audio.errors import InputError
from ssl_audio.evaluation.classifiers import predict
from ssl_audio.evaluation.probes import ProbeSettings, probe
from ssl_audio.heads import ProbeHead


def rings(n=600, seed=0):
    """Two classes that no straight line parts: inside a circle, and around it."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, n)
    angle, radius = rng.uniform(0, 2 * np.pi, n), 1 + 2 * y + 0.2 * rng.standard_normal(n)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).astype(np.float32), y


def test_a_hidden_layer_learns_what_a_line_cannot():
    x, y = rings()
    folds = np.where(np.arange(600) < 400, "train", "test")
    line, layer = (
        probe(x, y, settings=ProbeSettings(kind=kind, resamples=0), folds=folds) for kind in ("linear", "mlp")
    )
    assert line.metrics.summary["accuracy"] < 0.7 and layer.metrics.summary["accuracy"] > 0.95
    assert layer.head.hidden == 512


def test_a_hidden_layer_stops_when_validation_does_and_repeats_itself():
    x, _ = rings(n=300)
    y = np.random.default_rng(1).integers(0, 2, 300)  # nothing to learn
    folds = np.where(np.arange(300) < 200, "train", "test")
    result = probe(x, y, settings=ProbeSettings(kind="mlp", resamples=0), folds=folds)
    assert result.chosen[0] < 100
    assert np.array_equal(
        probe(x, y, settings=ProbeSettings(kind="mlp", resamples=0), folds=folds).scores, result.scores
    )


@pytest.mark.parametrize("kind", ["linear", "mlp", "knn"])
def test_an_items_score_is_the_mean_over_its_clips(kind):
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    owner = rng.permutation(np.r_[np.arange(120), rng.integers(0, 120, 300)])  # one clip at least, in any order
    centres = 1.5 * rng.standard_normal((3, 8))
    x = (centres[y[owner]] + 2 * rng.standard_normal((len(owner), 8))).astype(np.float32)
    folds = np.repeat(["train", "test"], [80, 40])
    result = probe(x, y, settings=ProbeSettings(kind=kind, resamples=0), clips=owner, folds=folds)
    assert result.n_test == 40 and result.scores.shape == (40, 3)
    if kind != "knn":
        each = predict(result.head, x)
        expected = np.stack([each[owner == item].mean(0) for item in range(80, 120)])
        assert np.allclose(result.scores, expected, atol=1e-6)
    if kind == "linear":
        known = owner < 80
        reference = LogisticRegression(C=1 / (known.sum() * result.chosen[0]), tol=1e-8, max_iter=5000)
        mean, std = x[known].mean(0), x[known].std(0)
        reference.fit((x[known] - mean) / std, y[owner[known]])
        each = reference.predict_proba((x - mean) / std)
        expected = np.stack([each[owner == item].mean(0) for item in range(80, 120)])
        assert np.allclose(result.scores, expected, atol=5e-3)
    with pytest.raises(InputError, match="every item needs a clip"):
        probe(x, y, settings=ProbeSettings(kind=kind), clips=np.minimum(owner, 118), folds=folds)


def test_with_folds_a_kept_head_has_seen_every_item():
    x, y = rings()
    result = probe(x, y, list("ab"), ProbeSettings(kind="mlp", keep_head=True, resamples=0), folds=np.arange(600) % 3)
    assert result.head.classes == ["a", "b"]
    assert (predict(result.head, x).argmax(1) == y).mean() > 0.95
    assert torch.allclose(result.head.mean, torch.from_numpy(x).mean(0), atol=1e-5)
    assert probe(x, y, settings=ProbeSettings(resamples=0), folds=np.arange(600) % 3).head is None


def test_a_head_is_made_again_from_its_description_and_refuses_doubled_classes():
    from ssl_audio.config import build, describe

    head = ProbeHead(4, ["rock", "no vocals"], hidden=3, multi_label=True, clip_seconds=2.5)
    head.standardize(torch.tensor([[1.0, 5.0, 0.0, 2.0], [3.0, 5.0, 1.0, 8.0]]))
    assert head.scale.tolist() == [1.0, 0.0, 2.0, pytest.approx(1 / 3)]
    again = build(describe(head))
    again.load_state_dict(head.state_dict())
    x = torch.randn(3, 4)
    assert torch.equal(again(x), head(x)) and again.classes == ["rock", "no vocals"] and again.clip_seconds == 2.5
    assert torch.equal(again.probabilities(again(x)), head(x).sigmoid())
    with pytest.raises(InputError, match="different names"):
        ProbeHead(4, ["rock", "rock"])


def test_a_pooled_map_keeps_rows_apart_and_one_row_is_the_encoders_own_output():
    torch.manual_seed(0)
    encoder = WaveBYOL("h1", channels=96).eval()
    clips = torch.randn(2, 6000)
    with torch.no_grad():
        assert torch.allclose(RowPooled(encoder, 1)(clips), encoder(clips), atol=1e-6)
        rows = encoder.feature_map(clips).shape[2]
        pooled = RowPooled(encoder, rows)(clips)
        expected = encoder.feature_map(clips).amax(3) + encoder.feature_map(clips).mean(3)
    assert pooled.shape == (2, RowPooled(encoder, rows).dim) and rows > 1
    assert torch.allclose(pooled, torch.nn.functional.normalize(expected.flatten(1), dim=1), atol=1e-6)
    with pytest.raises(InputError, match="CompactCNN has no feature map"):
        RowPooled(CompactCNN([4], 4))
