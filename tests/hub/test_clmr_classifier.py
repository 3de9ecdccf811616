"""CLMR's classifiers and old checkpoints, in the true layouts, written from a network definition of their own."""

import argparse
import pathlib

import pytest
import torch
from torch import nn

from ssl_audio.cli import main
from ssl_audio.data.corpora.magnatagatune import PONS_TAGS
from ssl_audio.errors import InputError
from ssl_audio.hub import load_checkpoint, load_model
from ssl_audio.hub.clmr import CLIP_SAMPLES, with_classifier


class Original(nn.Module):
    """The published SampleCNN with the layers and names of the original, after the table of its paper."""

    def __init__(self):
        super().__init__()
        sizes = [(1, 128), (128, 128), (128, 128), (128, 256), *[(256, 256)] * 5, (256, 512), (512, 512)]
        blocks = []
        for number, (size_in, size_out) in enumerate(sizes):
            stride, padding = (3, 0) if number == 0 else (1, 1)
            layers = [nn.Conv1d(size_in, size_out, 3, stride, padding), nn.BatchNorm1d(size_out), nn.ReLU()]
            blocks.append(nn.Sequential(*layers, *([nn.MaxPool1d(3, 3)] if 0 < number < 10 else [])))
        self.sequential = nn.Sequential(*blocks)
        self.fc = nn.Identity()

    def forward(self, x):
        return self.fc(self.sequential(x[:, None]).flatten(1))


class Contrastive(nn.Module):
    """Names as in its Lightning module: the encoder twice, the projector inside of `model`."""

    def __init__(self):
        super().__init__()
        self.encoder = Original()
        self.model = nn.Module()
        self.model.encoder = self.encoder
        self.model.projector = nn.Sequential(nn.Linear(512, 512, bias=False), nn.ReLU(), nn.Linear(512, 64, bias=False))


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    module = Contrastive().eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d):
            layer.running_mean.normal_(0, 0.1)
            layer.running_var.uniform_(0.5, 2)
    return module


@pytest.fixture
def clips():
    return 0.3 * torch.randn(2, CLIP_SAMPLES, generator=torch.Generator().manual_seed(1))


def lightning(module, path, **more):
    torch.save({"state_dict": module.state_dict(), "pytorch-lightning_version": "1.9.5", "epoch": 9, **more}, path)
    return path


def test_a_plain_checkpoint_and_its_classifier_give_named_tags(original, clips, tmp_path):
    torch.save(original.model.state_dict(), tmp_path / "plain.pt")  # encoder.*, projector.*
    layers = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 50))
    torch.save(layers.state_dict(), tmp_path / "mlp.pt")
    model = with_classifier(load_checkpoint(tmp_path / "plain.pt"), tmp_path / "mlp.pt")
    assert model.head.classes == list(PONS_TAGS) and model.head.multi_label
    with torch.no_grad():
        assert torch.allclose(model(clips), layers(original.encoder(clips)), atol=1e-5)
    with pytest.raises(InputError, match="50 outputs but there are 2 tags"):
        with_classifier(load_checkpoint(tmp_path / "plain.pt"), tmp_path / "mlp.pt", ["rock", "pop"])
    with pytest.raises(InputError, match="give a checkpoint of CLMR's finetuner"):
        with_classifier(load_checkpoint(tmp_path / "plain.pt"), tmp_path / "plain.pt")
    with pytest.raises(InputError, match="one head"):
        with_classifier(load_checkpoint(tmp_path / "plain.pt", projection=True), tmp_path / "mlp.pt")


class Callback:
    """Lightning's old checkpoints have such classes as keys and values."""

    def __init__(self, monitor=None):
        self.monitor = monitor


def test_a_checkpoint_that_names_classes_is_read_without_importing_them(original, clips, tmp_path, monkeypatch):
    settings = argparse.Namespace(batch_size=48, dataset="magnatagatune")
    callbacks = {Callback: {"best": Callback("loss")}}
    path = lightning(original, tmp_path / "old.ckpt", hyper_parameters=settings, callbacks=callbacks)
    monkeypatch.delattr(f"{__name__}.Callback")
    model = load_checkpoint(path)
    with torch.no_grad():
        assert torch.allclose(model(clips), original.encoder(clips), atol=1e-5)


def test_a_checkpoint_that_would_run_something_runs_nothing(original, tmp_path):
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return pathlib.Path.touch, (ran,)

    with pytest.raises(InputError, match="refused"):
        load_checkpoint(lightning(original, tmp_path / "bomb.ckpt", callbacks=[Bomb()]))
    assert not ran.exists()


def test_convert_makes_a_model_folder(original, clips, tmp_path, capsys):
    lightning(original, tmp_path / "clmr.ckpt")
    holder = nn.Module()
    holder.encoder, holder.model = original.encoder, nn.Sequential(nn.Linear(512, 50))  # as its LinearEvaluation
    lightning(holder, tmp_path / "finetuner.ckpt")
    arguments = ["convert", "--checkpoint", str(tmp_path / "clmr.ckpt"), "--num_trials", "1"]
    head = ["--classifier", str(tmp_path / "finetuner.ckpt"), "--output", str(tmp_path / "clmr")]
    assert main([*arguments, *head]) == 0
    model = load_model(tmp_path / "clmr")
    with torch.no_grad():
        assert torch.allclose(model(clips), holder.model(original.encoder(clips)), atol=1e-5)
    assert model.head.classes[:3] == ["guitar", "classical", "slow"]
    assert main([*arguments, "--tags", "x.txt", "--output", str(tmp_path / "other")]) == 2
    assert "belongs to --classifier" in capsys.readouterr().err
