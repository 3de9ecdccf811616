"""The data module inside real runs of Lightning's trainer: order, resumption, processes, errors before training."""

import contextlib
import csv
import json
import multiprocessing
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from ssl_audio import audio
from ssl_audio.data import AudioDataModule
from ssl_audio.errors import InputError
from ssl_audio.utils import cpu as cores

COMMON = {"sample_rate": 16000, "nr_samples": 4000, "batch_size": 3, "num_workers": 0, "seed": 7}


class Recorder(LightningModule):
    """One weight, and a list of what each step saw."""

    def __init__(self, stop_at: int | None = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: list[tuple] = []
        self.stop_at = stop_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.stop_at:
            raise KeyboardInterrupt
        sums = batch["clip1"].sum(1) + 3 * batch["clip2"].sum(1)
        self.seen += [(self.current_epoch, *row) for row in zip(batch["index"].tolist(), sums.tolist(), strict=True)]
        return (self.weight * sums.mean()).sum()

    def validation_step(self, batch, batch_idx):
        self.log("loss/val", batch["clip1"].sum())

    def on_fit_end(self):
        Path(self.trainer.default_root_dir).mkdir(exist_ok=True)
        Path(self.trainer.default_root_dir, f"seen{self.global_rank}.json").write_text(json.dumps(self.seen))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 1e-3)


def fit(data, folder, stop_at=None, ckpt_path=None, epochs=3, callbacks=(), **options):
    model = Recorder(stop_at)
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, callbacks=list(callbacks), default_root_dir=folder,
        enable_progress_bar=False, enable_model_summary=False, enable_checkpointing=bool(callbacks),
        num_sanity_val_steps=1, **options,
    )  # fmt: skip
    with contextlib.suppress(KeyboardInterrupt, SystemExit):
        trainer.fit(model, data, ckpt_path=ckpt_path)
    return model


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("steps", "when"),
    [(1, {"every_n_train_steps": 1}), (7, {"every_n_train_steps": 1}), (4, {"every_n_train_steps": 4}),
     (8, {"every_n_epochs": 1, "save_on_train_epoch_end": True}), (8, {"every_n_epochs": 1, "monitor": "loss/val"})],
)  # fmt: skip
def test_an_interrupted_run_goes_on_with_the_items_not_yet_seen(singers, tmp_path, workers, steps, when):
    """4 training singers x 4 files = 5 batches of 3 an epoch; stopped anywhere, resumed, equal to the bit."""
    arguments = {**COMMON, "dataset_dirs": [str(singers)], "num_workers": workers}
    whole = fit(AudioDataModule(**arguments), tmp_path / "whole")
    assert len(whole.seen) == 3 * 15
    keep = ModelCheckpoint(tmp_path / "kept", save_top_k=-1, save_last=True, **when)
    first = fit(AudioDataModule(**arguments), tmp_path / "first", stop_at=steps, callbacks=[keep])
    saved = torch.load(tmp_path / "kept" / "last.ckpt", weights_only=False)["global_step"]
    second = fit(AudioDataModule(**arguments), tmp_path / "second", ckpt_path=tmp_path / "kept" / "last.ckpt")
    assert first.seen[: 3 * saved] + second.seen == whole.seen
    assert torch.equal(second.weight, whole.weight)


@pytest.mark.filterwarnings("ignore:The dirpath has changed", "ignore:Trying to infer the `batch_size`")
@pytest.mark.parametrize("sizes", [(2, 5, 3), (5, 2, 4), (3, 16, 1), (2, 2, 2)])
@pytest.mark.parametrize("steps", [2, 3, 8])
def test_another_batch_size_goes_on_with_the_items_not_yet_seen(singers, tmp_path, sizes, steps):
    """16 files an epoch; stopped twice in the middle of it, each time resumed with another size."""
    kept, checkpoint, seen, done = tmp_path / "kept", None, [], 0
    for run, size in enumerate(sizes):
        data = AudioDataModule(**{**COMMON, "batch_size": size}, dataset_dirs=[str(singers)])
        keep = ModelCheckpoint(kept / str(run), save_last=True, every_n_train_steps=1)
        done += steps
        stop = done if run < 2 else None
        seen += fit(data, tmp_path / str(run), stop_at=stop, ckpt_path=checkpoint, callbacks=[keep]).seen
        checkpoint = kept / str(run) / "last.ckpt"
    for epoch in range(3):
        files = [index for e, index, _ in seen if e == epoch]
        assert len(set(files)) == len(files) > 16 - max(sizes)
    whole = fit(AudioDataModule(**{**COMMON, "batch_size": 1}, dataset_dirs=[str(singers)]), tmp_path / "whole").seen
    assert set(seen) <= set(whole)  # the same fragments, too


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_another_number_of_processes_goes_on_with_the_items_not_yet_seen(singers, tmp_path, before, after):
    arguments = {**COMMON, "batch_size": 2, "dataset_dirs": [str(singers)]}
    keep = ModelCheckpoint(tmp_path, filename="at", every_n_train_steps=3)
    seen = {}
    for name, devices, options in (
        ("first", before, {"epochs": 1, "callbacks": [keep], "max_steps": 3}),
        ("second", after, {"epochs": 2, "ckpt_path": tmp_path / "at.ckpt"}),
    ):
        strategy = {"devices": devices, "strategy": "ddp_fork" if devices > 1 else "auto"}
        fit(AudioDataModule(**arguments), tmp_path / name, **options, **strategy)
        parts = [json.loads((tmp_path / name / f"seen{rank}.json").read_text()) for rank in range(devices)]
        assert len({len(part) for part in parts}) == 1  # else one process would wait for the others for ever
        seen[name] = [(epoch, index) for part in parts for epoch, index, _ in part]
    assert len(seen["first"]) == 6 * before
    for epoch in range(2):
        files = [index for e, index in seen["first"] + seen["second"] if e == epoch]
        assert len(set(files)) == len(files) >= 14


