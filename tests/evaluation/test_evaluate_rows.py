"""Rows of `ssl-audio evaluate`: conditions, fusion, cost, and embeddings that are computed once."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_model, write_voices
from sklearn.linear_model import LogisticRegression

from ssl_audio import load_model
from ssl_audio.cli import main
from ssl_audio.embedding.conditions import parse_condition
from ssl_audio.embedding.kept import KeptEmbeddings
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.errors import InputError
from ssl_audio.evaluation.comparison import load_test_set
from ssl_audio.evaluation.cost import ModelCost, model_cost
from ssl_audio.evaluation.fusion import fused, fusion_weights, split_fusion
from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.evaluation.scoring import score_trials
from ssl_audio.evaluation.trials import all_pairs, check_decidable
from ssl_audio.hub.saved import save_model


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("rows")
    write_voices(root / "tested", people=6, files=3, seconds=0.5)
    write_voices(root / "others", people=6, files=3, seconds=0.5, seed=1)
    save_model(tiny_model(8), root / "one")
    save_model(tiny_model(16, seed=1), root / "two")
    return root


def evaluate(place, output, *more):
    given = ["--model", place / "one", "--model", place / "two", "--data", place / "tested", "--output", output]
    return main(["evaluate", *map(str, [*given, "--resamples", 100, "--no_baselines", "--probe", "none", *more])])


FLAGS = ("--condition", "noise:0", "--condition", "cut:0.3", "--fuse", "one+two")


@pytest.fixture(scope="module")
def metrics(place) -> dict:
    assert evaluate(place, place / "report", *FLAGS, "--calibrate", place / "others") == 0
    return json.loads((place / "report" / "metrics.json").read_text())


def test_a_condition_has_the_EER_of_the_changed_recordings_on_the_same_trials(place, metrics):
    test_set = load_test_set(place / "tested")
    model = EvalProtocol(load_model(str(place / "one")))
    clean, noisy = (
        embed_recordings(model, test_set.recordings.paths(), progress=None, condition=condition)
        for condition in (None, parse_condition("noise:0"))
    )
    trials = test_set.trials
    rates = [equal_error_rate(trials.labels, score_trials(x, trials.pairs))[0] for x in (clean, noisy)]
    (arm,) = [a for a in metrics["conditions"] if (a["model"], a["condition"]) == ("one", "noise:0")]
    assert arm["n_trials"] == metrics["models"]["one"]["tested"]["n_trials"] == len(trials)
    assert metrics["models"]["one"]["tested"]["eer"] == pytest.approx(rates[0], abs=1e-6)
    assert arm["eer"] == pytest.approx(rates[1], abs=1e-6)
    assert arm["change"]["difference"] == pytest.approx(rates[1] - rates[0], abs=1e-6)
    low, high = arm["change"]["interval"]
    assert low <= arm["change"]["difference"] <= high


def test_models_are_paired_under_each_condition_and_the_page_and_tables_show_it(place, metrics):
    pairs = {(c["condition"], frozenset((c["first"], c["second"]))) for c in metrics["comparisons"]}
    assert len(pairs) == 9  # three rows, clean and two conditions
    page = (place / "report" / "report.html").read_text()
    assert "Under conditions" in page and "noise:0" in page and "cut:0.3" in page and "Cost and licence" in page
    rows = list(csv.DictReader((place / "report" / "conditions.csv").open()))
    assert [(r["condition"], r["model"]) for r in rows] == [
        (condition, model) for condition in ("noise:0", "cut:0.3") for model in ("one", "two", "one + two")
    ]


def test_a_fusion_scores_with_weights_of_other_singers(place, metrics):
    def table(folder, name):
        model = EvalProtocol(load_model(str(place / name)))
        return embed_recordings(model, load_test_set(place / folder).recordings.paths(), progress=None)

    tested, others = (load_test_set(place / folder).trials for folder in ("tested", "others"))
    columns = np.column_stack([score_trials(table("others", name), others.pairs) for name in ("one", "two")]).astype(
        float
    )
    columns, spread = columns - columns.mean(axis=0), columns.std(axis=0)
    line = LogisticRegression(C=1e9, class_weight="balanced", tol=1e-10, max_iter=10_000)
    weights = np.maximum(line.fit(columns / spread, others.labels).coef_[0] / spread, 0)
    weights = weights / weights.sum() if weights.sum() else np.array([0.5, 0.5])
    found = fusion_weights(table("others", "one"), table("others", "two"), others)
    np.testing.assert_allclose(found, weights, atol=1e-3)
    cosines = np.column_stack([score_trials(table("tested", name), tested.pairs) for name in ("one", "two")])
    eer = equal_error_rate(tested.labels, cosines @ np.array(found))[0]
    assert metrics["models"]["one + two"]["tested"]["eer"] == pytest.approx(eer, abs=1e-6)


def test_the_cosine_of_a_fusion_is_the_weighted_mean():
    rng = np.random.default_rng(0)
    a, b, pairs = rng.standard_normal((5, 3)), rng.standard_normal((5, 7)), np.array([[0, 1], [2, 4]])
    mean = 0.3 * score_trials(a, pairs) + 0.7 * score_trials(b, pairs)
    np.testing.assert_allclose(score_trials(fused((0.3, 0.7), a, b), pairs), mean, atol=1e-6)


def test_trials_that_separate_give_equal_weights_and_a_useless_model_gets_none(place):
    recordings = load_test_set(place / "others").recordings
    trials = all_pairs(recordings)
    check_decidable(trials)
    codes = np.unique(recordings.singers, return_inverse=True)[1]
    perfect = np.eye(6)[codes]
    assert fusion_weights(perfect, perfect + 0.01, trials) == (0.5, 0.5)
    rng = np.random.default_rng(0)
    good = perfect + 0.5 * rng.standard_normal(perfect.shape)
    opposed = -np.eye(6)[codes] @ rng.standard_normal((6, 6)) + 50 * rng.standard_normal(perfect.shape)
    first, second = fusion_weights(good, opposed, trials)
    assert first + second == pytest.approx(1) and first > 0.9


def test_a_row_tells_its_cost(metrics):
    model = tiny_model(8)
    cost = metrics["models"]["one"]["tested"]["cost"]
    assert cost["parameters"] == sum(p.numel() for p in model.parameters())
    assert (cost["dim"], cost["embedding_bytes"], cost["licence"]) == (8, 32, "unknown")
    assert 0 < cost["seconds_per_hour"] < 36000
    together = metrics["models"]["one + two"]["tested"]["cost"]
    assert together["dim"] == 24 and together["parameters"] > cost["parameters"]
    assert "cores" in metrics["settings"]["machine"]
    assert (ModelCost(None, 2, None, "mit") + ModelCost(3, 4, 5.0, "mit")).summary() == {
        "parameters": None, "dim": 6, "seconds_per_hour": None, "licence": "mit", "embedding_bytes": 24,
    }  # fmt: skip
    assert model_cost(torch.jit.script(Plain()), None, "-").parameters == 6


class Plain(torch.nn.Linear):
    dim: int

    def __init__(self):
        super().__init__(2, 2)
        self.dim = 2


def test_a_second_report_computes_nothing_and_says_the_same(place, metrics, tmp_path, monkeypatch):
    monkeypatch.setattr(KeptEmbeddings, "_compute", lambda *_: pytest.fail("an embedding is computed twice"))
    cache = ("--cache", place / "report" / "embeddings")
    assert evaluate(place, tmp_path / "r", *FLAGS, "--calibrate", place / "others", *cache) == 0
    again = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert again["models"] == metrics["models"] and again["conditions"] == metrics["conditions"]
    assert not (tmp_path / "r" / "embeddings").exists()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--condition", "wind:3"), "there are opus:16, mp3:32, telephone, reverb:0.6, noise:10, cut:2"),
        (("--fuse", "one+two"), "--fuse fits its weights on other singers"),
        (("--fuse", "one+two", "--calibrate"), "--fuse fits its weights on other singers"),
        (("--fuse", "one+three", "--calibrate", "OTHERS"), "the rows are one, two"),
        (("--condition", "cut:0.06", "--model", "package:musicnn?weights=X"), "weights"),
        (("--cache", "FILE"), "--cache"),
    ],
)
def test_what_cannot_be_done_is_refused_before_any_embedding(place, tmp_path, capsys, more, says):
    (tmp_path / "file").write_text("")
    words = {"OTHERS": place / "others", "FILE": tmp_path / "file" / "x"}
    assert evaluate(place, tmp_path / "r", *(words.get(word, word) for word in more)) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert says in line and not (tmp_path / "r").exists()


def test_names_that_hold_a_plus_are_split_where_both_sides_are_rows():
    assert split_fusion("a+b+c", ["a+b", "c"]) == ("a+b", "c")
    with pytest.raises(InputError, match="two different rows"):
        split_fusion("a+a", ["a"])
