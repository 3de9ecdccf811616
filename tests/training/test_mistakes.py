"""What a user can get wrong in a training: one line with a remedy that works, and nothing is lost."""

import csv
import json
from pathlib import Path

import pytest
import torch
from helpers import tone

from ssl_audio import audio
from ssl_audio.cli import main

TINY = {
    "--data.sample_rate": "16000",
    "--data.nr_samples": "8000",
    "--data.batch_size": "4",
    "--data.num_workers": "0",
    "--data.multi_epoch": "1",
    "--data.batch_sampling_mode": "sample_clips",
    "--data.eval_frac": "0.3",
    "--data.dataset_dirs": "d",
    "--model.encoder.channels": "[4, 8]",
    "--model.encoder.embedding_dim": "8",
    "--model.projection.dim": "8",
    "--trainer.max_time": "null",
    "--trainer.max_epochs": "2",
    "--trainer.enable_progress_bar": "false",
    "--trainer.log_every_n_steps": "1",
    "--trainer.accelerator": "cpu",
    "--callbacks.whiten": "null",
    "--model.lr_scheduler": "null",
}
EARLY = "--callbacks.early.class_path pytorch_lightning.callbacks.EarlyStopping --callbacks.early.monitor"
ONE_CYCLE = "--model.lr_scheduler torch.optim.lr_scheduler.OneCycleLR --model.lr_scheduler.max_lr 0.01"


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with recordings, and a run of two epochs in `first/contrastive/0`."""
    folder = tmp_path_factory.mktemp("place")
    for singer in range(6):
        for song in range(3):
            clip = tone(1.0, frequency=150 + 40 * singer, seed=10 * singer + song)
            audio.write(folder / f"d/s{singer}/{song}.wav", clip, 16000)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert run("--trainer.logger.save_dir first") == 0
    return folder


def run(words: str, configs: str = "contrastive recipes/small-voices") -> int:
    given = words.split()
    kept = [word for key, value in TINY.items() if key not in given for word in (key, value)]
    stack = [word for name in ("common", *configs.split()) for word in ("--config", name)]
    return main(["train", *stack, *kept, *given])


@pytest.fixture
def train(place, tmp_path, monkeypatch, capsys):
    """`train(words)` -> (status, the lines of both streams); in a folder of its own."""
    (tmp_path / "d").symlink_to(place / "d")
    (tmp_path / "first").symlink_to(place / "first")
    monkeypatch.chdir(tmp_path)

    def do(words: str) -> tuple[int, list[str]]:
        capsys.readouterr()
        status = run(words)
        out, err = capsys.readouterr()
        assert "Traceback" not in out + err
        return status, (out + err).strip().splitlines()

    return do


LAST = "first/contrastive/0/checkpoints/last.ckpt"
MISTAKES = {
    "--trainer.val_check_interval 100": "val_check_interval",
    f"{EARLY} val_loss": "val_loss",
    f"{EARLY} eer/val": "choose from",
    f"{ONE_CYCLE} --model.lr_scheduler.total_steps 1": "model.lr_scheduler",
    "--callbacks.find.class_path pytorch_lightning.callbacks.LearningRateFinder": "model.optimizer.lr",
    "--callbacks.find.class_path pytorch_lightning.callbacks.BatchSizeFinder": "data.batch_size",
    "--trainer.precision 16-true": "bf16-mixed",
    "--trainer.precision bf16-true": "bf16-mixed",
    "--trainer.precision 64-true": "32-true",
    "--trainer.max_epochs 0": "nothing was trained",
    "--trainer.limit_train_batches 0": "nothing was trained",
    "--trainer.logger.save_dir afile/runs": "afile",
    "--trainer.logger.class_path pytorch_lightning.loggers.WandbLogger": "pip install wandb",
    "--trainer.max_epochs 2 --trainer.max_epochs 3": "--trainer.max_epochs is given twice",
    "--ckpt_path last": "no run in",
    f"--ckpt_path {LAST}": "nothing was left to train",
    f"--ckpt_path {LAST} --model.optimizer torch.optim.SGD --model.optimizer.lr 0.1": "another optimiser",
}


@pytest.mark.parametrize(("words", "named"), MISTAKES.items(), ids=[words.split()[0][2:] for words in MISTAKES])
def test_a_mistake_is_one_line_with_a_remedy(train, tmp_path, words, named):
    (tmp_path / "afile").touch()
    status, lines = train(words)
    assert status == 2
    assert [line for line in lines if line.startswith("error: ")] == lines[-1:] and named in lines[-1], lines


def rows(folder: str) -> list[dict[str, str]]:
    with open(f"{folder}/metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def settings(checkpoint: str) -> dict:
    content = torch.load(checkpoint, weights_only=True)
    return content["optimizer_states"][0]["param_groups"][0]


def test_early_stopping_does_not_end_a_run_without_a_validation(train):
    status, lines = train(f"{EARLY} loss/val --trainer.max_steps 1")
    assert status == 0 and not [line for line in lines if "monitor" in line]


def test_a_version_that_holds_a_run_is_not_replaced_and_goes_on_with_its_rows(train, tmp_path):
    assert train("--trainer.logger.version mine")[0] == 0
    folder = Path("runs/contrastive/mine")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for more in ("", " --ckpt_path first/contrastive/0/checkpoints/last.ckpt"):
        status, lines = train(f"--trainer.logger.version mine{more}")
        assert status == 2 and "holds a run already" in lines[-1]
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    remedy = lines[-1].split("continue that run with ")[1]
    assert train(f"--trainer.logger.version mine {remedy} --trainer.max_epochs 3")[0] == 0
    steps = [int(row["step"]) for row in rows("runs/contrastive/mine")]
    assert steps == sorted(steps) and steps[0] == 0 and {0, 1, 2} == {int(float(r["epoch"])) for r in rows(str(folder))}


def test_the_newest_run_goes_on_with_last(train):
    assert train("")[0] == 0
    status, _ = train("--ckpt_path last --trainer.max_epochs 3")
    record = json.loads(Path("runs/contrastive/1/run.json").read_text())
    assert status == 0 and record["resumed_from"] == "runs/contrastive/0/checkpoints/last.ckpt"


def test_a_run_that_torchrun_starts_again_goes_on_by_itself(train, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert train("")[0] == 0  # it was ended before its first checkpoint
    assert train("--trainer.max_epochs 3")[0] == 0
    record = json.loads(Path("runs/contrastive/1/run.json").read_text())
    assert record["resumed_from"] == "runs/contrastive/0/checkpoints/last.ckpt"


def test_a_checkpoint_folder_of_ones_own_is_recorded(train):
    assert train("--callbacks.best.dirpath kept")[0] == 0
    record = json.loads(Path("runs/contrastive/0/run.json").read_text())
    assert (Path("runs/contrastive/0") / record["best_checkpoint"]).is_file()


def test_settings_of_the_config_are_used_on_resuming_and_said(train):
    status, lines = train(f"--ckpt_path {LAST} --trainer.max_epochs 3 --model.optimizer.lr 0.5")
    assert status == 0 and any("optimizer.lr 0.001 -> 0.5" in line for line in lines)
    assert settings("runs/contrastive/0/checkpoints/last.ckpt")["lr"] == 0.5
    status, lines = train(f"--ckpt_path {LAST} --trainer.max_epochs 3")
    assert status == 0 and not any("not of the checkpoint" in line for line in lines)


def test_the_place_in_a_schedule_is_kept_when_its_peak_changes(train):
    step = "--model.lr_scheduler torch.optim.lr_scheduler.StepLR --model.lr_scheduler.step_size 1"
    assert train(step)[0] == 0
    more = f"{step} --ckpt_path last --trainer.max_epochs 3 --model.optimizer.lr 0.01 --model.lr_scheduler.gamma 0.5"
    assert train(more)[0] == 0
    group = settings("runs/contrastive/1/checkpoints/last.ckpt")
    assert group["initial_lr"] == 0.01 and group["lr"] == pytest.approx(0.01 * 0.1 * 0.1 * 0.5)


def test_a_new_patience_is_used_on_resuming(train):
    early = f"{EARLY} loss/val --callbacks.early.min_delta 10.0 --callbacks.early.patience"
    assert train(f"{early} 1 --trainer.max_epochs 8")[0] == 0
    assert int(rows("runs/contrastive/0")[-1]["epoch"].split(".")[0]) == 1
    status, lines = train(f"{early} 50 --trainer.max_epochs 5 --ckpt_path last")
    assert status == 0 and any("patience 1 -> 50" in line for line in lines)
    assert int(rows("runs/contrastive/1")[-1]["epoch"].split(".")[0]) == 4


def test_a_checkpoint_of_weights_alone_is_refused_with_a_remedy_that_works(train):
    assert train("--callbacks.last.save_weights_only true --trainer.max_epochs 1")[0] == 0
    checkpoint = "runs/contrastive/0/checkpoints/last.ckpt"
    status, lines = train(f"--ckpt_path {checkpoint}")
    assert status == 2 and "holds weights alone" in lines[-1]
    assert train(f"{lines[-1].split('weights with ')[1]} --trainer.max_epochs 1")[0] == 0


def test_one_batch_can_be_fitted_again_and_again(train):
    status, lines = train("--trainer.overfit_batches 1")
    assert status == 0, lines[-1]


def test_a_plateau_is_that_of_the_metric_which_was_named(train):
    plateau = "--model.lr_scheduler pytorch_lightning.cli.ReduceLROnPlateau --model.lr_scheduler.monitor loss/train"
    assert train(f"{plateau} --data.eval_frac 0")[0] == 0


def test_a_schedule_in_epochs_counts_the_last_step_of_an_epoch_whole(train):
    """5 batches of 2, accumulated by 2: 3 steps an epoch; the cosine of 2 epochs is at its half after 3."""
    cosine = "--model.lr_scheduler ssl_audio.schedules.WarmupCosine --model.lr_scheduler.warmup 0"
    monitor = "--callbacks.rate.class_path pytorch_lightning.callbacks.LearningRateMonitor"
    more = "--trainer.accumulate_grad_batches 2 --data.batch_size 2 --trainer.limit_train_batches 5"
    cosine += " --model.lr_scheduler.unit epochs --model.lr_scheduler.total 2"
    assert train(f"{cosine} {monitor} {more}")[0] == 0
    rates = [float(row["lr"]) for row in rows("runs/contrastive/0") if row.get("lr")]
    assert rates[3] == pytest.approx(0.5 * rates[0]) and len(rates) == 6


def test_sections_without_content_change_nothing(train):
    Path("empty.yaml").write_text("trainer:\n  # max_epochs: 3\ncallbacks:\nmodel:\n  init_args:\n")
    status, _ = train("--config empty.yaml --trainer.max_steps 1")
    assert status == 0 and Path("runs/contrastive/0/checkpoints/last.ckpt").is_file()


def test_features_are_not_augmented_where_there_are_none(train):
    erase = "--model.feature_augmentation ssl_audio.augmentations.features.RandomErasing"
    status, lines = train(f"{erase} --model.frontend ssl_audio.frontends.Waveform")
    assert status == 2 and "model.feature_augmentation" in lines[-1], lines
