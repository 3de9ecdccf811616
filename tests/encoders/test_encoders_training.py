"""The stacks of the systems train, save, resume, load and embed in real runs, with small networks."""

import csv

import numpy as np
import pytest
import torch
import yaml

from ssl_audio import load_model
from ssl_audio.cli import run_command

HEAD = {"init_args": {"dims": [16, 8]}}
VIT = {
    "class_path": "ssl_audio.encoders.VisionTransformer",
    "init_args": {"image_size": 32, "patch_size": 16, "embedding_dim": 16, "depth": 1, "heads": 2, "head_dim": 8},
}
# stack: what makes it small
SYSTEMS = {
    "clmr": {"encoder": {"init_args": {"channels": [4] * 6}}, "projection": HEAD},
    "simsiam": {
        "frontend": {"init_args": {"n_fft": 512, "hop_length": 128, "n_mels": 32}},
        "encoder": VIT,
        "projection": HEAD,
        "predictor": HEAD,
    },
    "wav2rec": {
        "frontend": {"init_args": {"n_fft": 512, "hop_length": 128, "n_mels": 32}},
        "encoder": {"init_args": {"blocks": [1, 1], "width": 4}},
        "projection": HEAD,
        "predictor": HEAD,
    },
    "cpc": {"encoder": {"init_args": {"channels": 16, "heads": 2, "feedforward": 16}}, "num_negatives": 16},
    "wavebyol": {
        "encoder": {"init_args": {"layout": "h1", "channels": 48}},
        "projection": HEAD,
        "predictor": HEAD,
        "ema_every": "epoch",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SYSTEMS)
def test_a_system_trains_saves_resumes_loads_and_embeds(name, singers, tmp_path):
    small = {
        "model": {"init_args": SYSTEMS[name]},
        "data": {"dataset_dirs": [str(singers)], "nr_samples": 8000, "batch_size": 4, "num_workers": 0},
        "trainer": {"accelerator": "cpu", "enable_progress_bar": False, "log_every_n_steps": 1,
                    "limit_train_batches": 2, "limit_val_batches": 1},
        "callbacks": {"best": None},
    }  # fmt: skip
    small["trainer"]["logger"] = {"init_args": {"save_dir": str(tmp_path), "name": "run"}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small))
    stack = [
        "--config",
        "common",
        "--config",
        name,
        "--config",
        "data/folder",
        "--config",
        str(tmp_path / "small.yaml"),
    ]
    last = tmp_path / "run" / "0" / "checkpoints" / "last.ckpt"
    assert run_command("train", [*stack, "--trainer.max_epochs", "1"]) == 0
    assert run_command("train", [*stack, "--trainer.max_epochs", "2", "--ckpt_path", str(last)]) == 0

    model = load_model(tmp_path / "run" / "1")
    embedding = model.embed(next(singers.rglob("*.wav")))
    assert embedding.shape == (model.dim,) and np.isfinite(embedding).all()
    start, trained = (
        torch.load(tmp_path / "run" / run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for run in "01"
    )
    # Biases before a batch norm have no gradient but rounding.
    still = [key for key in start if start[key].ndim > 1 and torch.equal(start[key], trained[key])]
    assert still == []
    with (tmp_path / "run" / "1" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row.get("loss/train_step") for row in rows)
    if name == "cpc":
        (terms,) = [row for row in rows if row.get("loss/val")]
        assert float(terms["chance/val"]) == pytest.approx(12 * np.log(17), rel=1e-5)
        assert 0 <= float(terms["accuracy_12/val"]) <= 1
