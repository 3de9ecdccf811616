"""Score normalisation, calibration and kinds of trials, through the commands and on real files."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_frontend, tiny_model

from ssl_audio.cli import main
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.errors import InputError
from ssl_audio.evaluation.backend import ACROSS_SINGERS, Scorer, load_backend
from ssl_audio.evaluation.bootstrap import bootstrap_class_means, singer_multiplicities
from ssl_audio.evaluation.calibration import cllr, cross_calibrate, fit_calibration
from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.evaluation.normalization import normalize_scores
from ssl_audio.evaluation.recordings import find_recordings
from ssl_audio.evaluation.trials import all_pairs, read_trials
from ssl_audio.hub import load_model
from ssl_audio.hub.saved import save_model


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A small network with random weights, saved as models are."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_model(tiny_model(frontend=tiny_frontend(normalize="band")), folder)
    return folder


@pytest.fixture(scope="module")
def choirs(tmp_path_factory, write_tone) -> Path:
    """Three folders of singers, `tested`, `cohort` and `held`, with a table of genders, songs and takes of the first.

    Every singer sings every song twice, at pitches that overlap between singers, so that no threshold is perfect.
    """
    root = tmp_path_factory.mktemp("choirs")
    rows = []
    for folder, people, offset in (("tested", 6, 0), ("cohort", 4, 10), ("held", 5, 20)):
        for person in range(people):
            for song in range(2):
                for take in range(2):
                    name = f"{folder}{person}/song{song}-{take}.wav"
                    pitch = 150.0 * (1 + 0.06 * person) * (1 + 0.2 * song)
                    seed = 100 * offset + 10 * person + 2 * song + take
                    write_tone(root / folder / name, frequency=pitch, seconds=0.4, seed=seed)
                    rows.append([f"{folder}/{name}", "FM"[person % 2], f"song{song}", f"{person}-{song}-{take}"])
    with open(root / "manifest.csv", "w", newline="") as file:
        csv.writer(file).writerows([["path", "gender", "song", "recording"], *rows])
    return root


def evaluate(choirs, model, output, *more):
    given = [
        "--model",
        model,
        "--data",
        choirs / "tested",
        "--output",
        output,
        "--draws",
        100,
        "--device",
        "cpu",
        *more,
    ]
    return main(["evaluate", *map(str, given)])


def figures(output, name="small"):
    return json.loads((output / "metrics.json").read_text())["models"][name]["tested"]


def one_line(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


def test_normalised_and_calibrated_figures_are_those_of_the_library(choirs, model, tmp_path, capsys):
    flags = ("--normalize_scores", "s", "--cohort", choirs / "cohort", "--calibrate", choirs / "held", "--no_baselines")
    assert evaluate(choirs, model, tmp_path / "r", *flags) == 0
    parts = {name: find_recordings(choirs / name) for name in ("tested", "cohort", "held")}
    network = EvalProtocol(load_model(model))
    x = {name: embed_recordings(network, part.paths(), device="cpu", progress=None) for name, part in parts.items()}
    trials = {name: all_pairs(part) for name, part in parts.items()}
    scores = {n: normalize_scores(x[n], trials[n].pairs, x["cohort"], "s") for n in ("tested", "held")}
    found = figures(tmp_path / "r")
    assert found["eer"] == pytest.approx(equal_error_rate(trials["tested"].labels, scores["tested"])[0], abs=1e-6)
    line = fit_calibration(trials["held"].labels, scores["held"])
    assert found["cllr"] == pytest.approx(cllr(trials["tested"].labels, line(scores["tested"])), abs=1e-4)
    assert found["min_cllr"] <= found["cllr"] and found["cllr_interval"][0] <= found["cllr_interval"][1]
    assert (found["calibration_scale"], found["calibration_offset"]) == pytest.approx(
        (line.scale, line.offset), rel=1e-3
    )
    page = (tmp_path / "r" / "report.html").read_text()
    for said in (
        "s-norm with 16 recordings of 4 singers (cohort)",
        "Cllr",
        "fitted on 20 recordings of 5 singers (held)",
    ):
        assert said in page
    with open(tmp_path / "r" / "figures.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["cllr"]) == pytest.approx(found["cllr"], rel=1e-4) and row["score"] == "s-norm"
    with open(tmp_path / "r" / "leaderboard.csv", newline="") as file:
        assert [row["score"] for row in csv.DictReader(file)] == ["s-norm"]


def test_calibration_across_singers_and_baselines_beside(choirs, model, tmp_path):
    flags = ("--calibrate", "--normalize_scores", "as", "--cohort", choirs / "cohort")
    assert evaluate(choirs, model, tmp_path / "r", *flags) == 0
    content = json.loads((tmp_path / "r" / "metrics.json").read_text())["models"]
    for model_figures in content.values():
        found = model_figures["tested"]
        assert found["score"] == "adaptive s-norm"
        assert found["calibrated_on"] == "other singers of this set" or "calibra" in found["calibration_note"]
    assert content["small"]["tested"]["cllr"] > 0


def test_a_line_never_saw_the_singers_it_is_used_on():
    """Each trial's ratio comes from a line that stays the same whatever the trials of its own singers scored."""
    rng = np.random.default_rng(0)
    who = np.repeat(np.arange(10), 6)
    a, b = np.triu_indices(60, 1)
    singers, labels = np.stack([who[a], who[b]], 1), who[a] == who[b]
    scores = rng.standard_normal(len(a)) + labels
    ratios = cross_calibrate(labels, scores, singers, seed=1)
    assert np.isfinite(ratios).all() and 0.3 < cllr(labels, ratios) < 1
    for singer in (0, 7):
        own = (singers == singer).any(axis=1)
        changed = np.where(own, scores + 3 * rng.standard_normal(len(a)), scores)
        again = cross_calibrate(labels, changed, singers, seed=1)
        line = np.polyfit(scores[own & labels], ratios[own & labels], 1)  # same-singer trials of one singer: one line
        assert again[own & labels] == pytest.approx(np.polyval(line, changed[own & labels]), abs=1e-6)
    with pytest.raises(InputError, match="too few to calibrate"):
        few = singers.max(axis=1) < 2
        cross_calibrate(labels[few], scores[few], singers[few])


