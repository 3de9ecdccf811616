"""`ssl-audio identify`: posterior probabilities, false alarms of many people, index and folder, what it refuses."""

import csv
import json

import numpy as np
import pytest
from helpers import write_voices

from ssl_audio import load_model
from ssl_audio.cli import main
from ssl_audio.decisions.identifying import Enrolled, identify_files, posteriors, rate_of_one
from ssl_audio.evaluation.open_set import open_set_metrics


def run(*words) -> int:
    return main(["identify", *map(str, words), "--device", "cpu"])


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """Six people with three recordings each, and the fourth of each apart; with two people whom nobody enrolled."""
    folder = tmp_path_factory.mktemp("people")
    for n, path in enumerate(sorted(write_voices(folder / "all", people=8, seed=3).rglob("*.wav"))):
        person = path.parent.name
        if n // 4 >= 6 or n % 4 == 3:
            new = folder / "unknown" / person / path.name
        else:
            new = folder / "known" / person / path.name
        new.parent.mkdir(parents=True, exist_ok=True)
        path.rename(new)
    return folder


def test_probabilities_are_bayes_over_all_people_and_none():
    ratios = np.array([[2.0, -1.0, 0.5], [-40.0, -50.0, -60.0], [800.0, 0.0, 0.0]])
    probability, none = posteriors(ratios, none=0.4)
    weights = 0.2 * np.exp(ratios[0])
    assert probability[0] == pytest.approx(weights / (weights.sum() + 0.4))
    assert none[0] == pytest.approx(0.4 / (weights.sum() + 0.4)) and none[1] == pytest.approx(1)
    assert probability[2, 0] == pytest.approx(1)
    assert probability.sum(1) + none == pytest.approx(np.ones(3))


def test_the_probability_is_right_for_scores_of_known_densities():
    """People whose scores are Gaussian: of recordings given a probability near p, a share of p is that person."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 8, 40_000)
    truth[rng.random(40_000) < 0.5] = -1  # nobody
    scores = rng.normal(0, 1, (40_000, 8))
    scores[np.flatnonzero(truth >= 0), truth[truth >= 0]] += 2
    probability, none = posteriors(2 * scores - 2, none=0.5)  # the exact ratio of N(2, 1) and N(0, 1)
    for low in (0.1, 0.4, 0.8):
        here = (probability > low) & (probability < low + 0.1)
        right = truth[:, None] == np.arange(8)
        assert right[here].mean() == pytest.approx(probability[here].mean(), abs=0.02)
    assert (truth == -1)[none > 0.7].mean() == pytest.approx(none[none > 0.7].mean(), abs=0.02)


def test_many_people_make_false_alarms_more_probable():
    assert rate_of_one(0.1, 1) == pytest.approx(0.1)
    rate = rate_of_one(0.1, 40)
    best = np.random.default_rng(0).random((20_000, 40)).min(axis=1)  # rates of different people are uniform
    assert (best <= rate).mean() == pytest.approx(0.1, abs=0.01)


@pytest.mark.parametrize("kind", ["mean", "best"])
def test_llr_and_score_are_those_of_the_persons_recordings(calibrated, people, kind):
    model = load_model(calibrated)
    enrolled = Enrolled.of(people / "known", model)
    path = people / "unknown" / "voice 3-0" / "3.wav"
    found = identify_files([path], enrolled, model, kind=kind, top=99)[0][0]
    assert len(found.candidates) == len(enrolled.people) == 6
    x = model.embed(path)
    for candidate in found.candidates:
        others = np.stack([model.embed(p) for p in sorted((people / "known" / candidate.person).iterdir())])
        cosines = others @ x / np.linalg.norm(others, axis=1) / np.linalg.norm(x)
        score = cosines.mean() if kind == "mean" else cosines.max()
        assert candidate.score == pytest.approx(score, abs=1e-4)
        assert candidate.llr == pytest.approx(model.calibration.ratios([score], [[1.5, 1.5]])[0], abs=0.05)
    assert sum(candidate.probability for candidate in found.candidates) + found.none == pytest.approx(1)


def test_tables_and_measures(calibrated, people, tmp_path, capsys):
    words = [people / "unknown", "--enrolled", people / "known", "--model", calibrated, "--labels"]
    assert run(*words, "--csv", tmp_path / "out.csv", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["identifications"]) == 14
    measured = content["measured"]
    assert measured["recordings_of_enrolled"] == 6 and 0 <= measured["identified"] <= measured["rank_1"] <= 1
    with open(tmp_path / "out.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 14 * 3
    assert run(*words) == 0
    assert "given a name, of recordings of others: " in capsys.readouterr().out


def test_an_index_enrols_as_its_folder_does(calibrated, people, tmp_path, capsys):
    index = tmp_path / "people.index"
    words = ["index", people / "known", "--model", calibrated, "--output", index, "--group", "top_folder"]
    assert main([*map(str, words), "--device", "cpu"]) == 0
    found = []
    for place in (index, people / "known"):
        capsys.readouterr()
        assert run(people / "unknown", "--enrolled", place, "--model", calibrated, "--json") == 0
        found.append(json.loads(capsys.readouterr().out)["identifications"])
    for one, other in zip(*found, strict=True):
        assert one["person"] == other["person"] and one["none"] == pytest.approx(other["none"], abs=1e-3)


def test_what_cannot_be_is_one_line(calibrated, plain_model, people, tmp_path, capsys):
    words = [people / "unknown", "--enrolled", people / "known", "--model"]
    assert run(*words, calibrated, "--false_alarm", 0.001) == 2
    line = capsys.readouterr().err
    assert "ask for 0." in line and line.count("\n") == 1
    least = line.split("ask for ")[1].split(" ")[0]
    assert run(*words, calibrated, "--false_alarm", least) == 0  # what it advises helps
    assert run(*words, plain_model, "--false_alarm", 0.5) == 2
    assert run(*words, plain_model) == 0
    assert "so that nobody can be named" in capsys.readouterr().out
    assert run(*words, calibrated, "--none", 1) == 2
    (tmp_path / "bad" / "ann").mkdir(parents=True)
    (tmp_path / "bad" / "ann" / "x.wav").write_bytes(b"nothing")
    capsys.readouterr()
    assert run(people / "unknown", "--enrolled", tmp_path / "bad", "--model", calibrated) == 2
    assert "no recording of ann can be used" in capsys.readouterr().err


def test_an_enrolled_recording_itself_is_noticed(calibrated, people, capsys):
    path = people / "known" / "voice 3-0" / "0.wav"
    assert run(path, "--enrolled", people / "known", "--model", calibrated) == 0
    assert "is itself an enrolled recording" in capsys.readouterr().out


def test_open_set_rates_count_recordings():
    speakers = ["a", "a", "b", "x", "y", "y"]
    found = open_set_metrics(
        speakers, ["a", "b"], ["a", "b", "b", "a", "a", "b"], ["a", "b", None, "a", None, None], [5, 4, 3, 2, 1, 0]
    )
    assert (found["identified"], found["rank_1"], found["false_alarm"]) == pytest.approx((1 / 3, 2 / 3, 1 / 3))
    assert found["det"]["false_alarm"][2:4] == pytest.approx([0, 1 / 3])
    assert found["det"]["missed"][0] == pytest.approx(2 / 3) and found["det"]["missed"][-1] == pytest.approx(1 / 3)
    low, high = found["identified_interval"]
    assert low <= 1 / 3 <= high
    assert open_set_metrics(["a"], ["a"], ["a"], ["a"], [1])["false_alarm"] is None
