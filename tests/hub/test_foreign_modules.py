"""`torchhub:`, `hear:` and `xares:` addresses: modules with an agreed interface, each written by the test."""

import numpy as np
import pytest
import torch
from foreign_code import CLIP, HEAR, STATISTICS, XARES, near, statistics

from ssl_audio import load_model
from ssl_audio.errors import InputError
from ssl_audio.provenance import fingerprint


def test_a_torch_hub_folder(code, tmp_path):
    code(f"class Net(nn.Module):\n    sample_rate = 16000\n    def forward(self, x):\n        return {STATISTICS}\n"
         "def small(pretrained=False):\n    return Net()\ndef broken():\n    raise OSError('no weights')",
         "hub/hubconf.py")  # fmt: skip
    model = load_model(f"torchhub:{tmp_path / 'hub'}?entry=small", trusted=True)
    near(model.embed(CLIP), statistics(CLIP))
    (tmp_path / "empty").mkdir()
    for address, message in [
        (f"torchhub:{tmp_path / 'hub'}", r"the option entry is missing; add .*\?entry=NAME"),
        (f"torchhub:{tmp_path / 'hub'}?entry=large", "cannot be loaded: Cannot find callable large"),
        (f"torchhub:{tmp_path / 'hub'}?entry=broken", "cannot be loaded: no weights"),
        (f"torchhub:{tmp_path / 'empty'}?entry=small", "has no hubconf.py"),
        ("torchhub:a/b/c/d?entry=small", "neither a folder that exists nor owner/repository on GitHub"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load_model(address, trusted=True)
        assert "\n" not in str(caught.value)


def test_a_hear_module(code, tmp_path):
    path = code(HEAR)
    model = load_model(f"hear:{path}", trusted=True)
    near(model.embed(CLIP), statistics(CLIP))
    assert (model.sample_rate, model.dim, model.encoder.frame_dim) == (16000, 3, 2)
    frames = model.frames(torch.from_numpy(CLIP)[None])
    near(frames[0, 7].numpy(), np.array([CLIP[1120:1520].mean(), CLIP[1120:1520].max()]))
    torch.save(2 * torch.ones(1), tmp_path / "weights.pt")
    louder = load_model(f"hear:{path}?weights={tmp_path / 'weights.pt'}", trusted=True)
    near(louder.embed(CLIP), 2 * statistics(CLIP))
    assert fingerprint(louder) != fingerprint(model)
    for text, message in [
        (
            HEAR.replace("Model(nn.Module)", "Model")
            .replace("super().__init__()", "")
            .replace("self.register_buffer(", "setattr(self, "),
            "it must be a torch module",
        ),
        (HEAR.replace("get_scene_embeddings", "get_scenes"), "has no 'get_scene_embeddings'"),
        (HEAR.replace("scene_embedding_size, t", "other, t"), None),
        (HEAR.replace("16000, 3, 2", "16000, 4, 2"), "states the size 4 but returns 3"),
        (
            HEAR.replace("    return Model(", "    raise OSError('weights are gone')\n    return Model("),
            "weights are gone",
        ),
    ]:
        address = f"hear:{code(text)}"
        if message is None:
            near(load_model(address, trusted=True).embed(CLIP), statistics(CLIP))
            continue
        with pytest.raises(InputError, match=message) as caught:
            load_model(address, trusted=True)
        assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match=r"absent.pt: no such file"):
        load_model(f"hear:{path}?weights={tmp_path / 'absent.pt'}", trusted=True)


def test_an_x_ares_encoder(code):
    model = load_model(f"xares:{code(XARES)}", trusted=True)
    frames = np.lib.stride_tricks.sliding_window_view(CLIP, 400)[::160]
    near(model.embed(CLIP), np.array([frames.mean(1).mean(), frames.max(1).mean()]))
    near(model.frames(torch.from_numpy(CLIP)[None])[0].numpy(), np.stack([frames.mean(1), frames.max(1)], 1))
    assert (model.sample_rate, model.dim, model.minimum_samples) == (16000, 2, 400)
    for text, message in [
        (XARES + "class SecondEncoder(ToyEncoder):\n    pass\n", "has 2 classes whose name ends in Encoder"),
        (XARES.replace("ToyEncoder", "Toy"), "has 0 classes"),
        (XARES.replace("sampling_rate, ", "other, "), "its sample rate is unknown"),
        (XARES.replace("def forward", "def __init__(self, size):\n        pass\n    def forward"), "cannot be made"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            load_model(f"xares:{code(text)}", trusted=True)
        assert "\n" not in str(caught.value)
