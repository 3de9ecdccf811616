"""`ssl-audio adapt` from recordings to a saved model, on a tiny start."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import tiny_model, tone, write_voices

from ssl_audio import audio, load_model, save_model
from ssl_audio.adaptation import RUNGS, Step, adapt
from ssl_audio.adaptation.chain import candidates, fit
from ssl_audio.adaptation.data import Embedded, find_voices
from ssl_audio.adaptation.judging import Judge, judged_collections
from ssl_audio.adaptation.ladder import cohort_calibration
from ssl_audio.cli import main
from ssl_audio.errors import InputError


def error(capsys, *words) -> str:
    """The one line on stderr with which a command fails."""
    capsys.readouterr()
    assert main(["adapt", *map(str, words)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "start"
    save_model(tiny_model(), folder)
    return folder


@pytest.fixture(scope="module")
def collections(tmp_path_factory) -> list[Path]:
    """Two collections of 10 people."""
    folder = tmp_path_factory.mktemp("collections")
    return [write_voices(folder / name, seed=seed) for seed, name in enumerate(("studio", "telephone"))]


@pytest.fixture(scope="module")
def adapted(tmp_path_factory, start, collections) -> Path:
    folder = tmp_path_factory.mktemp("models") / "adapted"
    words = [*map(str, collections), "--from", str(start), "--output", str(folder), "--device", "cpu"]
    assert main(["adapt", *words]) == 0
    return folder


@pytest.fixture(scope="module")
def embedded(tmp_path_factory, start, collections) -> Embedded:
    model = load_model(start)
    return Embedded(find_voices(collections, model), model, tmp_path_factory.mktemp("embedded"))


def test_the_report_and_the_card_say_what_was_tried_and_what_it_was_worth(adapted):
    report = json.loads((adapted / "adaptation.json").read_text())
    assert list(report["tried"]) == list(RUNGS)
    kept = report["kept"]
    assert kept and kept == [[rung, one["setting"]] for rung, one in report["tried"].items() if one["kept"]]
    assert set(report["left_out"]["against_start"]) == {"studio", "telephone", "overall"}
    overall = report["left_out"]["against_start"]["overall"]
    assert overall["difference"] == pytest.approx(overall["eer"] - overall["eer_before"])
    assert overall["interval"][1] < 0 and report["verdict"].startswith("the adapted model is better")
    card = (adapted / "README.md").read_text()
    assert report["verdict"] in card and all(f"### {rung}: " in card for rung in RUNGS)
    assert not (adapted / "adaptation-work").exists()


def test_the_saved_model_gives_the_rows_that_were_judged(adapted, embedded):
    report = json.loads((adapted / "adaptation.json").read_text())
    chain = fit([Step(*step) for step in report["kept"]], embedded, np.arange(len(embedded.voices)))
    model, expected = load_model(adapted), chain.rows(embedded)
    for i in (0, 50):
        np.testing.assert_allclose(model.embed(embedded.voices.paths[i]), expected[i], atol=1e-4)


def test_every_setting_of_every_rung_is_inside_of_its_model(embedded):
    places = np.arange(len(embedded.voices))
    for rung in RUNGS:
        for step in candidates(rung, embedded):
            chain = fit([Step("use", "plain+speech+level"), step], embedded, places)
            clip = torch.from_numpy(audio.read(embedded.voices.paths[3], sample_rate=16000))[None]
            with torch.inference_mode():
                found = chain.model(embedded.start)(clip).numpy()
            np.testing.assert_allclose(found, chain.rows(embedded, np.array([3])), atol=1e-4, err_msg=str(step))


def test_nobody_is_tested_by_what_was_fitted_on_them(embedded):
    judge, voices = Judge(embedded), embedded.voices
    for places, trials in judge.splits:
        seen = set(voices.people[places].tolist())
        for trial in trials.values():
            assert not seen & set(voices.people[trial.pairs].ravel().tolist())
            first, second = trial.pairs.T
            assert np.array_equal(trial.labels, voices.people[first] == voices.people[second])
            assert (voices.takes[first] != voices.takes[second]).all()


def test_a_rung_that_changes_nothing_is_not_kept(collections, start, tmp_path):
    """Steady tones have no silence, so nothing is gained: nothing is saved either."""
    report = adapt(collections[:1], load_model(start), tmp_path / "out", rungs=["use"], say=lambda line: None)
    assert report["kept"] == [] and report["verdict"].startswith("keep what you have")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["adaptation.json"]


@pytest.mark.slow
def test_the_cohort_is_kept_as_facts_for_compare(embedded, tmp_path, capsys):
    steps = [Step("mean", "all"), Step("scores", "as")]
    chain = fit(steps, embedded, np.arange(len(embedded.voices)))
    model = chain.model(embedded.start)
    model.calibration = cohort_calibration(model, chain, embedded, steps, 0)
    save_model(model, tmp_path)
    loaded = load_model(tmp_path)
    np.testing.assert_array_equal(loaded.calibration.cohort, chain.cohort)
    assert loaded.calibration.normalization == "as" and loaded.calibration.facts["people"] == 20
    first, second = map(str, embedded.voices.paths[:2])
    assert main(["compare", first, second, "--model", str(tmp_path), "--device", "cpu"]) == 0
    score = loaded.calibration.scorer()(chain.rows(embedded), np.array([[0, 1]]))[0]
    assert f"score                  {score:.3f}" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_goes_on_after_its_last_finished_rung(collections, start, adapted, tmp_path):
    folder = tmp_path / "out"
    words = [sys.executable, "-m", "ssl_audio.cli", "adapt", *map(str, collections)]
    words += ["--from", str(start), "--output", str(folder), "--device", "cpu"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("mean: "):
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    before = json.loads((folder / "adaptation.json").read_text())
    assert "use" in before["tried"] and "verdict" not in before
    lines: list[str] = []
    report = adapt(collections, load_model(start), folder, say=lines.append)
    assert report == json.loads((adapted / "adaptation.json").read_text())
    assert not any(line.startswith("use: ") for line in lines)
    lines.clear()
    assert adapt(collections, load_model(start), folder, say=lines.append) == report
    assert lines == [f"{folder} holds this adaptation already"]


def test_people_from_a_table_and_others_to_verify_on(collections, start, tmp_path):
    pile = tmp_path / "pile"
    (pile / "all").mkdir(parents=True)
    rows = ["path,speaker"]
    for n, path in enumerate(sorted(collections[0].glob("*/*.wav"))):
        shutil.copy(path, pile / "all" / f"{n}.wav")
        rows.append(f"all/{n}.wav,{path.parent.name}")
    (pile / "people.csv").write_text("\n".join(rows) + "\n")
    model = load_model(start)
    report = adapt([pile], model, tmp_path / "out", groups=str(pile / "people.csv"), rungs=["mean"],
                   verify=[collections[1]], say=lambda line: None)  # fmt: skip
    assert set(report["verify"]["against_start"]) == {"telephone", "overall"}
    report = adapt([pile], model, tmp_path / "none", groups="none", say=lambda line: None)
    assert report["kept"] == [["mean", "all"]] and report["verdict"].startswith("not tested: nobody is known")
    rows_of = np.stack([load_model(tmp_path / "none").embed(path) for path in sorted(pile.glob("all/*.wav"))])
    np.testing.assert_allclose(rows_of.mean(axis=0), 0, atol=1e-5)


def test_bad_input_is_one_line(collections, start, tmp_path, capsys):
    voices, output = collections[0], tmp_path / "out"
    rest = ("--from", start, "--output", output)
    one = tmp_path / "one"
    shutil.copytree(voices / "voice 0-0", one / "somebody")
    assert "all recordings are of one person" in error(capsys, one, *rest)
    single = tmp_path / "single"
    for n in range(5):
        (single / f"{n}").mkdir(parents=True)
        audio.write(single / f"{n}" / "a.wav", tone(1.0, frequency=100 + 50 * n, seed=n), 16000)
    assert "every person has one recording only" in error(capsys, single, *rest)
    shutil.copytree(voices / "voice 0-1", one / "another")
    assert "needs 4 or more of them" in error(capsys, one, *rest)
    shutil.copy(voices / "voice 0-1" / "0.wav", one / "somebody" / "copy.wav")
    assert "hold the same audio under two people" in error(capsys, one, *rest)
    assert "a folder is given twice" in error(capsys, voices, voices, *rest)
    assert "is among the recordings, too" in error(capsys, voices, *rest, "--verify", voices)
    assert "unknown rung 'magic'" in error(capsys, voices, *rest, "--rungs", "magic")
    (single / "0" / "a.wav").write_bytes(b"no audio")
    assert "a.wav: " in error(capsys, single, *rest)
    assert not output.exists()
    output.mkdir()
    (output / "thesis.txt").write_text("mine")
    assert "exists and is not empty" in error(capsys, voices, *rest)


def test_settings_of_another_call_are_refused(collections, start, adapted, capsys):
    assert "holds an adaptation of other settings" in error(
        capsys, collections[0], "--from", start, "--output", adapted
    )


def test_a_model_of_a_table_cannot_be_adapted(collections, tmp_path, capsys):
    table = tmp_path / "table.npz"
    start = tmp_path / "model"
    save_model(tiny_model(), start)
    assert main(["embed", str(collections[0]), "--model", str(start), "--output", str(table), "--device", "cpu"]) == 0
    line = error(capsys, collections[0], "--from", f"table:{table}", "--output", tmp_path / "out")
    assert "cannot be adapted" in line


def test_copies_of_one_person_count_once(collections, start, tmp_path):
    copy = tmp_path / "copies"
    shutil.copytree(collections[0], copy)
    shutil.copy(copy / "voice 0-0" / "0.wav", copy / "voice 0-0" / "9.wav")
    voices = find_voices([copy], load_model(start))
    assert voices.copies == 1 and len(voices) == 40 and judged_collections(voices) == [0]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio files"):
        find_voices([tmp_path / "empty"], load_model(start), "none")
