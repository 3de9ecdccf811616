"""Verification while training: the figures are right, choose the checkpoint, reach every rank and disturb nothing."""

import random
import warnings

import numpy as np
import pytest
import torch
from helpers import tiny_frontend
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from ssl_audio.callbacks import Verification
from ssl_audio.data import AudioDataModule
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.evaluation.comparison import evaluate_model, load_test_set
from ssl_audio.model import EmbeddingModel


class Tiny(LightningModule):
    """A network that trains a little, with dropout and targets from the global random state."""

    def __init__(self, dead: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.frontend = tiny_frontend(normalize="band")
        self.encoder = CompactCNN([4, 4], embedding_dim=8, dropout=0.3)
        if dead:
            torch.nn.init.zeros_(self.encoder.projection.weight)

    def embedding_model(self):
        return EmbeddingModel(self.frontend, self.encoder, 16000)

    def training_step(self, batch, batch_idx):
        noise = torch.randn(8, requires_grad=True)  # a loss that can be differentiated even by a dead network
        return (self.encoder(self.frontend(batch)) + noise).square().mean()

    def validation_step(self, batch, batch_idx):
        self.log("val", 0.0)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05)


def fit(callbacks, module=None, epochs=2, ckpt_path=None, **settings):
    module = module or Tiny()
    clips = [torch.randn(2, 4000, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    trainer = Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_model_summary=False, enable_progress_bar=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in callbacks), callbacks=callbacks, **settings,
    )  # fmt: skip
    loaders = [torch.utils.data.DataLoader(clips, batch_size=None) for _ in range(2)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not have many workers.*|.*logging interval.*|.*treespec.*")
        trainer.fit(module, *loaders, ckpt_path=ckpt_path)
    return trainer, module


def test_the_figures_are_those_of_the_folder_and_choose_the_checkpoint(singers, tmp_path):
    best = ModelCheckpoint(tmp_path, monitor="verification/eer", filename="best", save_weights_only=True)
    trainer, module = fit([Verification(singers), best])
    test_set = load_test_set(singers)
    x = embed_recordings(EvalProtocol(module.embedding_model()), test_set.recordings.paths(), progress=None)
    expected = evaluate_model("", x, test_set, resamples=0, probe="knn")
    logged = trainer.callback_metrics
    assert float(logged["verification/eer"]) == pytest.approx(expected.verification.eer, abs=1e-6)
    assert float(logged["verification/mnr"]) == pytest.approx(expected.verification.mnr, abs=1e-6)
    assert float(logged["verification/probe"]) == pytest.approx(expected.probe.metrics.summary["accuracy"])
    assert 0 < float(logged["verification/time_share"]) < 1
    assert float(best.best_model_score) <= float(logged["verification/eer"]) and (tmp_path / "best.ckpt").exists()


def test_training_goes_on_as_if_nobody_had_looked(singers):
    weights = []
    for callbacks in ([], [Verification(singers)]):
        torch.manual_seed(3), np.random.seed(3), random.seed(3)
        _, module = fit(callbacks)
        weights.append((module.encoder.projection.weight.detach().clone(), torch.rand(1), np.random.rand()))
    assert torch.equal(weights[0][0], weights[1][0])
    assert torch.equal(weights[0][1], weights[1][1]) and weights[0][2] == weights[1][2]


def test_every_n_epochs_and_resumed(singers, tmp_path, monkeypatch):
    looked = []
    original = Verification._verify
    monkeypatch.setattr(Verification, "_verify", lambda self, m: looked.append(m.current_epoch) or original(self, m))
    keep = ModelCheckpoint(tmp_path, save_last=True, filename="{epoch}")
    fit([Verification(singers, every_n_epochs=2, probe=None), keep], epochs=4, limit_val_batches=1)
    assert looked == [0, 2, 3]  # every second epoch, and the end
    callback = Verification(singers, every_n_epochs=2, probe=None)
    trainer, _ = fit([callback], epochs=6, ckpt_path=tmp_path / "last.ckpt")
    assert looked == [0, 2, 3, 4, 5] and set(callback.metrics) == {"eer", "eer_se", "mnr"}
    assert float(trainer.callback_metrics["verification/eer"]) == pytest.approx(callback.metrics["eer"])


def test_without_validation_data_it_looks_after_training_epochs(singers):
    callback = Verification(singers, probe=None)
    fit([callback], epochs=1, limit_val_batches=0)
    assert 0 <= callback.metrics["eer"] <= 1


def test_a_dead_network_is_at_chance_and_training_goes_on(singers):
    module = Tiny(dead=True)
    module.encoder.projection.requires_grad_(False)
    with pytest.warns(UserWarning, match="verification is at chance"):
        trainer, _ = fit([Verification(singers)], module, epochs=1)
    assert trainer.global_step == 3 and float(trainer.callback_metrics["verification/eer"]) == 0.5


@pytest.mark.parametrize("what", ["missing", "broken", "short"])
def test_a_folder_that_cannot_be_used_stops_before_the_first_step(singers, write_tone, what):
    if what == "broken":
        (singers / "singer 0" / "bad.wav").write_text("no audio")
    if what == "short":
        write_tone(singers / "singer 0" / "bad.wav", seconds=0.01)
    with pytest.raises(InputError, match="no such folder" if what == "missing" else "bad.wav"):
        fit([Verification(singers / "gone" if what == "missing" else singers)])


def test_what_is_trained_on_is_not_held_out(singers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the data module writes its report
    data = AudioDataModule(
        [str(singers)], nr_samples=4000, sample_rate=16000, batch_size=2, num_workers=0, eval_frac=0.4
    )
    trainer = Trainer(
        callbacks=[Verification(singers)], logger=False, enable_checkpointing=False, enable_progress_bar=False,
        max_epochs=1, accelerator="cpu", use_distributed_sampler=False,
    )  # fmt: skip
    with pytest.raises(InputError, match="wav is trained on too"):
        trainer.fit(Tiny(), datamodule=data)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"batch_size": 0}, {"every_n_epochs": 0}])
def test_numbers_that_cannot_be_are_refused_before_anything_is_read(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        Verification("nowhere", **wrong)


def test_two_ranks_agree(singers):
    trainer, _ = fit([Verification(singers)], epochs=1, strategy="ddp_spawn", devices=2)
    assert 0 <= float(trainer.callback_metrics["verification/eer"]) <= 1
