"""Real training runs, small: resumed exactly, saved completely, and any method with any encoder."""

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import REPOSITORY

from ssl_audio import load_model
from ssl_audio.cli import run_command
from ssl_audio.errors import InputError
from ssl_audio.training.checkpoints import AtomicCheckpointIO

METHODS = ["byol", "contrastive", "contrastive-vc", "uniformity-alignment", "vicreg"]
COMPACT = {"class_path": "ssl_audio.encoders.CompactCNN", "init_args": {"channels": [4, 8], "embedding_dim": 16}}
ENCODERS = {
    "compact-cnn": {"encoder": COMPACT},
    "efficientnet-b0": {"encoder": {"init_args": {"embedding_dim": 16}}},
    "sample-cnn": {
        "encoder": {"class_path": "ssl_audio.encoders.SampleCNN", "init_args": {"channels": [8, 8, 8, 8]}},
        "frontend": {"class_path": "ssl_audio.frontends.Waveform"},
    },
}


@pytest.fixture
def train(singers, tmp_path):
    """`train(*configs, model=..., **sections)` runs `train.py` on tiny clips; returns the run folder."""
    runs = tmp_path / "runs"

    def run(*configs: str, model: dict | None = None, arguments: tuple[str, ...] = (), **sections) -> Path:
        tiny = {
            "model": {
                "init_args": {
                    "frontend": {"init_args": {"n_fft": 512, "hop_length": 128, "n_mels": 32}},
                    **({} if "moco" in configs else {"projection": {"init_args": {"dim": 16}}}),
                    **({"predictor": {"init_args": {"dims": [32, 16]}}} if "byol" in configs else {}),
                }
            },
            "data": {"init_args": {"dataset_dirs": [str(singers)], "sample_rate": 16000, "nr_samples": 6000}},
            "trainer": {"max_epochs": 2, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"},
        }
        tiny["data"]["init_args"] |= {"batch_size": 4, "num_workers": 0, "augmentation": None}
        tiny["trainer"]["logger"] = {"init_args": {"save_dir": str(runs)}}
        files = [write(tmp_path / "tiny.yaml", tiny)]
        if model:
            files.append(write(tmp_path / "model.yaml", {"model": {"init_args": model}}))
        if sections:
            files.append(write(tmp_path / "sections.yaml", sections))
        before = set(runs.glob("*/*"))
        stack = [word for name in ("common", *configs, *files) for word in ("--config", name)]
        assert run_command("train", [*stack, *arguments]) == 0
        (folder,) = set(runs.glob("*/*")) - before
        return folder

    return run


def write(path: Path, content: dict) -> str:
    path.write_text(yaml.safe_dump(content))
    return str(path)


def weights(checkpoint: Path) -> dict:
    return torch.load(checkpoint, weights_only=True)["state_dict"]


OWN = {
    "byol": {},
    "dino": {
        "projection": {"init_args": {"dim": 24, "hidden": [16], "bottleneck_dim": 8}},
        "weight_decay_end": 0.1,
        "teacher_temperature": 0.07,
        "warmup_teacher_epochs": 3,
    },
    "moco": {"queue_size": 10, "projection": {"init_args": {"dims": [16, 8]}}},
}


@pytest.mark.slow
@pytest.mark.parametrize("method", OWN)
def test_interrupted_in_the_middle_of_an_epoch_and_resumed_equals_uninterrupted_to_the_bit(train, method):
    """With dropout, a schedule, clip augmentation, two lengths of crops: everything that a checkpoint could forget."""
    clip_chain = {
        "class_path": "ssl_audio.augmentations.clip.GaussianNoise",
        "init_args": {"min_amplitude": 0.001, "max_amplitude": 0.05, "p": 0.5},
    }
    settings = {
        "model": {
            "encoder": {**COMPACT, "init_args": {**COMPACT["init_args"], "dropout": 0.3}},
            "lr_scheduler": {"init_args": {"warmup": 1, "total": None}},
            **OWN[method],
        },
        "trainer": {"max_epochs": 3},
        "data": {"augmentation": clip_chain},
        "callbacks": {
            "steps": {
                "class_path": "pytorch_lightning.callbacks.ModelCheckpoint",
                "init_args": {"filename": "at-{step}", "every_n_train_steps": 1, "save_top_k": -1},
            }
        },
    }
    whole = train(method, **settings)
    expected = weights(whole / "checkpoints" / "last.ckpt")
    steps = sorted((whole / "checkpoints").glob("at-step=*.ckpt"), key=lambda path: int(path.stem[8:]))
    per_epoch = len(steps) // 3
    assert per_epoch >= 3
    # In the middle of the second epoch, and at the end of the first.
    for step in (per_epoch + 1, per_epoch) if method == "byol" else (per_epoch + 1,):
        checkpoint = whole / "checkpoints" / f"at-step={step}.ckpt"
        resumed = train(method, **settings, arguments=("--ckpt_path", str(checkpoint)))
        actual = weights(resumed / "checkpoints" / "last.ckpt")
        assert actual.keys() == expected.keys()
        differing = [name for name, value in expected.items() if not torch.equal(actual[name], value)]
        assert differing == [], f"from step {step}"
        assert json.loads((resumed / "run.json").read_text())["resumed_from"] == str(checkpoint)
    early = weights(whole / "checkpoints" / f"at-step={per_epoch}.ckpt")
    assert not torch.equal(early["encoder.projection.weight"], expected["encoder.projection.weight"])


def test_ctrl_c_saves_after_the_step_and_the_run_goes_on_to_the_same_weights(train, tmp_path, monkeypatch):
    from ssl_audio.callbacks import SaveOnInterrupt

    expected = weights(train("contrastive", model=ENCODERS["compact-cnn"]) / "checkpoints" / "last.ckpt")

    def press(self, trainer, module, batch, batch_idx):
        if trainer.global_step == 2:
            signal.raise_signal(signal.SIGINT)

    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, pytest.raises((SystemExit, KeyboardInterrupt)):
        patch.setattr(SaveOnInterrupt, "on_train_batch_start", press)
        train("contrastive", model=ENCODERS["compact-cnn"])
    assert signal.getsignal(signal.SIGINT) is handler
    saved = tmp_path / "runs" / "contrastive" / "1" / "checkpoints" / "last.ckpt"
    assert torch.load(saved, weights_only=True)["global_step"] == 3  # the step that was under way is whole
    resumed = train("contrastive", model=ENCODERS["compact-cnn"], arguments=("--ckpt_path", str(saved)))
    actual = weights(resumed / "checkpoints" / "last.ckpt")
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


KILLED = """
import os, signal
from pytorch_lightning import Callback


class Killed(Callback):
    '''The process is gone from one moment to the next, as when the machine is taken away.'''

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 7:
            os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on_from_its_last_saved_step_to_the_same_weights(train, tmp_path):
    """4 steps an epoch, saved every 3, killed in the 8th: the second epoch is gone on with in its middle."""
    steps = ("--config", "hardware/preemptible", "--callbacks.steps.every_n_train_steps", "3")
    whole = train("contrastive", model=ENCODERS["compact-cnn"], arguments=steps)
    (tmp_path / "mine.py").write_text(KILLED)
    kill = write(tmp_path / "kill.yaml", {"callbacks": {"killed": {"class_path": "mine.Killed"}}})
    stack = ["common", "contrastive", str(tmp_path / "tiny.yaml"), str(tmp_path / "model.yaml"), kill]
    words = [word for name in stack for word in ("--config", name)]
    threads = str(torch.get_num_threads())  # sums of another number of threads are not equal to the bit
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": threads}
    command = [sys.executable, "train.py", *words, *steps]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]
    saved = tmp_path / "runs" / "contrastive" / "1" / "checkpoints" / "steps.ckpt"
    checkpoint = torch.load(saved, weights_only=True)
    assert checkpoint["AudioDataModule"] == {"epoch": 1, "items": 8, "step_items": 4}
    resumed = train("contrastive", model=ENCODERS["compact-cnn"], arguments=(*steps, "--ckpt_path", str(saved)))
    expected, actual = (weights(run / "checkpoints" / "last.ckpt") for run in (whole, resumed))
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_checkpoints_may_be_kept_at_the_end_of_every_epoch_as_last_is(train):
    settings = {
        "model": ENCODERS["compact-cnn"],
        "callbacks": {"periodic": {"init_args": {"every_n_epochs": 1}}},
    }
    folder = train("byol", **settings)
    kept = {path.name for path in (folder / "checkpoints").glob("*.ckpt")}
    assert kept >= {"last.ckpt", "epoch-0.ckpt", "epoch-1.ckpt"}
    resumed = train("byol", **settings, arguments=("--ckpt_path", str(folder / "checkpoints" / "epoch-0.ckpt")))
    expected, actual = (weights(run / "checkpoints" / "last.ckpt") for run in (folder, resumed))
    assert all(torch.equal(actual[name], value) for name, value in expected.items())


def test_a_checkpoint_that_is_cut_off_in_writing_leaves_the_one_before(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    AtomicCheckpointIO().save_checkpoint({"step": 1}, path)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # the last thing before the rename
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpointIO().save_checkpoint({"step": 2}, path)
    assert torch.load(path, weights_only=True) == {"step": 1} and [*tmp_path.iterdir()] == [path]


def test_a_repeated_run_is_equal_and_another_seed_is_not(train):
    first, second = (train("contrastive", model={"encoder": COMPACT}) for _ in range(2))
    other = train("contrastive", model={"encoder": COMPACT}, arguments=("--seed_everything", "1"))
    a, b, c = (weights(folder / "checkpoints" / "last.ckpt") for folder in (first, second, other))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)
    assert (first.name, second.name, other.name) == ("0", "1", "2")


def test_a_run_folder_tells_everything_and_is_a_model(train, capsys):
    folder = train("vicreg", model={"encoder": COMPACT})
    said = capsys.readouterr().out
    assert str(folder) in said and str(folder / "checkpoints" / "best.ckpt") in said and "ssl-audio eval -m" in said

    record = json.loads((folder / "run.json").read_text())
    assert record["versions"]["torch"] == torch.__version__ and record["seed"] == 0
    assert record["command"][:3] == ["train.py", "--config", "common"] and record["best_checkpoint"]
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["loss/train_step"] != "" for row in rows].count(True) == record["steps"]
    for name in ("loss/val", "variance/val", "eer_embeddings/val", "rank_mean_embeddings/val", "data_wait"):
        assert any(row[name] for row in rows), name
    assert (folder / "plots" / "loss.png").stat().st_size > 1000
    assert (folder / "data_report.csv").is_file() and list(folder.glob("events.out.tfevents*"))

    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["model"]["init_args"]["encoder"]["init_args"]["pooling"]["class_path"]  # defaults are written too
    state = weights(folder / "checkpoints" / "best.ckpt")
    for model in (load_model(folder), load_model(folder / "checkpoints" / "best.ckpt")):
        assert model.sample_rate == 16000 and model.dim == 16
        assert (model.level, model.level_in_forward) == ("peak", True)  # as the clips of the data
        clip = torch.randn(1, 16000)
        assert torch.allclose(model(clip), model(0.01 * clip), atol=1e-4)
        assert torch.equal(model.encoder.projection.weight, state["encoder.projection.weight"])


def test_the_saved_config_repeats_the_run(train, tmp_path):
    first = train("contrastive", model={"encoder": COMPACT})
    assert run_command("train", ["--config", str(first / "config.yaml")]) == 0
    again = first.parent / "1"
    a, b = (weights(folder / "checkpoints" / "last.ckpt") for folder in (first, again))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert yaml.safe_load((again / "config.yaml").read_text()) == yaml.safe_load((first / "config.yaml").read_text())


def test_a_loss_that_is_not_finite_stops_with_the_step_and_the_clips(train, singers, tmp_path, capsys):
    with pytest.raises(AssertionError):
        train("contrastive", model={"encoder": COMPACT, "optimizer": {"init_args": {"lr": 1e37}}})
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: the loss is not finite at step ") and "on a batch of clips from " in error


def test_a_checkpoint_of_another_model_is_refused_in_one_line(train, capsys):
    folder = train("contrastive", model={"encoder": COMPACT})
    with pytest.raises(AssertionError):
        train("byol", model={"encoder": COMPACT}, arguments=("--ckpt_path", str(folder / "checkpoints" / "last.ckpt")))
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and "does not fit this config" in error


def test_without_validation_singers_the_best_checkpoint_is_left_out(train):
    folder = train("contrastive", model={"encoder": COMPACT}, data={"eval_frac": 0.0})
    assert (folder / "checkpoints" / "last.ckpt").is_file()
    load_model(folder)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("method", METHODS)
def test_any_method_with_any_encoder_trains_saves_resumes_loads_and_embeds(method, encoder, train, singers):
    model = ENCODERS[encoder]
    trainer = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1}
    callbacks = {"best": None}
    folder = train(method, model=model, trainer=trainer, callbacks=callbacks)
    resumed = train(
        method,
        model=model,
        trainer={**trainer, "max_epochs": 2},
        callbacks=callbacks,
        arguments=("--ckpt_path", str(folder / "checkpoints" / "last.ckpt")),
    )
    assert json.loads((resumed / "run.json").read_text())["steps"] == 2
    loaded = load_model(resumed, projection=False)
    embedding = loaded.embed(next(singers.rglob("*.wav")))
    assert embedding.shape == (loaded.dim,) and np.isfinite(embedding).all()
    trained, start = (weights(run / "checkpoints" / "last.ckpt") for run in (resumed, folder))
    moved = [name for name in start if name.startswith("encoder.") and not torch.equal(start[name], trained[name])]
    assert moved, "the resumed step changed nothing"


@pytest.mark.parametrize("method", METHODS)
def test_any_method_is_evaluated_by_the_scripts(method, train, singers, tmp_path):
    trainer = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 0}
    folder = train(method, model=ENCODERS["compact-cnn"], trainer=trainer, callbacks={"best": None})
    meta = tmp_path / "meta"
    assert run_command("pairs", ["-r", str(singers), "-o", str(meta), "-p", "60", "-s", "1"]) == 0
    words = ["-s", "1", "-r", str(singers.parent), "-d", singers.name, "-m", str(folder), "-meta", str(meta)]
    assert run_command("eval", [*words, "-ce", "-cr"]) == 0
    for name in ("eer_1.csv", "rank_1.csv"):
        with open(meta / name, newline="") as file:
            (row,) = csv.DictReader(file)
        assert f"{method}-0" in row.values() and 0 <= float(row[singers.name]) <= 100


def test_two_processes_train_together_and_leave_one_run_folder(singers, tmp_path):
    settings = {"trainer.devices": 2, "trainer.strategy": "ddp", "trainer.accelerator": "cpu", "trainer.max_epochs": 1}
    settings |= {"data.dataset_dirs": f"[{singers}]", "data.sample_rate": 16000, "data.nr_samples": 6000}
    settings |= {"data.batch_size": 2, "data.num_workers": 0, "data.augmentation": "null", "data.eval_frac": 0.6}
    settings |= {"model.encoder": "ssl_audio.encoders.CompactCNN", "model.encoder.channels": "[4, 8]"}
    settings |= {"trainer.logger.save_dir": tmp_path / "runs", "callbacks.in_batch.stages": "[val, train]"}
    options = [word for key, value in settings.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "train.py", "--config", "common", "--config", "contrastive", *options]
    subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, timeout=300)
    (folder,) = (tmp_path / "runs" / "contrastive").iterdir()
    record = json.loads((folder / "run.json").read_text())
    assert record["ranks"] == 2 and record["checkpoint"]["metric"] == "verification/eer"
    last = list(csv.DictReader((folder / "metrics.csv").open(newline="")))[-1]
    assert last["loss/val"] and last["eer_embeddings/val"] and last["eer_embeddings/train"]
    assert load_model(folder).checkpoint == record["checkpoint"]


def test_a_model_folder_that_is_missing_is_an_input_error(tmp_path):
    with pytest.raises(InputError):
        load_model(tmp_path / "nothing")


def test_a_full_disk_is_one_line_and_leaves_nothing_half_written(singers, tmp_path):
    """Files may grow to 30 kB only, as on a disk that is full: the records fit, a checkpoint does not."""
    tiny = "--data.sample_rate 16000 --data.nr_samples 6000 --data.batch_size 4 --data.num_workers 0"
    small = "--config common --config contrastive --config encoder/compact_cnn --model.encoder.channels [16,16]"
    arguments = f"{small} {tiny} --data.augmentation null --trainer.max_steps 1 --trainer.logger.save_dir runs".split()
    command = [sys.executable, "-m", "ssl_audio.cli", "train", *arguments, "--data.dataset_dirs", f"[{singers}]"]

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))

    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        command, preexec_fn=limited, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr[-2000:]
    assert done.stderr.splitlines()[-1].startswith("error: no space left in runs")
    assert not [*tmp_path.rglob("*.ckpt")] and not [*tmp_path.rglob(".partial*")]
    assert [*tmp_path.glob("runs/contrastive/0/run.json")]
