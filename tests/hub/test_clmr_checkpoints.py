"""Random checkpoints in the original's layout give the original's output in ours."""

import numpy as np
import pytest
import torch
from torch import nn

from ssl_audio import load_model
from ssl_audio.cli import run_command
from ssl_audio.errors import InputError


class OriginalSampleCNN(nn.Module):
    """Modules, names and order of the published code."""

    def __init__(self) -> None:
        super().__init__()
        blocks = [nn.Sequential(nn.Conv1d(1, 128, 3, 3), nn.BatchNorm1d(128), nn.ReLU())]
        for a, b in [(128, 128), (128, 128), (128, 256), *[(256, 256)] * 5, (256, 512)]:
            blocks.append(
                nn.Sequential(nn.Conv1d(a, b, 3, 1, padding=1), nn.BatchNorm1d(b), nn.ReLU(), nn.MaxPool1d(3, 3))
            )
        blocks.append(nn.Sequential(nn.Conv1d(512, 512, 3, 1, padding=1), nn.BatchNorm1d(512), nn.ReLU()))
        self.sequential = nn.Sequential(*blocks)
        self.fc = nn.Identity()

    def forward(self, x):
        return self.fc(self.sequential(x).flatten(1))


class OriginalSimCLR(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = OriginalSampleCNN()
        self.projector = nn.Sequential(nn.Linear(512, 512, bias=False), nn.ReLU(), nn.Linear(512, 64, bias=False))


@pytest.fixture(scope="module")
def original() -> OriginalSimCLR:
    torch.manual_seed(0)
    model = OriginalSimCLR().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d):
            module.running_mean.uniform_(-0.1, 0.1), module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.fixture(params=["plain", "lightning"])
def checkpoint(request, original, tmp_path):
    path = tmp_path / f"{request.param}.pt"
    weights = original.state_dict()
    if request.param == "lightning":
        # The module keeps the encoder by itself as well, so its weights are there twice.
        both = {f"model.{key}": value for key, value in weights.items()}
        both |= {key: value for key, value in weights.items() if key.startswith("encoder.")}
        weights = {
            "state_dict": both,
            "epoch": 3,
            "pytorch-lightning_version": "1.3.8",
            "hyper_parameters": {"seed": 42},
        }
    torch.save(weights, path)
    return path


def test_the_embedding_and_projection_are_the_originals(checkpoint, original):
    clips = torch.randn(1, 59049) * 0.1
    with torch.no_grad():
        expected = original.encoder(clips.unsqueeze(1))
        model = load_model(checkpoint)
        torch.testing.assert_close(model(clips), expected, rtol=1e-4, atol=1e-6)
        assert (model.sample_rate, model.dim) == (22050, 512)
        projected = load_model(checkpoint, projection=True)(clips)
        torch.testing.assert_close(projected, original.projector(expected), rtol=1e-4, atol=1e-6)


def test_it_converts_to_a_folder(checkpoint, tmp_path):
    folder = tmp_path / "clmr"
    assert (
        run_command("convert", ["--checkpoint", str(checkpoint), "--output_dir", str(folder), "--num_trials", "1"]) == 0
    )
    clip = np.random.default_rng(0).standard_normal(60000).astype(np.float32)
    np.testing.assert_allclose(load_model(folder).embed(clip), load_model(checkpoint).embed(clip), rtol=1e-5)


def test_an_incomplete_checkpoint_is_refused(original, tmp_path):
    weights = original.state_dict()
    del weights["encoder.sequential.4.1.bias"]
    torch.save(weights, tmp_path / "broken.pt")
    with pytest.raises(InputError, match=r"blocks\.4\.1\.bias"):
        load_model(tmp_path / "broken.pt")
    encoder_only = {key: value for key, value in original.state_dict().items() if key.startswith("encoder.")}
    torch.save(encoder_only, tmp_path / "encoder.pt")
    with pytest.raises(InputError, match="no projector"):
        load_model(tmp_path / "encoder.pt", projection=True)