def test_each_epoch_is_another_order_of_the_same_files_and_never_repeats_one(singers, tmp_path):
    seen = fit(AudioDataModule(**COMMON, dataset_dirs=[str(singers)]), tmp_path, epochs=4).seen
    epochs = [[index for epoch, index, _ in seen if epoch == e] for e in range(4)]
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert all(len(set(epoch)) == len(epoch) == 15 for epoch in epochs)


def test_the_batches_of_a_run_do_not_depend_on_the_number_of_workers(singers, tmp_path):
    runs = [
        fit(AudioDataModule(**{**COMMON, "num_workers": n}, dataset_dirs=[str(singers)]), tmp_path).seen
        for n in (0, 1, 3)
    ]
    assert runs[0] == runs[1] == runs[2]


def test_workers_go_on_reading_when_the_terminal_sends_them_ctrl_c_too(singers):
    data = AudioDataModule(**{**COMMON, "num_workers": 2}, dataset_dirs=[str(singers)])
    data.setup()
    before = set(multiprocessing.active_children())
    batches = iter(data.train_dataloader())
    seen = [next(batches), next(batches)]  # one of each worker: both run by now
    workers = set(multiprocessing.active_children()) - before
    for worker in workers:
        os.kill(worker.pid, signal.SIGINT)
    assert len(workers) == 2 and len([*seen, *batches]) == 5


def test_two_processes_share_an_epoch_without_loss_or_repetition(singers, tmp_path):
    """Real processes over gloo; each writes the files that it was trained on."""
    data = AudioDataModule(**{**COMMON, "batch_size": 2}, dataset_dirs=[str(singers)])
    fit(data, tmp_path, epochs=2, devices=2, strategy="ddp_fork")
    seen = [json.loads((tmp_path / f"seen{rank}.json").read_text()) for rank in range(2)]
    for epoch in range(2):
        files = [[index for e, index, _ in rank if e == epoch] for rank in seen]
        assert len(files[0]) == len(files[1]) == 8
        assert sorted(files[0] + files[1]) == list(range(16))


def test_what_is_left_out_is_reported_in_the_run_folder(singers, tmp_path):
    (singers / "singer 1" / "text, #1 歌.wav").write_text("words")
    audio.write(singers / "singer 2" / "silent.wav", np.zeros(16000, np.float32), 16000)
    audio.write(singers / "singer 2" / "short.wav", np.ones(3000, np.float32), 16000)
    bad = np.ones(16000, np.float32)
    bad[5000] = np.nan
    audio.write(singers / "singer 3" / "nan.wav", bad, 16000, "FLOAT")
    data = AudioDataModule(**COMMON, dataset_dirs=[str(singers)])
    fit(data, tmp_path / "run", epochs=1)
    with open(tmp_path / "run" / "data_report.csv", encoding="utf-8") as file:
        reasons = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert set(reasons) == {"text, #1 歌.wav", "silent.wav", "short.wav", "nan.wav"}
    for name, word in (("silent", "silent"), ("short", "shorter than the window"), ("nan", "NaN")):
        assert word in reasons[f"{name}.wav"]
    assert "20 files in 5 groups, 4 left out" in data.index.summary()


def test_a_file_that_breaks_during_training_is_replaced_and_reported(singers, tmp_path, caplog):
    data = AudioDataModule(**{**COMMON, "multi_epoch": 4, "max_failures": 0.5}, dataset_dirs=[str(singers)])
    data.setup()
    broken = data.train_groups[0].entries[1].path
    Path(broken).write_text("no audio any more")
    model = fit(data, tmp_path / "run", epochs=1)
    indices = {index for _, index, _ in model.seen}
    assert 1 not in indices and len(model.seen) == 63
    assert broken in (tmp_path / "run" / "data_report.csv").read_text()
    assert "another file takes its place" in caplog.text


