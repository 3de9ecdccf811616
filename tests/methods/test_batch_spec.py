"""What data promises and what methods need: pairs that fit are silent, others are one line before data is read."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from test_methods import make

from ssl_audio.cli import main
from ssl_audio.data import AudioDataModule, MusicNetDataModule, WindowDataModule
from ssl_audio.data.batch_spec import BatchSpec, batch_spec_of
from ssl_audio.data.labelled import LabelledDataModule
from ssl_audio.data.sharded import ShardDataModule
from ssl_audio.errors import InputError

TWO_VIEWS = AudioDataModule("nowhere", sample_rate=44100).batch_spec
WINDOWS = WindowDataModule("nowhere", sample_rate=44100).batch_spec
PLAYED_ON = WindowDataModule("nowhere", sample_rate=44100, composition="sequential").batch_spec
LABELLED = LabelledDataModule("nowhere", sample_rate=44100).batch_spec


def test_a_data_module_promises_what_it_was_given() -> None:
    data = AudioDataModule("nowhere", 16000, 4000, 3)
    assert data.batch_spec == BatchSpec(("clip1", "clip2", "group_name", "index"), 3, 4000, 16000, level="peak")
    assert batch_spec_of(data) == data.batch_spec
    assert ShardDataModule("nowhere").batch_spec.keys == data.batch_spec.keys
    assert MusicNetDataModule("nowhere", composition="sequential").batch_spec.continues and not WINDOWS.continues
    assert LABELLED.keys == ("clip", "target", "index") and LABELLED.classes == ()
    assert batch_spec_of(None) is None and batch_spec_of(torch.utils.data.DataLoader([1])) is None


@pytest.mark.parametrize("kind", ["two views", "windows", "labelled"])
def test_batches_hold_the_keys_that_are_promised(kind: str, singers: Path) -> None:
    kinds = {"two views": AudioDataModule, "windows": WindowDataModule, "labelled": LabelledDataModule}
    data = kinds[kind]([str(singers)], sample_rate=16000, nr_samples=4000, batch_size=3, num_workers=0)
    data.setup()
    batch = data.on_before_batch_transfer(next(iter(data.train_dataloader())), 0)
    spec = data.batch_spec
    assert tuple(batch) == spec.keys
    clips = batch[next(key for key in spec.keys if key.startswith("clip"))]
    assert clips.shape == (spec.batch_size, spec.samples) and spec.sample_rate == 16000


@pytest.mark.parametrize(
    ("name", "spec"),
    [("contrastive", TWO_VIEWS), ("byol", WINDOWS), ("cpc", TWO_VIEWS), ("cpc", WINDOWS), ("supervised", LABELLED)],
)
def test_pairs_that_fit(name: str, spec: BatchSpec) -> None:
    make(name).check_data(spec)


@pytest.mark.parametrize(
    ("name", "spec", "message"),
    [
        (
            "vicreg",
            LABELLED,
            r"VICReg needs batches with clip1, clip2, and those of the data hold clip, target, index; ",
        ),
        ("supervised", WINDOWS, r"Supervised needs batches with clip, target, .*set data\.labels to true"),
        ("cpc", LABELLED, r"CPC needs batches with clip1, .*data\.class_path to ssl_audio\.data\.AudioDataModule"),
    ],
)
def test_pairs_that_do_not_fit_are_one_line_with_a_remedy(name: str, spec: BatchSpec, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        make(name).check_data(spec)
    assert "\n" not in str(caught.value)


def test_a_carried_state_needs_batches_that_continue_each_other() -> None:
    method = make("cpc", carry_state=True)
    method.check_data(PLAYED_ON)
    with pytest.raises(InputError, match=r"set data\.composition to sequential"):
        method.check_data(WINDOWS)


def test_clips_at_another_rate_than_the_models_are_refused_in_a_trainer_too(singers: Path, tmp_path: Path) -> None:
    data = AudioDataModule([str(singers)], sample_rate=16000, nr_samples=4000, batch_size=2, num_workers=0)
    trainer = Trainer(max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
                      accelerator="cpu", default_root_dir=tmp_path)  # fmt: skip
    with pytest.raises(InputError, match=r"at 16000 Hz and model\.sample_rate is 44100; set both to the same rate"):
        trainer.fit(make("contrastive"), datamodule=data)


@pytest.mark.parametrize(
    ("configs", "options", "message"),
    [
        ("supervised", "--data.labels false", "Supervised needs batches with clip, target"),
        ("contrastive", "--data.class_path ssl_audio.data.labelled.LabelledDataModule", "Contrastive needs batches"),
        ("cpc data/windows", "--model.carry_state true --model.encoder.context gru", "continue each other"),
    ],
)
def test_the_command_says_it_before_it_looks_at_the_data(
    configs: str, options: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stack = [word for name in ("common", *configs.split()) for word in ("--config", name)]
    folder = ["--data.dataset_dirs", "[nowhere]", "--trainer.logger.save_dir", str(tmp_path / "runs")]
    assert main(["train", *stack, *options.split(), *folder, "--trainer.accelerator", "cpu"]) == 2
    error = capsys.readouterr().err
    assert message in error and "nowhere" not in error
