import argparse
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from helpers import REPOSITORY, tiny_frontend, tiny_model

from ssl_audio import audio
from ssl_audio.baselines import mean_mel, mfcc_statistics, untrained
from ssl_audio.cli import main
from ssl_audio.commands.eval import add_row, model_name
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.evaluation import equal_error_rate, mean_normalized_rank
from ssl_audio.evaluation.recordings import find_recordings
from ssl_audio.evaluation.trials import all_pairs
from ssl_audio.hub import load_model
from ssl_audio.hub.saved import save_model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    """A small network with random weights, saved as models are."""
    folder = tmp_path_factory.mktemp("models") / "small"
    save_model(tiny_model(frontend=tiny_frontend(normalize="band")).with_parts(level="peak"), folder)
    return folder


@pytest.fixture
def data(tmp_path, singers, write_tone) -> Path:
    """Root with a data set of 5 singers, clips of several lengths and rates, and its trial list beside it."""
    write_tone(singers / "singer 0" / "long.wav", seconds=1.7, sample_rate=22050, seed=5)
    write_tone(singers / "singer 1" / "short, low.flac", seconds=0.6, sample_rate=8000, seed=6)
    all_pairs(find_recordings(singers)).write(tmp_path / "meta" / singers.name / "speaker_pairs.txt")
    return singers.parent


def evaluate(data, model_folder, *more):
    meta = data / "meta"
    return main(
        ["eval", "-r", str(data), "-d", "singers", "-m", str(model_folder), "-meta", str(meta), *map(str, more)]
    )


def test_figures_are_those_of_the_definitions(data, model_folder, capsys):
    assert evaluate(data, model_folder, "-s", 7, "-f", "True", "-cr", "True", "-ce", "-bs", 8, "--draws", 50) == 0
    trials = all_pairs(find_recordings(data / "singers"))
    model = load_model(model_folder)
    clips = [audio.read(data / "singers" / name, 16000) for name in trials.files]
    x = np.stack([model.embed(clip) for clip in clips])
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    scores = [x[a] @ x[b] for a, b in trials.pairs]
    eer = equal_error_rate(trials.labels, np.array(scores))[0]
    mnr = mean_normalized_rank(x, trials.singers, trials.pairs[trials.labels])
    meta = data / "meta"
    record = json.loads((meta / "small_7.json").read_text())
    (result,) = record["results"]
    assert result["eer"] == pytest.approx(eer, abs=1e-3) and result["mnr"] == pytest.approx(mnr, abs=2e-3)
    low, high = result["eer_interval"]
    assert low <= high and result["n_trials"] == len(trials) and result["n_singers"] == 5
    assert record["trials"]["singers"]["sha256"] == trials.digest() and record["settings"]["seed"] == 7
    assert (
        record["models"]["features"]["config"]["class_path"].endswith("EmbeddingModel") and record["versions"]["torch"]
    )
    table = pd.read_csv(meta / "eer_7.csv", index_col=0)
    assert table.loc["small", "singers"] == pytest.approx(100 * eer, abs=0.1)
    assert pd.read_csv(meta / "rank_7.csv", index_col=0).loc["small", "singers"] == pytest.approx(100 * mnr, abs=0.2)
    written = pd.read_csv(meta / "singers" / "small" / "scores_features.csv")
    assert np.allclose(written["score"], scores, atol=1e-3) and written["label"].sum() == trials.labels.sum()
    assert "small" in capsys.readouterr().out


def test_the_door_runs_and_degradations_are_rows_of_their_own(data, model_folder):
    base = [sys.executable, "eval.py", "-r", data, "-d", "singers", "-m", model_folder, "-meta", data / "meta"]
    subprocess.run([*base, "--draws", "0", "-rv", "True", "-du"], cwd=REPOSITORY, check=True)
    assert evaluate(data, model_folder, "--draws", 0) == 0
    table = pd.read_csv(data / "meta" / "eer_123.csv", index_col=0)
    assert sorted(table.index) == ["small", "small_16khz_reverb"]
    assert not (data / "meta" / "rank_123.csv").exists()


def test_files_that_are_gone_stop_it_before_a_model_is_loaded(data, capsys):
    (data / "singers" / "singer 1" / "song2.wav").unlink()
    assert evaluate(data, data / "no such model") == 2
    message = capsys.readouterr().err
    assert "line " in message and "singer 1/song2.wav does not exist" in message and "no such model" not in message


@pytest.mark.parametrize(
    ("flags", "says"),
    [(["-f", "False"], "nothing to score"), (["-ce", "False"], "nothing to compute"), (["-bs", "0"], "batch_size"),
     (["-cr", "--rank_protocol", "paper"], "exact"), (["-p"], "projection")],
)  # fmt: skip
def test_impossible_settings_are_one_line(data, model_folder, capsys, flags, says):
    assert evaluate(data, model_folder, "--draws", 0, *flags) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert says in line


