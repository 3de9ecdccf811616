"""`ssl-audio calibrate`: what it writes, who carries it, what it refuses."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import tiny_model, write_voices

from ssl_audio import load_model, save_model
from ssl_audio.cli import main
from ssl_audio.export import describe_onnx
from ssl_audio.provenance import fingerprint


def error(capsys, *words) -> str:
    """The one line on stderr with which a command fails."""
    assert main([*map(str, words)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_the_file_says_what_it_was_fitted_on_and_how_well_it_does(calibrated):
    table = json.loads((calibrated / "calibration.json").read_text())
    assert table["model"] == fingerprint(load_model(calibrated))
    assert (table["people"], table["people_with_two_recordings"], table["recordings"]) == (10, 10, 40)
    assert table["trials"] == 40 * 39 // 2 and table["level"] == "none"
    for name in ("cllr", "eer"):
        low, high = table[f"{name}_interval"]
        assert low <= table[name] <= high
    assert table["min_cllr"] <= table["cllr"] and len(table["data_sha256"]) == 64
    assert [row["asked"] for row in table["rates"]] == [0.1, 0.05]
    assert {row["seconds"] for row in table["by_length"]} <= {1} and table["by_length"]
    assert "voice 0-3" not in (calibrated / "calibration.json").read_text()


@pytest.mark.slow
def test_the_same_command_gives_the_same_calibration(calibrated, plain_model, voices, tmp_path):
    """In a process of its own, into the model's own folder."""
    model = tmp_path / "model"
    shutil.copytree(plain_model, model)
    command = [sys.executable, "-m", "ssl_audio.cli", "calibrate", "--model", "model", "--data", voices, "--device=cpu"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(
        "model/calibration.json: 10 people (10 with two recordings), 40 recordings, 780 trials"
    )
    assert "asked for 10 % false accepts: " in done.stdout
    assert (model / "calibration.json").read_bytes() == (calibrated / "calibration.json").read_bytes()


def test_a_saved_model_keeps_its_calibration(calibrated, tmp_path):
    model = load_model(calibrated)
    save_model(model, tmp_path / "copy")
    for name in ("calibration.json", "calibration.safetensors"):
        assert (tmp_path / "copy" / name).read_bytes() == (calibrated / name).read_bytes()
    again = load_model(tmp_path / "copy").calibration
    assert np.array_equal(again.refits, model.calibration.refits)
    assert model.with_parts().calibration is None
    model.calibration = None
    save_model(model, tmp_path / "copy")
    assert load_model(tmp_path / "copy").calibration is None and not list((tmp_path / "copy").glob("calibration*"))


def test_the_facts_of_an_export_give_the_same_ratios(calibrated, tmp_path):
    model = load_model(calibrated)
    facts = json.loads(describe_onnx(model, tmp_path / "model.onnx").read_text())["calibration"]
    scores, lengths = np.array([0.99, 0.999]), np.array([[1.0, 2.0], [2.5, 2.5]])
    expected = model.calibration.ratios(scores, lengths)
    s = np.clip(scores, *facts["score_range"])
    inputs = np.zeros((2, 0))
    if facts["uses_length"]:
        logs = np.log(np.clip(lengths, *facts["length_range"]))
        mean = logs.mean(axis=1)
        inputs = np.stack([mean, abs(logs[:, 0] - logs[:, 1]), mean * s], axis=1)[:, : len(facts["weights"])]
    assert facts["scale"] * s + facts["offset"] + inputs @ facts["weights"] == pytest.approx(expected)
    assert len(facts["refits"]) > 100 and len(facts["refits"][0]) == 2 + len(facts["weights"])


def test_the_calibration_of_another_model_is_refused(calibrated, tmp_path, capsys, voices):
    save_model(tiny_model(seed=1), tmp_path)
    for name in ("calibration.json", "calibration.safetensors"):
        shutil.copy(calibrated / name, tmp_path)
    line = error(capsys, "compare", voices, "--model", tmp_path)
    assert "is the calibration of another model" in line and f"ssl-audio calibrate --model {tmp_path}" in line
    assert main(["calibrate", "--model", str(tmp_path), "--data", str(voices), "--device", "cpu"]) == 0
    assert load_model(tmp_path).calibration is not None  # what the message advises helps


def test_a_model_that_has_changed_is_not_saved_with_its_old_calibration(calibrated, tmp_path):
    model = load_model(calibrated)
    with torch.no_grad():
        next(model.encoder.parameters()).add_(1)
    with pytest.raises(ValueError, match="has changed since it was calibrated"):
        save_model(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("damage", ["cut", "arrays gone", "other arrays", "newer"])
def test_a_damaged_calibration_is_one_line(calibrated, tmp_path, damage):
    shutil.copytree(calibrated, tmp_path / "model")
    table, arrays = (tmp_path / "model" / f"calibration.{suffix}" for suffix in ("json", "safetensors"))
    if damage == "cut":
        table.write_text(table.read_text()[:500])
    elif damage == "arrays gone":
        arrays.unlink()
    elif damage == "other arrays":
        arrays.write_bytes(arrays.read_bytes() + b" ")
    else:
        table.write_text(json.dumps({**json.loads(table.read_text()), "format_version": 99}))
    with pytest.raises(ValueError, match=r"damaged|does not belong|has format 99") as refusal:
        load_model(tmp_path / "model")
    assert "\n" not in str(refusal.value)
    assert load_model(tmp_path / "model", calibration=False).calibration is None


def test_it_is_tested_on_other_people_alone(calibrated, plain_model, voices, tmp_path, capsys):
    others = write_voices(tmp_path / "others", people=6, seed=1)
    words = ["calibrate", "--model", plain_model, "--data", voices, "--output", tmp_path / "out", "--device", "cpu"]
    assert main([*map(str, [*words, "--test", others])]) == 0
    assert "6 other people, 276 trials: Cllr" in capsys.readouterr().out
    shutil.copytree(others / "voice 1-2", others / "voice 0-5")
    assert "voice 0-5 was in the calibration" in error(capsys, *words, "--test", others)
    shutil.move(others / "voice 0-5", others / "voice 1-9")
    shutil.copy(voices / "voice 0-5" / "1.wav", others / "voice 1-2" / "copy.wav")
    assert "this audio was in the calibration" in error(capsys, *words, "--test", others)


def test_scores_are_normalised_with_a_cohort_of_third_people(plain_model, voices, tmp_path, capsys):
    cohort = write_voices(tmp_path / "cohort", people=4, seed=2)
    words = ["calibrate", "--model", plain_model, "--data", voices, "--output", tmp_path / "out", "--device", "cpu"]
    words += ["--normalize_scores", "s", "--cohort", cohort]
    assert main([*map(str, words)]) == 0
    calibration = load_model(tmp_path / "out").calibration
    assert calibration.normalization == "s" and calibration.cohort.shape == (16, 16)
    capsys.readouterr()
    shutil.copy(voices / "voice 0-5" / "1.wav", cohort / "voice 2-2" / "copy.wav")
    assert "the cohort must be other recordings" in error(capsys, *words)


def test_bad_data_is_one_line_and_leaves_nothing_behind(plain_model, voices, tmp_path, capsys, write_tone):
    words = ["calibrate", "--model", plain_model, "--output", tmp_path / "out", "--device", "cpu", "--data"]
    one_each = tmp_path / "one each"
    for person in range(6):
        write_tone(one_each / f"p{person}" / "a.wav", frequency=100.0 + person)
    assert "no same-singer trial" in error(capsys, *words, one_each)
    alone = tmp_path / "alone"
    shutil.copytree(voices / "voice 0-1", alone / "voice 0-1")
    assert "only one singer" in error(capsys, *words, alone)
    few = tmp_path / "few"
    for person in range(3):
        shutil.copytree(voices / f"voice 0-{person}", few / f"voice 0-{person}")
    assert "needs at least 5 people" in error(capsys, *words, few)
    twice = tmp_path / "twice"
    shutil.copytree(voices, twice)
    shutil.copy(twice / "voice 0-1" / "0.wav", twice / "voice 0-2" / "9.wav")
    assert "lie under two people" in error(capsys, *words, twice)
    tiny = tmp_path / "tiny"
    for n in range(30):
        write_tone(tiny / f"p{n % 6}" / f"{n}.wav", seconds=0.005, seed=n)
    assert "30 of 30 recordings are shorter than" in error(capsys, *words, tiny)
    apart = tmp_path / "apart"
    for n in range(24):
        write_tone(apart / f"p{n % 6}" / f"{n}.wav", frequency=100.0 * 2 ** (n % 6), seed=n)
    assert "do not overlap" in error(capsys, *words, apart)
    assert "is a file, beside which" in error(
        capsys, "calibrate", "--model", plain_model / "config.yaml", "--data", voices
    )
    assert "give --output FOLDER" in error(capsys, "calibrate", "--model", "byol", "--data", voices)
    assert not (tmp_path / "out").exists()
