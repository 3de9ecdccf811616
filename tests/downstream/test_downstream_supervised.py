"""Labelled training: the data of a corpus, the train command, transfer and training from random weights."""

import json

import numpy as np
import pytest
import torch
import yaml
from helpers import tiny_model

from ssl_audio.cli import main, run_command
from ssl_audio.data.corpora import load
from ssl_audio.data.datamodule import AudioDataModule
from ssl_audio.data.labelled import LabelledDataModule
from ssl_audio.downstream.finetune import FinetuneSettings, finetune
from ssl_audio.downstream.tags import load_tagger
from ssl_audio.downstream.tasks import task_of
from ssl_audio.errors import InputError
from ssl_audio.hub import load_model, save_model

FRONTEND = {
    "class_path": "ssl_audio.frontends.LogMelSpectrogram",
    "init_args": {"n_fft": 512, "hop_length": 160, "n_mels": 32},
}
ENCODER = {"class_path": "ssl_audio.encoders.CompactCNN", "init_args": {"channels": [8, 16], "embedding_dim": 16}}


@pytest.fixture
def sounds(tmp_path, write_tone):
    """`sounds/<pitch>/<take>/<n>.wav`: three classes in six takes of two, .6 s."""
    for number, name in enumerate(("high", "low", "middle")):
        for take in range(6):
            for i in range(2):
                frequency = {"low": 110, "middle": 440, "high": 1760}[name] * (1 + 0.02 * take)
                path = tmp_path / "sounds" / name / f"take {take}" / f"{i}.wav"
                write_tone(path, seconds=0.6, frequency=frequency, seed=100 * number + 10 * take + i)
    return tmp_path / "sounds"


@pytest.fixture
def esc(tmp_path, write_tone):
    """ESC in its own layout, two classes, five folds of two."""
    rows = ["filename,fold,target,category,esc10,src_file,take"]
    for fold in range(1, 6):
        for target, name in enumerate(("dog", "rain")):
            file = f"{fold}-{1000 * fold + target}-A-{target}.wav"
            rows.append(f"{file},{fold},{target},{name},True,{1000 * fold + target},A")
            write_tone(tmp_path / "ESC" / "audio" / file, seconds=0.6, frequency=200.0 * (1 + 4 * target), seed=fold)
    (tmp_path / "ESC" / "meta").mkdir()
    (tmp_path / "ESC" / "meta" / "esc50.csv").write_text("\n".join(rows))
    return tmp_path / "ESC"


def files(groups):
    return {entry.path for group in groups for entry in group.entries}


def test_pre_training_on_a_corpus_reads_no_test_file_and_validates_on_its_own_split(esc):
    corpus = load("esc50", esc, fold=2)
    data = AudioDataModule([str(esc)], 16000, 8000, 4, num_workers=0, corpus={"name": "esc50", "fold": 2})
    data.setup()
    expected = {name: {str(track.path) for track in corpus.split(name)} for name in ("train", "valid", "test")}
    assert files(data.train_groups) == expected["train"] and files(data.val_groups) == expected["valid"]
    assert len(expected["test"]) == 2 and {group.name for group in data.val_groups} == {"1000", "1001"}
    batch = next(iter(data.train_dataloader()))
    assert batch["clip1"].shape == (4, 8000) and set(batch["group_name"]) <= {track.group for track in corpus.tracks}
    everything = AudioDataModule(
        [str(esc)], 16000, 8000, 4, num_workers=0, eval_frac=0, corpus={"name": "esc50", "fold": 2}
    )
    everything.setup()
    assert files(everything.train_groups) == expected["train"] | expected["valid"]


def test_a_corpus_that_is_not_whole_stops_training_with_the_list(esc, tmp_path):
    (esc / "audio" / "3-3000-A-0.wav").unlink()
    with pytest.raises(InputError, match=r"ESC-50: 1 of 10 audio files are missing.*3-3000-A-0\.wav"):
        AudioDataModule([str(esc)], 16000, 8000, 4, corpus={"name": "esc50"}).setup()
    with pytest.raises(InputError, match="no name"):
        AudioDataModule([str(esc)], 16000, 8000, 4, corpus={"fold": 2}).setup()
    with pytest.raises(InputError, match="one folder"):
        AudioDataModule([str(esc), str(tmp_path)], 16000, 8000, 4, corpus={"name": "esc50"}).setup()


def test_labelled_batches_pair_each_clip_with_its_own_label(esc):
    data = LabelledDataModule(
        [str(esc)], sample_rate=16000, nr_samples=8000, batch_size=3, num_workers=0, corpus={"name": "esc50"}
    )
    data.setup()
    assert data.classes == ["dog", "rain"] and not data.multi_label
    seen = 0
    for batch in data.train_dataloader():
        spectrum = torch.fft.rfft(batch["clip"]).abs()
        pitch = spectrum.argmax(1) * 2  # Hz: bins of 16000 / 8000
        assert torch.equal(batch["target"], (pitch > 600).long()), pitch
        seen += len(pitch)
    assert seen == 6 and batch["clip"].abs().max() < 0.6  # as on disk, not normalised


