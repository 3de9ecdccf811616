import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import tiny_model

from ssl_audio.cli import main
from ssl_audio.evaluation.comparison import TestSet, compare_all, evaluate_model, load_test_set
from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.evaluation.projection import project
from ssl_audio.evaluation.recordings import Recordings
from ssl_audio.evaluation.report import plots, write_comparison_report
from ssl_audio.evaluation.report.leaderboard import read_leaderboard
from ssl_audio.evaluation.report.tables import write_metrics
from ssl_audio.evaluation.report.verdict import points, verdict
from ssl_audio.evaluation.trials import all_pairs
from ssl_audio.hub.saved import save_model


def made_up(people=24, songs=4, name="choir"):
    rows = [(p, s) for p in range(people) for s in range(songs)]
    singers = [f"singer-with-quite-a-long-name-{p}" for p, _ in rows]
    files = [f"{singer}/{s}.wav" for singer, (_, s) in zip(singers, rows, strict=True)]
    recordings = Recordings(Path(name), files, singers, files, {})
    return TestSet(name, recordings, all_pairs(recordings))


def embeddings(test_set, noise, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.unique(test_set.recordings.singers, return_inverse=True)[1]
    voices = np.random.default_rng(99).standard_normal((codes.max() + 1, 16))
    return (voices[codes] + noise * rng.standard_normal((len(codes), 16))).astype(np.float32)


@pytest.fixture(scope="module")
def evaluations():
    test_set = made_up()
    good = embeddings(test_set, 0.9)
    twin = good + 0.02 * np.random.default_rng(5).standard_normal(good.shape).astype(np.float32)
    cases = {
        "good": good,
        "twin": twin,
        "poor": embeddings(test_set, 2.0),
        "MFCC statistics": embeddings(test_set, 3.0),
    }
    return [
        evaluate_model(name, x, test_set, baseline=name.startswith("MFCC"), resamples=200, probe="knn")
        for name, x in cases.items()
    ]


@pytest.fixture(scope="module")
def report(evaluations, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reports") / "first"
    write_comparison_report(evaluations, folder, settings={"seed": 0}, progress=False)
    return folder


def test_the_verdict_says_which_is_better_and_whether_it_is_luck(evaluations):
    sentences = verdict(evaluations, compare_all(evaluations))
    eers = {e.model: e.verification.eer for e in evaluations}
    best, other = sorted(("good", "twin"), key=eers.get)
    against = {name: next(s for s in sentences if f" {name}" in s) for name in (other, "poor")}
    assert all(sentence.startswith(best) for sentence in sentences)
    assert (
        "do not differ significantly" in against[other]
        and "choice of the singers alone may explain it" in against[other]
    )
    assert "is better than poor" in against["poor"] and "the difference is significant" in against["poor"]
    assert any("best baseline (MFCC statistics)" in s for s in sentences)


def test_equal_models_err_alike():
    test_set = made_up(people=12, songs=3)
    one, other = (
        evaluate_model(n, embeddings(test_set, 2.0), test_set, resamples=100, probe=None) for n in ("one", "other")
    )
    (sentence,) = verdict([one, other], compare_all([one, other]))
    assert sentence.startswith("one and other make the same errors: EER") and "-0.0" not in sentence
    assert points(-0.0002) == "0.0" and points(-0.123) == "-12.3"


def test_a_model_below_the_baseline_and_few_singers_are_said_so():
    test_set = made_up(people=6, songs=8)
    weak = evaluate_model("weak", embeddings(test_set, 4.0), test_set, resamples=200, probe=None)
    base = evaluate_model("mean mel", embeddings(test_set, 0.5), test_set, resamples=200, baseline=True, probe=None)
    sentences = verdict([weak, base], compare_all([weak, base]))
    assert "weak is worse than the best baseline (mean mel)" in sentences[0] and "Only 6 singers" in sentences[1]


def test_singers_who_are_only_impostors_do_not_make_an_interval_sure(tmp_path):
    whole = made_up(people=24, songs=6)
    kept = [i for i, name in enumerate(whole.recordings.files) if i < 18 or name.endswith("/0.wav")]
    recordings = whole.recordings.at(kept)
    test_set = TestSet("lonely", recordings, all_pairs(recordings))
    sure = evaluate_model("sure", embeddings(whole, 0.2)[kept], test_set, resamples=200, probe=None)
    poor = evaluate_model("poor", embeddings(whole, 4.0)[kept], test_set, resamples=200, probe=None)
    assert sure.verification.n_singers == 24 and sure.verification.n_paired_singers == 3
    sentences = verdict([sure, poor], compare_all([sure, poor]))
    assert "chance may explain even this" in sentences[0] and "come from only 3 of 24 singers" in sentences[1]
    write_comparison_report([sure, poor], tmp_path / "report", settings={}, progress=False)
    assert "24 singers (same-singer trials from 3 of them)" in (tmp_path / "report" / "report.html").read_text()


def test_names_that_matplotlib_reads_in_its_own_way_are_drawn_as_they_are(tmp_path, monkeypatch):
    """An even number of dollars is a formula, which may not parse; a leading underscore leaves a legend."""
    names = ["$x^{2$", "_under", "an endless name " * 8, "plain"]
    singers = [name for name in names for _ in range(4)]
    files = [f"{i}.wav" for i in range(len(singers))]
    test_set = TestSet("odd", (found := Recordings(Path("odd"), files, singers, files, {})), all_pairs(found))
    models = ["$m_{1$", "_model"]
    here = [
        evaluate_model(n, embeddings(test_set, s), test_set, resamples=100)
        for n, s in zip(models, (1.0, 2.0), strict=True)
    ]
    drawn = {}
    for name in ("det", "singer", "confusion", "map"):
        original = getattr(plots, f"{name}_plot")
        monkeypatch.setattr(
            plots, f"{name}_plot", lambda *given, n=name, draw=original: drawn.setdefault(n, draw(*given))
        )
    write_comparison_report(here, tmp_path / "report", settings={}, progress=False)
    assert "$m_{1$" in (tmp_path / "report" / "report.html").read_text()

    def legend(name):
        return [text.get_text().strip() for text in drawn[name].axes[0].get_legend().get_texts()]

    assert legend("det")[:2] == legend("singer") == models
    assert {"$x^{2$", "_under", "plain"} < set(legend("map"))
    ticks = [text.get_text() for name in ("singer", "confusion") for text in drawn[name].axes[0].get_yticklabels()]
    assert "$x^{2$" in ticks and max(map(len, ticks)) <= 30


@pytest.mark.filterwarnings("error")
def test_another_report_in_the_folder_leaves_no_picture_of_the_one_before(tmp_path):
    """Nor does it say on the console which letters no font here has; what is not a report's own stays."""
    mine = tmp_path / "plots" / "choir" / "notes.txt"
    for name in ("choir", "合唱團"):
        test_set = made_up(people=6, name=name)
        test_set.recordings.singers[:] = [singer.replace("singer", "歌手") for singer in test_set.recordings.singers]
        one = evaluate_model("歌", embeddings(test_set, 1.0), test_set, resamples=100, probe=None)
        write_comparison_report([one], tmp_path, settings={}, progress=False)
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("mine")
    assert [path.name for path in (tmp_path / "plots" / "choir").iterdir()] == ["notes.txt"]
    assert len([*(tmp_path / "plots" / "合唱團").glob("*.png")]) == 5


def test_every_singer_has_their_own_eer(evaluations):
    evaluation = evaluations[2]
    trials, scores = evaluation.test_set.trials, evaluation.verification.scores
    name = trials.singers[0]
    mine = np.array([name in (trials.singers[a], trials.singers[b]) for a, b in trials.pairs])
    assert evaluation.singer_eer[name] == pytest.approx(equal_error_rate(trials.labels[mine], scores[mine])[0])
    assert len(evaluation.singer_eer) == 24


def test_the_folder_holds_what_was_promised(report, evaluations):
    content = json.loads((report / "metrics.json").read_text())
    figures = content["models"]["good"]["choir"]
    assert {"eer", "eer_interval", "min_dcf", "mnr", "mnr_interval", "n_trials", "n_singers"} <= set(figures)
    assert figures["eer"] == pytest.approx(evaluations[0].verification.eer) and figures["n_singers"] == 24
    assert figures["probe"]["accuracy"] > 0.3 and len(content["comparisons"]) == 6
    for stem in ("det", "scores", "singers", "ranks", "confusion", "map"):
        assert (report / "plots" / "choir" / f"{stem}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (report / "plots" / "choir" / f"{stem}.svg").read_text()
    for name, rows in {
        "figures": 4,
        "per_singer": 96,
        "comparisons": 6,
        "probe_per_class": 96,
        "leaderboard": 4,
        "retrieval": 4,
    }.items():
        with open(report / f"{name}.csv", newline="") as file:
            assert len(list(csv.DictReader(file))) == rows


def test_retrieval_is_judged_without_the_querys_own_recording_and_by_genre(tmp_path):
    rows = [(p, s) for p in range(12) for s in range(4)]  # two recordings a singer, two clips of each
    singers, genres = [f"s{p}" for p, _ in rows], [("folk", "opera", "")[p % 3] for p, _ in rows]
    files = [f"s{p}/{s}.wav" for p, s in rows]
    takes = [f"s{p}/{s // 2}" for p, s in rows]
    test_set = TestSet("two", Recordings(Path("two"), files, singers, takes, {"genre": genres}), made_up(12).trials)
    x = np.stack([np.eye(36)[[p, 12 + p * 2 + s // 2]].sum(0) for p, s in rows])  # near: own recording, then own singer
    found = evaluate_model("m", x, test_set, resamples=100, probe=None).retrieval
    assert found["same_artist"]["precision_at_1"] == found["same_artist"]["mean_average_precision"] == 1
    assert found["same_artist"]["precision_at_5"] == pytest.approx(2 / 5)  # the clip of the same recording is left out
    assert found["same_genre_other_artist"]["queries"] == 32  # what has no genre is not judged
    write_comparison_report(
        [evaluate_model("m", x, test_set, resamples=100, probe=None)], tmp_path / "r", settings={}, progress=False
    )
    page = (tmp_path / "r" / "report.html").read_text()
    assert "same genre, other singers" in page and "mean AP" in page
    content = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert content["models"]["m"]["two"]["retrieval"] == found
    with open(tmp_path / "r" / "retrieval.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["task"] for row in table] == ["same_artist", "same_genre", "same_genre_other_artist"]
    assert float(table[0]["hit_rate_at_10"]) == 1


def test_the_leaderboard_gathers_reports_and_passes_over_rubbish(report, evaluations, tmp_path):
    for name in ("old", "new"):
        write_metrics(tmp_path / name / "metrics.json", evaluations[:2], [], {})
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.json").write_text('{"models": 3')
    entries = read_leaderboard(tmp_path)
    assert {e.model for e in entries} == {"good", "twin"}  # the newest report of each model counts, the best is first
    assert entries[0].eer == min(e.verification.eer for e in evaluations[:2]) <= entries[1].eer


def test_a_report_is_in_its_own_leaderboard_wherever_the_earlier_ones_lie(evaluations, tmp_path):
    write_comparison_report(evaluations[:1], tmp_path / "earlier" / "one", settings={}, progress=False)
    here = tmp_path / "elsewhere" / "two"
    write_comparison_report(evaluations[2:3], here, settings={}, runs=tmp_path / "earlier", progress=False)
    with open(here / "leaderboard.csv", newline="") as file:
        assert [(row["model"], row["report"]) for row in csv.DictReader(file)] == [
            ("good", "one"),
            ("poor", here.as_posix()),
        ]


def test_another_model_of_the_same_name_has_its_own_row_in_the_leaderboard(evaluations, tmp_path):
    good, poor = evaluations[0], replace(evaluations[2], model="good")
    for name, evaluation in (("one", good), ("two", poor), ("again", poor)):
        write_metrics(tmp_path / name / "metrics.json", [evaluation], [], {})
    entries = read_leaderboard(tmp_path)
    assert [e.model for e in entries] == ["good", "good"] and entries[0].report == "one"
    assert [e.eer for e in entries] == [good.verification.eer, poor.verification.eer]


def test_the_map_is_the_first_two_components():
    rng = np.random.default_rng(0)
    for dim in (6, 40):
        x = rng.standard_normal((50, dim)) @ np.diag(np.r_[5, 3, np.linspace(1, 0.1, dim - 2)])
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        _, sizes, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
        assert np.allclose(np.linalg.norm(project(unit), axis=0), sizes[:2])


def test_a_large_map_is_drawn_of_a_part_and_says_so(monkeypatch):
    test_set = made_up(people=20, songs=4)
    evaluation = evaluate_model("m", embeddings(test_set, 1.0), test_set, resamples=100, probe=None)
    assert plots.map_sample_note([evaluation]) == ""
    monkeypatch.setattr(plots, "MAX_MAPPED", 40)
    assert plots.map_sample_note([evaluation]) == " (40 of 80 recordings, about as many of each singer)"
    (axis,) = plots.map_plot([evaluation]).axes
    assert [len(points.get_offsets()) for points in axis.collections] == [2] * 20


def test_clips_of_one_recording_are_no_pair_that_is_counted(tmp_path, write_tone):
    names = [f"{singer}/{song}_{start}_{start + 4}_4s.wav" for singer in "abc" for song in "xy" for start in (0, 4)]
    for i, name in enumerate(names):
        write_tone(tmp_path / name, seconds=0.1, seed=i)
    whole, sampled = load_test_set(tmp_path), load_test_set(tmp_path, max_trials=40)
    assert len(whole.trials) == 60 and sampled.n_pairs == 60 and "all 60 pairs" in sampled.trials_description()
    assert load_test_set(tmp_path, max_trials=60).n_pairs == 0  # exactly so many: all are listed


def test_a_list_that_pairs_clips_of_one_recording_is_said_to(tmp_path, write_tone):
    for name in ("a/x_0_4_0s.wav", "a/x_4_8_1s.wav", "a/y.wav", "b/x_0_4_0s.wav"):
        write_tone(tmp_path / "choir" / name, seconds=0.1)
    fair, unfair = "1,a/x_0_4_0s.wav,a/y.wav\n0,a/y.wav,b/x_0_4_0s.wav\n", "1,a/x_0_4_0s.wav,a/x_4_8_1s.wav\n"
    (tmp_path / "list.txt").write_text(fair)
    described = load_test_set(tmp_path / "choir", tmp_path / "list.txt").trials_description()
    assert described == "2 trials of the list list.txt"
    (tmp_path / "list.txt").write_text(fair + unfair)
    described = load_test_set(tmp_path / "choir", tmp_path / "list.txt").trials_description()
    assert "1 pair two clips of one recording" in described


def test_more_pairs_than_the_limit_are_counted_without_a_list(singers, tmp_path):
    whole = load_test_set(singers)
    sampled = load_test_set(singers, max_trials=80)
    assert sampled.n_pairs == 190 and len(sampled.trials) == 80 and whole.n_pairs == 0
    x = np.random.default_rng(0).standard_normal((20, 4))
    exact, counted = (evaluate_model("m", x, s, resamples=0, probe=None).verification.eer for s in (whole, sampled))
    assert counted == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("width", [1280, 375])
def test_the_page_in_a_browser(report, browser, width):
    requests = []
    page = browser.new_page(viewport={"width": width, "height": 800})
    page.on("request", lambda request: requests.append(request.url))
    page.goto((report / "report.html").as_uri())
    overflow = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
    outside = page.evaluate(
        "[...document.querySelectorAll('body *')].filter(e => {const r = e.getBoundingClientRect();"
        "return r.width > 0 && (r.right > window.innerWidth + 1 || r.left < -1)}).map(e => e.outerHTML)"
    )
    pictures = page.evaluate("[...document.images].map(i => [i.alt, i.width / i.naturalWidth, i.complete])")
    heading = page.inner_text("h1")
    page.close()
    assert overflow <= 0 and outside == []
    assert len(pictures) == 18  # DET, EER per singer, and four panels each of the others
    assert all(alt and scale > 0.4 and done for alt, scale, done in pictures)  # of 130 dots an inch: legible
    assert "significant" in heading
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []


def test_the_command_compares_two_models_with_baselines(singers, tmp_path, capsys):
    for seed, name in enumerate(("a", "b")):
        save_model(tiny_model(8, seed=seed), tmp_path / name)
    given = ["--model", tmp_path / "a", "--model", tmp_path / "b", "--data", singers, "--output", tmp_path / "out"]
    assert main(["evaluate", *map(str, given), "--draws", "100", "--device", "cpu", "--probe", "knn"]) == 0
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert list(content["models"]) == ["a", "b", "untrained", "MFCC statistics", "mean mel"]
    assert [m["singers"]["baseline"] for m in content["models"].values()] == [False, False, True, True, True]
    printed = capsys.readouterr().out
    assert "report.html" in printed and "against" in printed
    assert (tmp_path / "out" / "report.html").stat().st_size > 50_000


@pytest.mark.parametrize(
    ("change", "says"),
    [(["--trials", "x.txt", "--trials", "y.txt"], "give a list for each --data"), (["--draws", "5"], "at least 100"),
     (["--trials", "gone.txt"], "cannot read")],
)  # fmt: skip
def test_mistakes_are_one_line_before_a_model_is_loaded(singers, tmp_path, capsys, change, says):
    given = ["--model", "no such model", "--data", str(singers), "--output", str(tmp_path / "out"), *change]
    assert main(["evaluate", *given]) == 2
    assert says in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_broken_file_is_named(singers, tmp_path, capsys):
    (singers / "singer 1" / "bad.wav").write_text("no audio")
    assert main(["evaluate", "--model", "m", "--data", str(singers), "--output", str(tmp_path / "out")]) == 2
    assert "bad.wav" in capsys.readouterr().err


@pytest.fixture(scope="module")
def two_models(tmp_path_factory) -> list[str]:
    """Two small untrained networks, saved as models are."""
    folder = tmp_path_factory.mktemp("models")
    for seed, name in enumerate(("a", "b")):
        save_model(tiny_model(8, seed=seed), folder / name)
    return ["--model", str(folder / "a"), "--model", str(folder / "b")]
