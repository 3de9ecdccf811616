"""`ssl-audio distil` end to end on a tiny teacher, and what it keeps of it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import needed, tiny_model, write_voices
from sklearn.neighbors import NearestNeighbors

from ssl_audio import load_model
from ssl_audio.cli import main
from ssl_audio.commands.distil import licence_warning
from ssl_audio.evaluation.distillation import compare_with_teacher, neighbour_overlap
from ssl_audio.export import open_session
from ssl_audio.hub import save_model
from ssl_audio.hub.card import model_card

TINY = """
model: {init_args: {encoder: {init_args: {channels: [4, 8], embedding_dim: 12}}}}
data: {init_args: {num_workers: 0, batch_size: 16}}
trainer: {accelerator: cpu, enable_progress_bar: false}
"""


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    model = tiny_model(16)
    save_model(model, tmp_path / "teacher", model_card(model, "teacher", licence="cc-by-nc-nd-4.0"))
    return tmp_path / "teacher"


def distil(recordings: Path, teacher: Path, output: Path, *more: str) -> int:
    student = output.parent / "tiny.yaml"
    student.write_text(TINY)
    words = ["distil", recordings, "--teacher", teacher, "--student", student, "--output", output]
    return main([str(word) for word in [*words, "--minutes", "0.04", "--window", "0.6", *more]])


@pytest.mark.slow
def test_a_student_is_taught_tested_exported_and_described(teacher, tmp_path, capsys) -> None:
    needed("onnxruntime")
    voices, output = write_voices(tmp_path / "voices"), tmp_path / "small"
    assert distil(voices, teacher, output) == 0
    printed = capsys.readouterr().out
    rows = {row["model"]: row for row in json.loads((output / "results.json").read_text())}
    assert list(rows) == ["teacher", "student", "student int8"]
    for name, row in rows.items():
        assert 0 <= row["eer"] <= 1 and row["times_real_time"] > 0 and f"| {name} |" in printed
    for name in ("student", "student int8"):
        low, high = rows[name]["overlap_interval"]
        assert low <= rows[name]["overlap"] <= high
        difference, (low, high) = rows[name]["differences"]["eer"]
        assert difference == pytest.approx(rows[name]["eer"] - rows["teacher"]["eer"]) and low <= high
    student = load_model(output / "student")
    clip = 0.1 * torch.randn(1, 16000)
    for file in ("model.onnx", "model.int8.onnx"):
        facts = json.loads((output / "student" / file).with_suffix(".json").read_text())
        assert (facts["sample_rate"], facts["dim"]) == (16000, 12)
        (embedding,) = open_session(output / "student" / file).run(None, {"audio": clip.numpy()})
        cosine = torch.cosine_similarity(torch.from_numpy(embedding), student(clip)).item()
        assert cosine > (0.9 if "int8" in file else 0.9999)
    card = (output / "student" / "README.md").read_text()
    assert all(part in card for part in (str(teacher), "cc-by-nc-nd-4.0", "forbids derivatives", "| student int8 |"))
    assert "warning: the teacher's licence" in printed
    people = {line.split(",")[1].split("/")[0] for line in (output / "trials.txt").read_text().splitlines()}
    assert len(people) == 2  # a fifth of ten

    assert distil(voices, teacher, output, "--hop", "0.5") == 2
    assert "was written with other hop_seconds; give the same" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["nowhere"], "nowhere: no such folder of recordings"),
        ([".", "--student", "compct"], "--student compct is neither known nor a .yaml file; did you mean 'compact'?"),
        ([".", "--minutes", "0"], "--minutes must be above 0, not 0.0"),
    ],
)
def test_what_cannot_work_is_one_line(words, message, tmp_path, capsys) -> None:
    assert main(["distil", *words, "--teacher", "byol", "--output", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_too_little_to_hold_out_is_said_before_training(teacher, tmp_path, capsys) -> None:
    voices = write_voices(tmp_path / "voices", people=3, files=2, seconds=0.7)
    assert distil(voices, teacher, tmp_path / "small") == 2
    assert "2 recordings of 1 groups are held out, too few to test on" in capsys.readouterr().err
    assert not (tmp_path / "small" / "runs").exists()
    assert (tmp_path / "small" / "teacher.parquet").exists()


def test_shared_neighbours_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    first = rng.normal(size=(40, 6))
    second = first + 0.8 * rng.normal(size=first.shape)
    nearest = []
    for x in (first, second):
        found = NearestNeighbors(metric="cosine").fit(x).kneighbors(n_neighbors=10, return_distance=False)
        nearest.append([set(row) for row in found])
    expected = [len(a & b) / 10 for a, b in zip(*nearest, strict=True)]
    np.testing.assert_allclose(neighbour_overlap(first, second, 10), expected)
    teacher, student = compare_with_teacher({"teacher": first, "student": second}, None)
    assert teacher.overlap is None and student.overlap == pytest.approx(np.mean(expected))
    assert student.verification is None and student.differences == {}
    low, high = student.overlap_interval
    assert low < student.overlap < high < low + 0.2


@pytest.mark.parametrize("licence, warned", [("CC-BY-ND-4.0", True), ("apache-2.0", False), ("unknown", False)])
def test_only_a_licence_that_forbids_derivatives_warns(licence, warned) -> None:
    assert bool(licence_warning(licence)) == warned