def test_a_draw_of_class_means_equals_the_mean_over_repeated_trials():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 7, (2, 200))
    labels, values = first == second, rng.random(200)
    times = singer_multiplicities(7, 6, 0)
    for m, got in zip(times, bootstrap_class_means(labels, values, np.stack([first, second], 1), times), strict=True):
        weight = np.where(labels, m[first], m[first] * m[second]).astype(int)
        repeated, kinds = np.repeat(values, weight), np.repeat(labels, weight)
        assert got == pytest.approx((repeated[kinds].mean() + repeated[~kinds].mean()) / 2)


def test_eval_writes_normalised_scores_and_cllr(choirs, model, tmp_path, capsys):
    all_pairs(find_recordings(choirs / "tested")).write(tmp_path / "tested" / "speaker_pairs.txt")
    given = ["-r", choirs, "-d", "tested", "-m", model, "-meta", tmp_path, "--draws", 50, "--device", "cpu"]
    flags = ["--normalize_scores", "z", "--cohort", choirs / "cohort", "--calibrate", choirs / "held"]
    assert main(["eval", *map(str, [*given, *flags])]) == 0
    assert "Cllr (least)" in capsys.readouterr().out
    record = json.loads((tmp_path / "small_z-norm_123.json").read_text())
    (result,) = record["results"]
    assert result["score"] == "z-norm" and result["cllr"] >= result["min_cllr"]
    with open(tmp_path / "tested" / "small_z-norm" / "scores_features.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    scores, labels = (np.array([float(row[name]) for row in rows]) for name in ("score", "label"))
    assert np.abs(scores).max() > 1.5 and result["eer"] == pytest.approx(equal_error_rate(labels, scores)[0], abs=1e-4)
    assert main(["eval", *map(str, [*given, "--calibrate", choirs / "held", "-cr"])]) == 2
    assert "--compute_eer True" in one_line(capsys)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--normalize_scores", "s"], "needs --cohort FOLDER"),
        (["--cohort", "cohort"], "give both or neither"),
        (["--normalize_scores", "s", "--cohort", "tested"], "tested0 is also tested"),
        (["--normalize_scores", "s", "--cohort", "nowhere"], "nowhere"),
        (["--calibrate", "tested"], "tested0 is also tested"),
        (["--normalize_scores", "s", "--cohort", "held", "--calibrate", "held"], "also in the cohort"),
        (["--trials_kind", "odd"], "choose from all, balanced, within-gender"),
        (["--trials_kind", "balanced", "--trials", "list.txt"], "give only one of the two"),
        (["--n_trials", "1"], "at least 2"),
        (["--rank_protocol", "paper"], "512 recordings of other singers and there are 20"),
    ],
)
def test_what_cannot_be_is_one_line_before_a_model_is_loaded(choirs, tmp_path, capsys, monkeypatch, flags, says):
    monkeypatch.chdir(choirs)
    assert evaluate(choirs, "no such model", tmp_path / "r", *flags) == 2
    line = one_line(capsys)
    assert says in line and "no such model" not in line and not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", ["balanced", "within-gender", "within-song", "cross-song"])