def test_the_train_command_learns_the_classes_and_its_run_gives_tags(sounds, tmp_path):
    settings = {
        "model": {"frontend": FRONTEND, "encoder": ENCODER, "optimizer": {"init_args": {"lr": 0.01}}},
        "data": {"dataset_dirs": [str(sounds)], "nr_samples": 8000, "batch_size": 6, "num_workers": 0},
        "trainer": {"max_epochs": 6, "log_every_n_steps": 1, "enable_progress_bar": False, "accelerator": "cpu"},
    }
    settings["trainer"]["logger"] = {"init_args": {"save_dir": str(tmp_path / "runs")}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    stack = [word for name in ("common", "supervised", str(tmp_path / "tiny.yaml")) for word in ("--config", name)]
    assert run_command("train", stack) == 0
    run = tmp_path / "runs" / "supervised" / "0"
    assert load_model(run).head is None and load_model(run).dim == 16  # an encoder like any other
    model = load_tagger(run)
    assert model.head.classes == ["high", "low", "middle"] and model.head.clip_seconds == 0.5
    right = [model.embed(path).argmax() == model.head.classes.index(path.parts[-3]) for path in sounds.rglob("*.wav")]
    assert np.mean(right) > 0.8
    resumed = [*stack, "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), "--trainer.max_epochs", "7"]
    assert run_command("train", resumed) == 0


def test_data_without_labels_is_refused_with_what_to_set_and_folders_have_them(sounds, tmp_path, capsys):
    names = ("common", "supervised", "encoder/compact_cnn", "data/folder")
    stack = [word for name in names for word in ("--config", name)]
    data = ["--data.dataset_dirs", f"['{sounds}']", "--data.batch_size", "4", "--data.num_workers", "0"]
    data += ["--data.nr_samples", "4000", "--data.group_by_artist", "false", "--data.eval_frac", "0"]
    data += [
        "--trainer.logger.save_dir",
        str(tmp_path / "runs"),
        "--trainer.max_steps",
        "1",
        "--callbacks.early_stopping",
        "null",
    ]
    assert run_command("train", [*stack, *data, "--data.labels", "false"]) == 2
    said = capsys.readouterr().err
    assert "Supervised needs batches with clip, target, and those of the data hold clip1, clip2, group_name" in said
    assert "set data.labels to true" in said
    assert run_command("train", [*stack, *data]) == 0


def test_transfer_tunes_a_copy_on_each_fold_and_tests_each_file_once(esc, tmp_path, capsys):
    model = tiny_model(channels=(8, 16)).with_parts(level="peak")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    task = task_of(load("esc50", esc))
    settings = FinetuneSettings(0.5, epochs=8, lr=0.01, device="cpu", resamples=10)
    result = finetune(model, task, settings, folder=tmp_path / "tuned")
    assert result.n_test == 10 and len(result.chosen) == 5 and result.metrics.summary["accuracy"] >= 0.8
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    tuned = load_model(tmp_path / "tuned")
    assert tuned.head.classes == ["dog", "rain"] and tuned.level == "peak"
    assert not torch.equal(tuned.encoder.projection.weight, model.encoder.projection.weight)
    norms = [key for key in before if key.endswith("running_mean")]
    assert norms and not any(torch.equal(tuned.state_dict()[key], before[key]) for key in norms)  # they learn as well


def test_transfer_is_a_switch_of_the_probe_with_random_weights_beside(sounds, tmp_path, capsys):
    save_model(tiny_model(8), tmp_path / "model")
    command = [
        "probe",
        "--model",
        str(tmp_path / "model"),
        "--corpus",
        "folder",
        "--root",
        str(sounds),
        "--clip",
        "0.5",
    ]
    switch = [
        "--mode",
        "transfer",
        "--epochs",
        "1",
        "--output",
        str(tmp_path / "out"),
        "--draws",
        "10",
        "--device",
        "cpu",
    ]
    assert main([*command, *switch]) == 0
    printed = capsys.readouterr()
    assert "from random weights" in printed.out
    assert "litlogger" not in printed.err and "GPU available" not in printed.err
    results = json.loads((tmp_path / "out" / "probe.json").read_text())["results"]
    assert [(r["model"], r["baseline"], r["kind"]) for r in results] == [
        ("model", False, "transfer"),
        ("from random weights", True, "transfer"),
    ]
    assert load_model(tmp_path / "out" / "model").head.classes == ["high", "low", "middle"]
