"""What a hostile or unlucky user gives `ssl-audio evaluate`: one line that names the thing, before work is lost."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import needed, tiny_model

from ssl_audio.cli import main
from ssl_audio.commands.evaluate import _names
from ssl_audio.errors import InputError
from ssl_audio.evaluation import equal_error_rate, mean_normalized_rank
from ssl_audio.evaluation.projection import project
from ssl_audio.evaluation.ranks import unit_length
from ssl_audio.evaluation.recordings import find_recordings
from ssl_audio.hub.saved import save_model

LIST = "1,s0/a b.wav,s0/1.wav\n0,s0/1.wav,s1/1.wav\n1,s1/a b.wav,s1/1.wav\n0,s2/a b.wav,s1/1.wav\n"


@pytest.fixture(scope="module")
def place(tmp_path_factory, write_tone) -> Path:
    """A set `data` of 3 singers, others that cannot be tested, and models: `untrained`, `diverged`, `collapsed`."""
    root = tmp_path_factory.mktemp("place")
    for s in range(3):
        for k, name in enumerate(("a b", "1")):
            write_tone(
                root / "data" / f"s{s}" / f"{name}.wav", frequency=110.0 * (1 + s) + k, seconds=0.3, seed=2 * s + k
            )
    for name in ("one/s/1.wav", "one/s/2.wav", "lonely/s/1.wav", "lonely/t/1.wav", "flat/1.wav"):
        write_tone(root / name, seconds=0.2)
    (root / "empty").mkdir()
    (root / "file").write_text("not a folder")
    (root / "norun").mkdir()
    (root / "list.txt").write_bytes(("\ufeff" + LIST).replace("\n", "\r\n").encode())
    save_model(tiny_model(8), root / "untrained")
    for name, value in (("diverged", float("nan")), ("collapsed", 0.0)):
        model = tiny_model(8)
        with torch.no_grad():
            for weights in model.encoder.parameters():
                weights.fill_(value)
            list(model.encoder.parameters())[-1].add_(1)
        save_model(model, root / name)
    return root


def evaluate(model, data, output, *more):
    given = ["--model", model, "--data", data, "--output", output, "--draws", 100, "--no_baselines", "--probe", "none"]
    return main(["evaluate", *map(str, [*given, *more])])


def one_line(capsys) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    return line


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("one", "only one singer (s)"),
        ("lonely", "no same-singer trial; at least one singer needs two recordings"),
        ("empty", "no audio files; expected singer/file.wav"),
        ("flat", "outside a singer folder"),
        ("nowhere", "nowhere"),
        ("file", "a folder is needed"),
    ],
)
def test_folders_that_hold_no_test(place, tmp_path, capsys, data, says):
    assert evaluate("no such model", place / data, tmp_path / "r") == 2
    line = one_line(capsys)
    assert says in line and "no such model" not in line and not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (LIST + "1,s0/gone.wav,s0/1.wav\n", "line 5: s0/gone.wav does not exist"),
        ("1,s0/1.wav,s0/1.wav\n0,s0/1.wav,s1/1.wav\n", "add lines with label 1"),
        (LIST + "1,s0/./1.wav,s0/1.wav\n", "line 5: expected singer/file"),
        (LIST.replace(",", " "), "line 1: expected label,singer/file,singer/file"),
        (LIST.replace("/", "\\"), "line 1: expected singer/file"),
        ("0,s0/1.wav,s1/1.wav\n0,s0/1.wav,s2/1.wav\n", "add lines with label 1"),
        ("1,s0/a b.wav,s0/1.wav\n1,s1/a b.wav,s1/1.wav\n", "lines with label 0"),
        ("1,s0/a b.wav,s0/1.wav\n", "only one singer"),
    ],
)
def test_lists_that_are_no_test(place, tmp_path, capsys, text, says):
    (tmp_path / "list.txt").write_text(text)
    assert evaluate("no such model", place / "data", tmp_path / "r", "--trials", tmp_path / "list.txt") == 2
    assert says in one_line(capsys)


def test_a_list_from_another_system_is_read_and_a_model_may_be_named_like_a_baseline(place, tmp_path, capsys):
    (tmp_path / "list.txt").write_text(LIST + "1,s0/1.wav,s0/1.wav\n")
    given = ["--model", place / "untrained", "--data", place / "data", "--trials", tmp_path / "list.txt"]
    flags = ["--output", tmp_path / "r", "--draws", 100, "--probe", "none"]
    assert main(["evaluate", *map(str, [*given, *flags])]) == 0
    models = json.loads((tmp_path / "r" / "metrics.json").read_text())["models"]
    assert list(models) == ["untrained", "untrained (baseline)", "MFCC statistics", "mean mel"]
    assert models["untrained"]["data"]["n_trials"] == 5 and models["untrained (baseline)"]["data"]["baseline"]
    out = capsys.readouterr().out
    assert "Same-singer trials come from only 2 of 3 singers" in out
    assert "1 trial pairs a recording with itself" in out


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("diverged", "weights are not finite (encoder."),
        ("collapsed", "have the same embedding: the model has collapsed"),
        ("norun", "holds no model"),
        ("file", "not a torch weight file"),
    ],
)
def test_models_that_cannot_be_tested(place, tmp_path, capsys, model, says):
    assert evaluate(place / model, place / "data", tmp_path / "r") == 2
    line = one_line(capsys)
    assert says in line and model in line and not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--seed", "-1"], "--seed must not be negative"),
        (["--batch_size", "0"], "--batch_size must be at least 1"),
        (["--runs", "nowhere"], "no such folder of reports"),
        (["--device", "abacus"], "no device 'abacus'"),
        (["--device", "cuda:99"], "no device 'cuda:99'"),
        (["--data", "data"], "two --data folders are named data"),
    ],
)
def test_impossible_arguments(place, tmp_path, capsys, flags, says):
    assert evaluate("no such model", place / "data", tmp_path / "r", *flags) == 2
    assert says in one_line(capsys)


def test_an_output_that_is_a_file_is_refused_and_stays(place, capsys):
    for output in (place / "file", place / "file" / "below"):
        assert evaluate("no such model", place / "data", output) == 2
        assert "is a file; give a folder for the report" in one_line(capsys)
    assert (place / "file").read_text() == "not a folder"


def test_a_table_that_names_missing_files_or_is_no_text_is_one_line(singers):
    (singers / "manifest.csv").write_text("path,gender\nsinger 0/song0.wav,F\nsinger 9/gone.wav,F\n")
    with pytest.raises(InputError, match=r"manifest.csv: names missing files: singer 9/gone.wav"):
        find_recordings(singers)
    (singers / "manifest.csv").rename(singers.parent / "manifest.csv")  # may then tell of other folders beside it
    assert len(find_recordings(singers)) == 20
    (singers.parent / "manifest.csv").write_bytes(b"path,singer\0\n")
    with pytest.raises(InputError, match="is not text"):
        find_recordings(singers)


def test_models_of_one_name_take_what_differs_along(tmp_path):
    runs = [tmp_path / seed / "run" / "0" for seed in ("seed-0", "seed-1")]
    for run in runs:
        run.mkdir(parents=True)
    assert list(_names([str(run) for run in runs])) == ["seed-0-run-0", "seed-1-run-0"]
    assert list(_names(["byol", str(runs[0])])) == ["byol", "run-0"]
    with pytest.raises(InputError, match="given twice"):
        _names([str(runs[0]), os.path.join(runs[0], "..", "0")])


@pytest.mark.slow
def test_a_report_with_a_umap(place, tmp_path):
    """All about UMAP in one test, because its first use in a process compiles for long."""
    needed("umap")
    assert evaluate(place / "untrained", place / "data", tmp_path / "r", "--map", "umap") == 0
    assert "by UMAP" in (tmp_path / "r" / "report.html").read_text()
    assert (tmp_path / "r" / "plots" / "data" / "map.svg").stat().st_size > 1000
    x = np.random.default_rng(0).standard_normal((40, 8))
    x[::2] += 4
    points = project(x, "umap", seed=1)
    assert points.shape == (40, 2) and np.array_equal(points, project(x, "umap", seed=1))
    one, other = points[::2], points[1::2]  # two clouds stay two clouds
    gap = np.linalg.norm(one.mean(axis=0) - other.mean(axis=0))
    assert gap > one.std(axis=0).max() and gap > other.std(axis=0).max()
    smallest = project(x[:3], "umap")  # the smallest set that can be judged
    assert smallest.shape == (3, 2) and np.isfinite(smallest).all()


@pytest.mark.parametrize("scores", [["a", "b"], [1 + 1j, 2], [np.nan, 1], [np.inf, 1], [1, 1], [], [[1, 2]]])
def test_scores_that_are_no_scores(scores):
    with pytest.raises(InputError):
        equal_error_rate([1, 0], scores)


def test_embeddings_and_pairs_that_are_none():
    x, singers = np.eye(4), ["a", "a", "b", "b"]
    for bad in (np.full((4, 4), "a"), np.full((4, 4), np.nan), np.full((4, 4), np.inf), np.zeros((4, 4)), x[0], x[:0]):
        with pytest.raises(InputError):
            mean_normalized_rank(bad, singers)
    for pairs in ([], [[0, 9]], [[-1, 0]], [[0, 2]], [[0.5, 1]], [["a", "b"]]):
        with pytest.raises(InputError):
            mean_normalized_rank(x, singers, pairs)
    for names in ([], ["a"] * 4, ["a"]):
        with pytest.raises(InputError):
            mean_normalized_rank(x, names)
    assert mean_normalized_rank(x, [("a", 1), ("a", 1), "b", "b"]) == mean_normalized_rank(x, singers)


def test_lengths_beyond_the_range_of_squares_do_not_matter():
    x = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    for scale in (1e30, 1e-30):
        assert np.allclose(unit_length(x * np.float32(scale)), unit_length(x), atol=1e-6)