def test_listed_trials_of_a_kind_keep_its_promise(choirs, tmp_path, kind):
    given = ["-r", choirs / "tested", "-o", tmp_path, "-p", 24, "--trials_kind", kind]
    assert main(["pairs", *map(str, given)]) == 0
    trials = read_trials(tmp_path / "tested" / "speaker_pairs.txt")
    song = ["song0" in name for name in trials.files]
    assert len(trials) == 24 and trials.labels.sum() == 12
    for a, b in trials.pairs:
        assert a != b and (kind != "within-song" or song[a] == song[b]) and (kind != "cross-song" or song[a] != song[b])
        people = [int(trials.singers[i].removeprefix("tested")) for i in (a, b)]
        assert kind != "within-gender" or people[0] % 2 == people[1] % 2


def test_drawn_trials_are_the_same_from_both_commands(choirs, model, tmp_path):
    flags = ("--trials_kind", "within-song", "--n_trials", 20, "--seed", 5, "--no_baselines", "--probe", "none")
    assert evaluate(choirs, model, tmp_path / "r", *flags) == 0
    given = ["-r", choirs / "tested", "-o", tmp_path, "-p", 20, "--trials_kind", "within-song", "-s", 5]
    assert main(["pairs", *map(str, given)]) == 0
    trials = read_trials(tmp_path / "tested" / "speaker_pairs.txt")
    found = figures(tmp_path / "r")
    assert found["n_trials"] == len(trials) == 20 and found["kind"] == "within-song"
    assert found["trials_sha256"] == trials.digest()
    assert "20 random within-song trials" in (tmp_path / "r" / "report.html").read_text()


@pytest.mark.parametrize("command", ["pairs", "evaluate"])
@pytest.mark.parametrize(
    ("kind", "column"), [("within-gender", "gender"), ("within-song", "song"), ("cross-song", "song")]
)
def test_a_folder_that_does_not_tell_is_one_line(singers, tmp_path, capsys, command, kind, column):
    given = ["--data", singers, "--model", "m", "--output", tmp_path / "r"]
    given = given if command == "evaluate" else ["-r", singers, "-o", tmp_path / "r"]
    assert main([command, *map(str, given), "--trials_kind", kind]) == 2
    assert f"the {column}" in one_line(capsys) and not (tmp_path / "r").exists()


def test_a_singer_without_trials_is_not_counted(choirs):
    trials = all_pairs(find_recordings(choirs / "tested"))
    without = trials.pairs[(trials.pairs < 16).all(axis=1)]  # none of the last two of six singers
    few = type(trials)(trials.files, trials.singers, without, without[:, 0] == 0, trials.lines[: len(without)])
    assert few.singer_codes()[1] == ["tested0", "tested1", "tested2", "tested3"]


def test_the_backend_asks_for_the_files_it_needs(choirs):
    tested = find_recordings(choirs / "tested")
    backend = load_backend([tested], "as", choirs / "cohort", ACROSS_SINGERS)
    assert len(backend.paths()) == 16 and backend.scorer(np.ones((16, 3))).calibrates
    assert load_backend([tested]).paths() == [] and Scorer().name == "cosine"
