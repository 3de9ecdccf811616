"""Sweeps: real training processes that fail and go on; what a sweep file may say."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers import needed

from ssl_audio.cli import main
from ssl_audio.errors import InputError
from ssl_audio.evaluation.comparison import TestSet, evaluate_model
from ssl_audio.evaluation.recordings import Recordings
from ssl_audio.evaluation.report.tables import write_metrics
from ssl_audio.evaluation.trials import all_pairs
from ssl_audio.training.config_files import packaged_configs
from ssl_audio.training.sweep import Run, format_table, gather, read_metrics, read_sweep

TINY = {
    "model": {
        "frontend": {"n_fft": 512, "hop_length": 128, "n_mels": 32},
        "encoder": {"class_path": "ssl_audio.encoders.CompactCNN", "init_args": {"channels": [4, 8]}},
    },
    "data": {"sample_rate": 16000, "nr_samples": 6000, "batch_size": 4, "num_workers": 0, "augmentation": None},
    "trainer": {"max_epochs": 2, "accelerator": "cpu"},
}


def write(path: Path, content: dict) -> str:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(path)


def table(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "table.csv", newline="") as file:
        return {row["run"]: row for row in csv.DictReader(file)}


BREAKS = """
import os, pathlib
from pytorch_lightning import Callback

class Breaks(Callback):
    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1 and pathlib.Path(__file__).with_name("storm").exists():
            raise RuntimeError("the power went at GPU " + os.environ["CUDA_VISIBLE_DEVICES"])
