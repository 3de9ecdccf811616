"""`ssl-audio compare` and `compare`: figures, decisions, warnings, with a calibration and without."""

import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from helpers import tone

import ssl_audio
from ssl_audio import audio, load_model
from ssl_audio.cli import main
from ssl_audio.decisions.clips import inspect, inspect_files, same_audio
from ssl_audio.decisions.rule import Rule
from ssl_audio.errors import InputError
from ssl_audio.evaluation.scoring import score_trials


@pytest.fixture(scope="module")
def model(calibrated):
    return load_model(calibrated)


@pytest.fixture
def two(tmp_path, write_tone):
    """Two recordings that no calibration has heard."""
    return [write_tone(tmp_path / f"{n}.wav", frequency=200.0 + 40 * n, seed=n) for n in (1, 2)]


def test_all_figures_follow_from_score_prior_and_calibration(model, two):
    found = ssl_audio.compare(*two, model, prior=0.2)
    a, b = (model.embed(path) for path in two)
    assert found.score == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    calibration = model.calibration
    assert found.llr == pytest.approx(calibration.ratios([found.score], [[1.0, 1.0]])[0])
    odds = 0.2 / 0.8 * np.exp(found.llr)
    assert found.probability == pytest.approx(odds / (1 + odds))
    assert found.same == (found.probability >= 0.5)
    low, high = found.probability_interval
    assert low <= found.probability <= high
    assert found.false_accept == pytest.approx(calibration.false_accept_rates([found.score], [[1.0, 1.0]])[0])


def test_the_order_of_the_two_does_not_matter(model, two):
    forth, back = ssl_audio.compare(*two, model), ssl_audio.compare(*two[::-1], model)
    assert (forth.score, forth.llr, forth.same) == pytest.approx((back.score, back.llr, back.same))


def test_arrays_are_compared_as_files_are(model, two):
    arrays = [audio.read(path) for path in two]
    by_path, by_array = ssl_audio.compare(*two, model), ssl_audio.compare(*arrays, model)
    assert by_array.llr == pytest.approx(by_path.llr, abs=1e-4)
    assert (by_array.a, by_array.b) == ("clip 1", "clip 2")


@pytest.mark.parametrize("prior, cost_miss, cost_false_accept", [(0.5, 1, 1), (0.01, 1, 1), (0.3, 10, 1), (0.5, 1, 99)])
def test_the_threshold_makes_the_expected_cost_least(prior, cost_miss, cost_false_accept):
    """Against the two costs at the ratio itself: of saying no, and of saying yes."""
    rule = Rule(prior, None, cost_miss, cost_false_accept)
    for ratio in (rule.threshold - 1e-6, rule.threshold + 1e-6):
        p = prior * np.exp(ratio) / (prior * np.exp(ratio) + 1 - prior)
        assert rule.probability([ratio])[0] == pytest.approx(p)
        assert (p * cost_miss > (1 - p) * cost_false_accept) == (ratio > rule.threshold)


@pytest.mark.parametrize("wrong", [{"prior": 0}, {"prior": 1}, {"false_accept": 0}, {"cost_miss": -1}])
def test_impossible_rules_are_refused(wrong):
    with pytest.raises(InputError):
        Rule(**wrong)


def test_a_wished_rate_of_false_accepts_decides(model, two):
    found = ssl_audio.compare(*two, model)
    assert ssl_audio.compare(*two, model, false_accept=0.5).same == (found.false_accept <= 0.5)
    with pytest.raises(InputError, match="needs about 10,000,000 trials of different people"):
        ssl_audio.compare("not", "read", model, false_accept=1e-6)


