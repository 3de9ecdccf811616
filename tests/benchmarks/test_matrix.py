"""The matrix of methods, encoders, data and augmentations: a covering sample of what a person can run whole."""

import csv
from pathlib import Path

import pytest

from benchmarks.matrix import DATA, Cell, cells, covering, explained, main, overrides, results
from ssl_audio.training.config import load_config


def test_a_sample_covers_every_file_and_order():
    everything = cells()
    sample = covering(everything, 60)
    for position in range(len(Cell._fields)):
        assert {cell[position] for cell in sample} == {cell[position] for cell in everything}
    assert covering(everything, 60) == sample


def test_every_stack_of_a_covering_sample_has_keys_that_exist():
    for cell in covering(cells(), 60, seed=1):
        config = load_config(cell.stack, [*overrides(cell, Path("nowhere")).items()])
        method = load_config(["common", cell.method])
        assert config["model"]["class_path"] == method["model"]["class_path"]
        assert config["data"]["init_args"].get("labels", False) == (cell.method == "supervised")
        assert config["data"]["init_args"]["sample_rate"] == method["data"]["init_args"]["sample_rate"]


@pytest.mark.slow
def test_cells_train_or_are_refused_for_a_documented_reason_and_only_once(tmp_path, monkeypatch):
    order = "method encoder data chain"
    chosen = [
        Cell("supervised", "encoder/sinc_net", "data/musicnet-windows", "augmentation/clip", order),
        Cell("cpc", "encoder/compact_cnn", "data/shards", "augmentation/wav2rec", "data method chain encoder"),
        Cell("clmr", "encoder/cpc", "data/windows", "augmentation/byol_a", order),
    ]
    found = [outcome for _, outcome in results(chosen, tmp_path / "matrix.csv")]
    assert [outcome.outcome for outcome in found] == ["works", "works", "refused"], found
    assert found[2].reason == "spectrogram augmentation of samples"
    monkeypatch.setattr("benchmarks.matrix.attempt", None)  # a second run has nothing to do
    assert [outcome for _, outcome in results(chosen, tmp_path / "matrix.csv")] == found
    with open(tmp_path / "matrix.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 3


def test_a_line_that_no_page_explains_is_no_refusal():
    assert explained("error: something else") == ""
    assert "data/folder" in DATA and callable(main)