"""


def test_a_run_that_broke_is_reported_goes_on_where_it_was_and_ends_in_the_table(
    singers, tmp_path, capsys, monkeypatch
):
    (tmp_path / "breaks.py").write_text(BREAKS)
    (tmp_path / "storm").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    tiny = write(tmp_path / "tiny.yaml", {**TINY, "callbacks": {"breaks": {"class_path": "breaks.Breaks"}}})
    runs = {"cold": {}, "warm": {"model.temperature": 0.5}}
    sweep = write(tmp_path / "sweep.yaml", {"stack": ["common", "contrastive", tiny], "runs": runs})
    output = tmp_path / "out"
    command = ["sweep", sweep, "--output", str(output), "--run", "warm"]
    given = ["--", "--data.dataset_dirs", f"[{singers}]", "--seed_everything", "3"]
    assert main([*command, "--gpus", "7", *given]) == 1
    said = capsys.readouterr().err
    assert "run warm failed: RuntimeError: the power went at GPU 7" in said and str(output / "warm" / "log.txt") in said
    first = table(output)
    assert [row["status"] for row in first.values()] == ["unfinished", "failed"]
    assert first["warm"]["reason"] == "RuntimeError: the power went at GPU 7"
    assert json.loads(first["warm"]["changes"]) == runs["warm"]
    before = read_metrics(output / "warm")["loss/val"]

    (tmp_path / "storm").unlink()
    assert main([*command[:-1], "1", *given]) == 0  # by number
    record = json.loads((output / "warm" / "run.json").read_text())
    assert record["resumed_from"] == str(output / "warm" / "checkpoints" / "last.ckpt") and record["seed"] == 3
    assert yaml.safe_load((output / "warm" / "config.yaml").read_text())["model"]["init_args"]["temperature"] == 0.5
    with open(output / "warm" / "metrics.csv", newline="") as file:
        (after,) = [float(row["loss/val"]) for row in csv.DictReader(file) if row["loss/val"]]  # the second epoch alone
    row = table(output)["warm"]
    assert (row["status"], row["epochs"], row["steps"]) == ("finished", "2", str(record["steps"]))
    assert float(row["loss/val last"]) == after and float(row["loss/val"]) == min(before, after)

    # What is finished is not trained again; a folder keeps the config that it was made with.
    capsys.readouterr()
    assert main([*command, *given]) == 0
    assert "1 of 1 runs are finished already" in capsys.readouterr().out
    assert json.loads((output / "warm" / "run.json").read_text()) == record
    assert main([*command, *given[:-1], "4"]) == 2
    assert "warm was made with another config; remove the folder" in capsys.readouterr().err


def test_the_table_has_the_figures_of_the_report_and_its_baselines(tmp_path):
    rng = np.random.default_rng(0)
    files = [f"singer{s}/{k}.wav" for s in range(6) for k in range(3)]
    recordings = Recordings(Path("choir"), files, [name.split("/")[0] for name in files], files, {})
    test_set = TestSet("choir", recordings, all_pairs(recordings))
    names = {"a": False, "mean mel": True}
    evaluations = [
        evaluate_model(
            name, rng.standard_normal((18, 4)).astype("f4"), test_set, baseline=baseline, resamples=100, probe=None
        )
        for name, baseline in names.items()
    ]
    write_metrics(tmp_path / "metrics.json", evaluations, [], {})
    rows = gather([Run("a", {}, {}), Run("b", {}, {})], tmp_path, {"b": "broke"}, tmp_path / "metrics.json")
    assert [row["status"] for row in rows] == ["unfinished", "failed", "baseline"]
    written = table(tmp_path)
    for evaluation in evaluations:
        figures, row = evaluation.metrics(), written[evaluation.model]
        assert float(row["choir/eer"]) == figures["eer"] and float(row["choir/mnr high"]) == figures["mnr_interval"][1]
    assert written["b"]["reason"] == "broke" and not written["b"]["choir/eer"]


def test_the_packaged_sweep_takes_one_thing_away_at_a_time():
    runs = {run.name: run.config for run in read_sweep("sweeps/wavebyol")}
    assert "sweeps/wavebyol" not in packaged_configs()
    model = {name: config["model"]["init_args"] for name, config in runs.items()}
    layouts = {
        name: model[name]["encoder"]["init_args"]["layout"] for name in ("h1", "h2", "h3", "h4", "h5", "l2", "l3")
    }
    assert all(name == layout for name, layout in layouts.items())
    assert runs["h5"]["data"]["init_args"]["batch_size"] == 32 and model["h4"]["optimizer"]["init_args"]["lr"] == 2e-4

    def transforms(name):
        found = model[name]["augmentation"]["init_args"]["transforms"]
        return [transform["class_path"].rpartition(".")[2] for transform in found]

    whole = transforms("h2")
    assert len(whole) == 5
    removed = {name: set(whole) - set(transforms(name)) for name in runs if len(transforms(name)) == 4}
    assert sorted(gone for (gone,) in removed.values()) == sorted(whole)
    assert all(model[name]["augmentation"]["init_args"]["maximum"] == 4 for name in removed)


def test_a_grid_is_every_combination_and_keys_given_for_all_runs_win(tmp_path):
    grid = {"model.temperature": [0.1, 0.2], "model.optimizer.lr": [1e-5, 1e-3]}
    runs = read_sweep(write(tmp_path / "g.yaml", {"stack": ["common", "contrastive"], "grid": grid}))
    assert [run.name for run in runs] == [f"temperature={t},lr={lr}" for t in (0.1, 0.2) for lr in (1e-5, 1e-3)]
    model = [run.config["model"]["init_args"] for run in runs]
    pairs = [(m["temperature"], m["optimizer"]["init_args"]["lr"]) for m in model]
    assert pairs == [(0.1, 1e-5), (0.1, 1e-3), (0.2, 1e-5), (0.2, 1e-3)]
    fixed = read_sweep(str(tmp_path / "g.yaml"), ["hardware/cpu"], [("model.temperature", "0.7")])
    assert {run.config["model"]["init_args"]["temperature"] for run in fixed} == {0.7}
    assert {run.config["trainer"]["accelerator"] for run in fixed} == {"cpu"}


MISTAKES = [
    ({"runs": {"a": {}}}, "no list 'stack'"),
    ({"stack": ["common"], "rnus": {}}, "rnus is not a key of a sweep"),
    ({"stack": ["common", "contrastive"]}, "nothing to run"),
    ({"stack": ["common", "contrastive"], "runs": {"../x": {}}}, "cannot have a folder"),
    ({"stack": ["common", "contrastive"], "runs": ["a"]}, "runs is"),
    ({"stack": ["common", "contrastive"], "grid": {"model.temperature": 0.1}}, "grid is"),
    (
        {"stack": ["common", "contrastive"], "runs": {"a": {"model.temprature": 1}}},
        "run a: .*did you mean 'temperature'",
    ),
    (
        {"stack": ["common", "wavebyol"], "runs": {"a": {"model.augmentation.transforms": {"without": ["Reverbb"]}}}},
        "run a: model.augmentation.transforms: 'Reverbb' is not in the list; did you mean 'Reverb'",
    ),
]


@pytest.mark.parametrize(("content", "reason"), MISTAKES)
def test_a_mistake_in_a_sweep_is_named_before_anything_is_trained(content, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        read_sweep(write(tmp_path / "s.yaml", content))


def test_figures_of_an_interrupted_and_continued_run_are_joined(tmp_path):
    (tmp_path / "metrics.1.csv").write_text("epoch,step,loss/val,eer/val\n0,9,1.0,.3\n1,19,.5,.2\n")
    (tmp_path / "metrics.csv").write_text("epoch,step,loss/val,eer/val,lr\n2,29,.8,.1,1\n3,39,,,1\n")
    figures = read_metrics(tmp_path)
    assert figures == {"loss/val": 0.5, "eer/val": 0.2, "loss/val last": 0.8, "eer/val last": 0.1}
    text = format_table([{"run": "a", "status": "finished", **figures}, {"run": "longer", "status": "failed"}])
    assert text.splitlines()[0].split() == ["run", "status", "loss/val", "eer/val"]


def test_the_table_of_runs_without_validation_shows_their_training_loss(tmp_path):
    (tmp_path / "metrics.csv").write_text("epoch,step,loss/train_epoch\n0,9,1.0\n1,19,.25\n")
    figures = read_metrics(tmp_path)
    assert figures == {"loss/train_epoch last": 0.25}
    assert format_table([{"run": "a", **figures}]).split() == ["run", "loss/train_epoch", "last", "a", "0.25"]


@pytest.mark.slow
def test_runs_travel_to_the_workers_of_a_dask_cluster(tmp_path, capsys):
    distributed = needed("distributed")
    sweep = two_runs(tmp_path)
    with distributed.LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster:
        command = ["sweep", sweep, "--output", str(tmp_path / "out"), "--scheduler", cluster.scheduler_address]
        assert main([*command, "--", "--data.dataset_dirs", "[/no/such/folder]"]) == 1
    said = capsys.readouterr().err
    assert "run a failed: error: /no/such/folder" in said and "run b failed" in said


def test_without_dask_or_its_scheduler_one_line_says_what_to_do(tmp_path, capsys, monkeypatch):
    needed("distributed")
    command = ["sweep", two_runs(tmp_path), "--output", str(tmp_path / "out"), "--scheduler"]
    rest = ["--", "--data.dataset_dirs", "[/no/such/folder]"]
    assert main([*command, "not an address", *rest]) == 2
    assert "no Dask scheduler answers" in capsys.readouterr().err.splitlines()[-1]
    monkeypatch.setitem(sys.modules, "distributed", None)  # as Python marks what cannot be imported
    assert main([*command, "localhost:8786", *rest]) == 2
    assert "[dask]'" in capsys.readouterr().err.splitlines()[-1]


def two_runs(folder: Path) -> str:
    """A sweep file of two runs, a and b."""
    stack = ["common", "contrastive", write(folder / "tiny.yaml", TINY)]
    return write(folder / "s.yaml", {"stack": stack, "runs": {"a": {}, "b": {}}})