def test_without_a_calibration_there_is_a_score_and_the_way_to_get_one(plain_model, two, capsys):
    found = ssl_audio.compare(*two, load_model(plain_model))
    assert found.llr is found.probability is found.same is found.llr_interval is None
    assert main(["compare", *map(str, two), "--model", str(plain_model), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"{found.score:.3f}" in out and "ssl-audio calibrate --model" in out and "decision  " not in out


def test_each_warning_has_its_cause(model, two, tmp_path):
    x = audio.read(two[0])

    def warnings(samples, rate=16000, name="odd.wav"):
        soundfile.write(tmp_path / name, samples, rate)
        return ssl_audio.compare(two[1], tmp_path / name, model).warnings

    assert any("odd.wav is short: 0.40 s (the calibration saw 1 s" in w for w in warnings(x[:6400]))
    assert any("odd.wav is nearly silent: -6" in w for w in warnings(x * 2e-3))
    assert any("odd.wav is clipped" in w for w in warnings(np.clip(4 * x, -0.9, 0.9)))
    assert any("lies outside of" in w for w in warnings(np.random.default_rng(0).standard_normal(16000) * 0.1))
    steady = ssl_audio.compare(*two, model).warnings
    assert not any(word in w for w in steady for word in ("short", "silent", "clipped", "same audio"))


def test_one_recording_in_two_formats_and_levels_is_one_piece_of_audio(tmp_path):
    swell = np.sin(np.linspace(0, 9, 32000)) ** 2 * tone(2.0)
    soundfile.write(tmp_path / "a.wav", swell, 16000)
    soundfile.write(tmp_path / "b.ogg", 0.5 * audio.resample(swell.astype(np.float32), 16000, 24000), 24000)
    soundfile.write(tmp_path / "c.wav", np.cos(np.linspace(0, 9, 32000)) ** 2 * tone(2.0, frequency=220), 16000)
    a, b, c = inspect_files([tmp_path / name for name in ("a.wav", "b.ogg", "c.wav")])
    assert same_audio(a, b) and same_audio(a, a) and not same_audio(a, c)


@pytest.mark.parametrize("frequency", [50.0, 220.0, 2000.0])
def test_a_pure_tone_is_not_clipped(frequency):
    samples = 0.9 * np.sin(2 * np.pi * frequency * np.arange(44100) / 44100)
    assert not inspect(np.round(samples * 32767) / 32768, 44100).clipped
    assert inspect(np.clip(samples, -0.7, 0.7), 44100).clipped


def test_real_recordings_of_one_person_are_no_copies_and_are_not_clipped(shared):
    paths = sorted((shared / "data" / "voices_dev" / "audiomnist_az" / "03").glob("*.flac"))
    clips = inspect_files(paths)
    assert not any(same_audio(a, b) for i, a in enumerate(clips) for b in clips[:i])
    assert sum(clip.clipped for clip in clips) == 0


@pytest.mark.slow
def test_pairs_are_those_that_were_asked_for(calibrated, voices, tmp_path, capsys):
    """In a process of its own: one against a folder, all with all, a list; CSV and JSON hold the same."""
    options = ["--model", str(calibrated), "--device", "cpu"]
    one = voices / "voice 0-1" / "0.wav"
    command = [
        sys.executable,
        "-m",
        "ssl_audio.cli",
        "compare",
        one,
        one.parent,
        *options,
        "--json",
        "--csv",
        "out.csv",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [row["a"] for row in rows] == [str(one)] * 3 and str(one) not in [row["b"] for row in rows]
    assert set(rows[0]) >= {"score", "llr", "probability", "same", "warnings"}
    table = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert [float(row["llr"]) for row in table] == [row["llr"] for row in rows]
    model = load_model(calibrated)
    values = np.stack([model.embed(row) for row in (rows[0]["a"], rows[0]["b"])])
    assert rows[0]["score"] == pytest.approx(float(score_trials(values, np.array([[0, 1]]))[0]), abs=1e-5)

    assert main(["compare", str(one.parent), *options]) == 0
    assert capsys.readouterr().out.count("/1.wav") >= 3
    (voices.parent / "pairs.csv").write_text(f'"{voices.name}/voice 0-1/0.wav",{voices.name}/voice 0-2/0.wav\n')
    assert main(["compare", "--pairs", str(voices.parent / "pairs.csv"), *options, "--false_accept", ".2"]) == 0
    out = capsys.readouterr().out
    assert "at 20 % false accepts" in out and "is a recording of the calibration" in out


def test_what_cannot_be_read_is_named_and_the_rest_is_compared(calibrated, two, tmp_path, capsys):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    soundfile.write(tmp_path / "speck.wav", tone(0.002), 16000)
    options = ["--model", str(calibrated), "--device", "cpu"]
    assert main(["compare", str(tmp_path), *options]) == 3
    out, err = capsys.readouterr()
    assert "1.wav" in out and len(err.strip().splitlines()) == 2
    assert main(["compare", str(two[0]), str(tmp_path / "broken.wav"), *options]) == 2
    assert main(["compare", str(two[0]), *options]) == 2
    (tmp_path / "pairs.csv").write_text("1,a.wav,b.wav\n")
    assert main(["compare", "--pairs", str(tmp_path / "pairs.csv"), *options]) == 2
    assert "line 1: expected first,second" in capsys.readouterr().err