def test_models_of_one_name_in_two_folders_keep_their_results(data, model_folder, tmp_path, capsys):
    for folder in "ab":
        shutil.copytree(model_folder, tmp_path / folder / "final")
    for folder in "abab":
        assert evaluate(data, tmp_path / folder / "final", "-ce", "-s", 1, "--draws", 0) == 0
    names = [line.split(",")[0] for line in (data / "meta" / "eer_1.csv").read_text().splitlines()]
    assert names == ["model", "final", "b-final"]
    assert {path.name for path in (data / "meta").glob("*_1.json")} == {"final_1.json", "b-final_1.json"}
    assert (data / "meta" / "singers" / "b-final" / "scores_features.csv").is_file()


def test_a_row_is_added_and_everything_else_stays(tmp_path):
    path = tmp_path / "eer_1.csv"
    path.write_text(",vocalset\nbyol,7.5\n")  # as pandas wrote it
    add_row(path, "mine", {"m4singer": 3.25})
    add_row(path, "byol", {"m4singer": 4})
    assert path.read_text() == ",vocalset,m4singer\nbyol,7.5,4\nmine,,3.25\n"


def test_reverb_and_round_trip_change_a_clip_alone_and_repeatably():
    inner = mean_mel(44100)
    inner.level = "none"
    clips = torch.randn(3, 30000, generator=torch.Generator().manual_seed(0))
    for options in ({"reverb_seed": 1}, {"round_trip": True}):
        model = EvalProtocol(inner, **options)
        together = model(clips)
        assert torch.allclose(together[1], model(clips[1:2])[0], atol=1e-4)
        assert torch.equal(together, model(clips))
        assert not torch.allclose(together, EvalProtocol(inner)(clips), atol=1e-2)
    narrow = EvalProtocol(inner, round_trip=True)(clips)[0]
    wide = EvalProtocol(inner)(clips)[0]
    assert torch.allclose(narrow[:60], wide[:60], atol=0.2)  # the lower bands stay
    assert (narrow[-15:] < wide[-15:] - 3).all()  # above 8 kHz nothing is left
    assert not torch.equal(EvalProtocol(inner, reverb_seed=1)(clips), EvalProtocol(inner, reverb_seed=2)(clips))


def test_volume_does_not_matter_in_a_test():
    model = EvalProtocol(mean_mel())
    clip = torch.randn(1, 8000)
    assert torch.allclose(model(clip), model(0.01 * clip), atol=1e-3)


def test_mfcc_statistics_are_those_of_scipy(write_tone, tmp_path):
    from scipy.fft import dct

    clip = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1))
    model = mfcc_statistics()
    mel = model.frontend(clip)[0].numpy()
    mfcc = dct(mel, axis=0, norm="ortho")[:20]
    assert np.allclose(model(clip)[0].numpy(), np.r_[mfcc.mean(1), mfcc.std(1)], atol=1e-3)
    paths = [write_tone(tmp_path / f"{i}.wav", frequency=100.0 * (i + 1), seed=i) for i in range(4)]
    x = embed_recordings(EvalProtocol(model), paths, progress=None)
    assert np.allclose(x.mean(0), 0, atol=1e-4) and np.allclose(x.std(0), 1, atol=1e-3)


def test_an_untrained_twin_is_drawn_from_its_seed(model_folder):
    model = load_model(model_folder)
    state = torch.random.get_rng_state()
    first, again, other = untrained(model, 1), untrained(model, 1), untrained(model, 2)
    assert torch.equal(state, torch.random.get_rng_state())
    clip = torch.randn(1, 8000)
    assert torch.equal(first(clip), again(clip)) and not torch.equal(first(clip), other(clip))
    assert not torch.equal(first(clip), model(clip)) and first.dim == model.dim


def test_numbered_runs_of_two_methods_are_two_rows(tmp_path, monkeypatch):
    (tmp_path / "runs" / "byol" / "0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "runs" / "byol")
    names = {
        "runs/contrastive/0": "contrastive-0",
        "runs/byol/0/": "byol-0",
        "0": "byol-0",
        ".": "byol",
        "runs/byol/0/checkpoints/last.ckpt": "byol-0-last",
        "models/mine": "mine",
        "byol": "byol",
    }
    assert {given: model_name(given) for given in names} == names


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("-s", "-5"), "--seed must not be negative, got -5"),
        (("--draws", "-1"), "--resamples must not be negative, got -1"),
        (("--device", "gpu9"), "there is no device 'gpu9' here; give cpu, or leave it out to choose one"),
    ],
)
def test_an_impossible_argument_is_refused_before_anything_is_read(arguments, message, capsys):
    assert main(["eval", "-d", "nowhere", "-m", "nothing", *arguments]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.parametrize("command", ["eval", "evaluate", "probe"])
def test_the_name_of_0_1_of_resamples_is_accepted_and_not_printed(command):
    parser = argparse.ArgumentParser()
    import_module(f"ssl_audio.commands.{command}").add_arguments(parser)
    needed = ["--model", "m", "--data", "d", "--output", "o", "--corpus", "c", "--root", "r"]
    old, new = (parser.parse_known_args([*needed, option, "77"])[0].draws for option in ("--draws", "--resamples"))
    assert old == new == 77 and parser.parse_known_args(needed)[0].draws > 100
    assert "--resamples" in parser.format_help() and "--draws" not in parser.format_help()