def test_too_many_failures_stop_the_run(singers, tmp_path):
    data = AudioDataModule(**{**COMMON, "multi_epoch": 20}, dataset_dirs=[str(singers)])
    data.setup()
    for entry in data.train_groups[0].entries[:3]:
        Path(entry.path).unlink()
    with pytest.raises(InputError, match=r"could not be used, more than data.max_failures = 0.05.*no such file"):
        fit(data, tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset_dirs": ["nowhere"]}, "nowhere: no such folder"),
        ({"dataset_dirs": []}, "dataset_dirs is empty"),
        ({"dataset_dirs": ["empty"]}, "no audio files under this folder"),
        ({"dataset_dirs": ["texts"]}, "none of its 1 audio files can be used"),
        ({"dataset_dirs": ["alone"]}, "only 1 usable singer"),
        ({"batch_size": 17}, "has 16 files, fewer than a batch of 17; set data.batch_size to at most 16"),
        ({"batch_size": 17, "batch_sampling_mode": "sample_groups"}, "4 singers.*multi_epoch to at least 5"),
        ({"nr_samples": 99999}, "the longest has 16000"),
        ({"batch_size": 0}, "data.batch_size is 0"),
        ({"eval_frac": 1.5}, "eval_frac is 1.5"),
        ({"max_groups": 0}, "max_groups is 0"),
    ],
)
def test_bad_input_is_one_line_before_training(singers, tmp_path, monkeypatch, write_tone, change, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts" / "s").mkdir(parents=True)
    (tmp_path / "texts" / "s" / "a.wav").write_text("words")
    for song in range(4):
        write_tone(tmp_path / "alone" / "singer" / f"{song}.wav")
    with pytest.raises(InputError, match=message) as caught:
        AudioDataModule(**{**COMMON, "dataset_dirs": [str(singers)], **change}).setup()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("environment", "workers"),
    [
        ({}, 3),  # two processes share eight cores
        ({"SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "8"}, 7),  # srun gave eight to each of them
        ({"SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "2"}, 1),  # not bound to them
        ({"SLURM_NTASKS": "2"}, 3),
        ({"SLURM_NTASKS": "2", "SLURM_CPUS_PER_TASK": "8", "LOCAL_WORLD_SIZE": "2"}, 3),  # torchrun in a task
    ],
)
def test_workers_take_the_cores_of_their_process(singers, monkeypatch, environment, workers):
    for name in ("SLURM_NTASKS", "SLURM_CPUS_PER_TASK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(cores, "available_cores", lambda: 8)
    monkeypatch.setattr(AudioDataModule, "_processes_here", 2)
    data = AudioDataModule(**{**COMMON, "batch_size": 1, "num_workers": "auto"}, dataset_dirs=[str(singers)])
    data.setup()
    assert data.train_dataloader().num_workers == workers


def test_no_validation_is_possible(singers, tmp_path):
    data = AudioDataModule(**{**COMMON, "eval_frac": 0.0}, dataset_dirs=[str(singers)])
    assert len(fit(data, tmp_path, epochs=1).seen) == 18


def test_validation_sees_the_same_fragments_each_time(singers):
    data = AudioDataModule(**COMMON, dataset_dirs=[str(singers)])
    data.setup()
    loader = data.val_dataloader()
    (first,), (second,) = list(loader), list(loader)
    assert torch.equal(first["clip1"], second["clip1"]) and first["clip1"].shape == (3, 4000)


def test_what_one_process_finds_wrong_is_raised_by_setup_not_while_the_others_wait(tmp_path):
    data = AudioDataModule(**COMMON, dataset_dirs=[str(tmp_path / "nowhere")])
    data.prepare_data()  # Lightning calls it on one process and lets the others wait for its end
    with pytest.raises(InputError, match="nowhere: no such folder"):
        data.setup()


def test_positives_of_the_group_are_counted_and_validation_draws_them_too(tmp_path, caplog):
    for name, songs in (("a", 2), ("b", 2), ("c", 1), ("d", 2), ("e", 1), ("f", 2)):
        for song in range(songs):
            noise = np.random.default_rng(song).uniform(-0.5, 0.5, 9000).astype(np.float32)
            audio.write(tmp_path / "d" / name / f"{song}.wav", noise, 16000)
    data = AudioDataModule([str(tmp_path / "d")], eval_frac=0.4, positives="same_group", **COMMON)
    with caplog.at_level("INFO"):
        data.setup()
    alone = sum(len(group.entries) == 1 for group in data.train_groups)
    said = f"{alone} of {len(data.train_groups)} have one recording, and both views are parts of it"
    assert (said in caplog.text) == (alone > 0)
    for batch in data.val_dataloader():
        sizes = [len(data.val_groups[group].entries) for group in batch["group"]]
        assert [i != j for i, j in zip(batch["index"], batch["index2"], strict=True)] == [size > 1 for size in sizes]
    options = {**COMMON, "batch_size": 2, "eval_frac": 0.0, "group_by_artist": False}
    with pytest.raises(
        InputError, match=r"needs groups with two recordings, and none has; set data\.positives to same_rec"
    ):
        AudioDataModule([str(tmp_path / "d")], positives="same_group", **options).setup()
    with pytest.raises(InputError, match=r"shared_crop and data\.positives same_group exclude each other"):
        AudioDataModule([str(tmp_path / "d")], positives="same_group", shared_crop=True, **COMMON)
