"""`hf:` addresses beside the library's own feature extractors and models, tiny and with random weights."""

import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from helpers import tone
from hf_models import CLIP, near, theirs, transformers

from ssl_audio import load_model, save_model
from ssl_audio.baselines import untrained
from ssl_audio.errors import InputError
from ssl_audio.export import OnnxModel, export_onnx, export_torchscript
from ssl_audio.hub.address import expanded
from ssl_audio.provenance import fingerprint

FAMILIES = ("wav2vec2", "wav2vec2 large", "hubert", "wavlm", "unispeech-sat", "data2vec-audio", "sew", "w2v-bert")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_of_the_last_layer_is_the_librarys(family, folder):
    inputs, output = theirs(folder(family))
    hidden = output.last_hidden_state
    mask = inputs["attention_mask"][0].bool() if family == "w2v-bert" else slice(None)
    model = load_model(f"hf:{folder(family)}")
    near(model.embed(CLIP), hidden[0, mask].mean(dim=0), 1e-4 if family == "w2v-bert" else 2e-5)
    assert (model.sample_rate, model.dim, model.encoder.frame_dim) == (16000, 32, 32)
    with torch.inference_mode():
        frames = model.frames(torch.from_numpy(CLIP)[None])
    near(frames.numpy(), hidden[:, mask], 1e-3 if family == "w2v-bert" else 2e-5)


@pytest.mark.parametrize("layer, pool", [("0", "mean"), ("1", "mean%2Bstd"), ("-2", "mean+std"), ("mean", "mean")])
def test_layers_and_pools(layer, pool, folder):
    states = theirs(folder("wavlm"), output_hidden_states=True)[1].hidden_states
    assert len(states) == 3
    chosen = torch.stack(states).mean(dim=0)[0] if layer == "mean" else states[int(layer)][0]
    expected = chosen.mean(dim=0)
    if pool != "mean":
        expected = torch.cat([expected, chosen.std(dim=0, unbiased=False)])
    model = load_model(f"hf:{folder('wavlm')}?layer={layer}&pool={pool}")
    near(model.embed(CLIP), expected)
    assert model.dim == len(expected)


def test_several_layers_stand_side_by_side_and_a_layer_has_one_name(folder):
    states = theirs(folder("hubert"), output_hidden_states=True)[1].hidden_states
    model = load_model(f"hf:{folder('hubert')}?layer=2,0")
    near(model.embed(CLIP), torch.cat([states[2][0].mean(dim=0), states[0][0].mean(dim=0)]))
    last, same = (load_model(f"hf:{folder('hubert')}?layer={number}") for number in (-1, 2))
    assert fingerprint(last) == fingerprint(same) != fingerprint(model)


def test_sweep_is_one_address_a_layer(folder):
    address = f"hf:{folder('hubert')}?layer=sweep&pool=mean"
    assert expanded(address) == [address.replace("sweep", str(number)) for number in range(3)]
    assert expanded("runs/mine") == ["runs/mine"]
    with pytest.raises(InputError, match="layer=sweep stands for one model per layer"):
        load_model(address)


def test_the_x_vector_head_is_taken_by_the_class_that_the_config_names(folder):
    output = theirs(folder("wavlm x-vector"), kind="AutoModelForAudioXVector")[1]
    model = load_model(f"hf:{folder('wavlm x-vector')}")
    near(model.embed(CLIP), output.embeddings[0])
    assert (model.dim, model.minimum_samples) == (24, 5200)
    body = load_model(f"hf:{folder('wavlm x-vector')}?layer=1")
    assert (body.dim, body.minimum_samples, body.encoder.pool) == (32, 400, "mean")


def test_whisper_pools_its_encoder_over_the_frames_of_the_clip(folder, caplog):
    output = theirs(folder("whisper"))[1]
    model = load_model(f"hf:{folder('whisper')}")  # stored in half precision
    near(model.embed(CLIP), output.last_hidden_state[0, : len(CLIP) // 320].mean(dim=0), 1e-4)
    long = tone(40.0)
    with caplog.at_level(logging.WARNING):
        vector = model.embed(long)
        assert np.array_equal(model.embed(long), vector)
    expected = (model.embed(long[: 30 * 16000]) + model.embed(long[-30 * 16000 :])) / 2
    np.testing.assert_allclose(vector, expected, atol=1e-6)
    assert [record.message for record in caplog.records if "mean over windows" in record.message] == [
        "HuggingFace takes 480000 samples at most; the vector of a longer clip is the mean over windows of this length"
    ]
    with torch.inference_mode():
        assert model.frames(torch.from_numpy(long)[None]).shape == (1, 40 * 50, 32)


def test_the_spectrogram_transformer_gives_its_own_vector_its_token_or_its_patches(folder):
    output = theirs(folder("ast"), output_hidden_states=True)[1]
    assert load_model(f"hf:{folder('ast')}").encoder.pool == "model"
    near(load_model(f"hf:{folder('ast')}").embed(CLIP), output.pooler_output[0])
    near(load_model(f"hf:{folder('ast')}?pool=cls").embed(CLIP), output.last_hidden_state[0, 0])
    frames = 1 + (len(CLIP) - 400) // 160
    patches = output.hidden_states[1][0, 2:].reshape(12, 101, 32)[:, : (frames - 16) // 10 + 1]
    near(load_model(f"hf:{folder('ast')}?layer=1").embed(CLIP), patches.mean(dim=(0, 1)))


@pytest.mark.parametrize("kind", ["clap", "clap fused"])
def test_clap_is_not_random(kind, folder):
    """The library's extractor marks a random clip of a batch as long, and cuts long ones at random."""
    clip = tone(3.0, 48000)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder(kind))
    inputs = extractor(clip, sampling_rate=48000, return_tensors="pt")
    inputs["is_longer"] = torch.zeros(1, 1, dtype=torch.bool)
    with torch.inference_mode():
        expected = transformers.ClapModel.from_pretrained(folder(kind)).eval().get_audio_features(**inputs)
    model = load_model(f"hf:{folder(kind)}")
    near(model.embed(clip), expected.pooler_output[0])
    assert (model.sample_rate, model.dim) == (48000, 48)
    long = tone(14.0, 48000)
    halves = (model.embed(long[:480_000]) + model.embed(long[-480_000:])) / 2
    np.testing.assert_allclose(model.embed(long), halves, atol=1e-6)


@pytest.mark.parametrize("family", ["wav2vec2", "wavlm x-vector", "w2v-bert", "whisper", "ast", "clap"])
def test_a_model_saves_loads_and_has_an_untrained_twin_without_the_hub(family, folder, tmp_path, monkeypatch):
    model = load_model(f"hf:{folder(family)}?short=repeat")
    clip = tone(1.0, model.sample_rate)
    save_model(model, tmp_path / "saved")
    assert str(folder(family)) not in (tmp_path / "saved" / "config.yaml").read_text()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    loaded = load_model(tmp_path / "saved")
    assert np.array_equal(loaded.embed(clip), model.embed(clip))
    assert fingerprint(loaded) == fingerprint(model)
    assert np.isfinite(loaded.embed(clip[:50])).all()
    twin = untrained(model, seed=1)
    assert twin.dim == model.dim and not np.allclose(twin.embed(clip), model.embed(clip), atol=1e-6)


@pytest.mark.parametrize("family", ["wav2vec2 large", "wavlm", "w2v-bert", "whisper"])
def test_a_model_trains_without_masks_on_short_clips(family, folder):
    """In training the library masks spans of ten frames and drops layers, which makes short clips fail.

    The tiny models are made without dropout, which stays as it is.
    """
    encoder = load_model(f"hf:{folder(family)}?layer=mean").encoder.train()
    clips = (0.1 * torch.randn(2, 2400)).requires_grad_()
    torch.manual_seed(0)
    first, second = encoder(clips * 1.0), encoder(clips * 1.0)
    torch.testing.assert_close(first, second)
    (first * torch.randn_like(first)).sum().backward()
    optimizer = torch.optim.SGD(encoder.parameters(), lr=0.1)
    optimizer.step()
    assert not torch.allclose(encoder(clips), first, atol=1e-6)
    assert clips.grad.abs().sum() > 0


def test_masking_can_be_kept(folder):
    encoder = load_model(f"hf:{folder('wav2vec2')}?masking=yes").encoder.train()
    clips = 0.1 * torch.randn(2, 16000)
    assert encoder.masking and not torch.equal(encoder(clips), encoder(clips))


def test_threads_and_batches_change_nothing(folder):
    model = load_model(f"hf:{folder('wavlm')}?layer=1")
    clips = 0.1 * torch.randn(8, 8000, generator=torch.Generator().manual_seed(0))

    @torch.inference_mode()
    def run(some):
        return model(some)

    together = run(clips)
    with ThreadPoolExecutor(4) as pool:
        alone = torch.cat(list(pool.map(run, clips.split(1))))
    torch.testing.assert_close(alone, together, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_model_exports(folder, tmp_path):
    model = load_model(f"hf:{folder('wav2vec2')}")
    clips = 0.1 * torch.randn(2, 40000, generator=torch.Generator().manual_seed(0))
    export_onnx(model, tmp_path / "model.onnx")
    with torch.inference_mode():
        torch.testing.assert_close(OnnxModel(tmp_path / "model.onnx", model)(clips), model(clips), rtol=1e-4, atol=1e-4)


def test_models_of_fixed_windows_are_not_exported(folder, tmp_path):
    with pytest.raises(InputError, match="windows of 480000 samples"):
        export_torchscript(load_model(f"hf:{folder('whisper')}"), tmp_path / "model.ts")
    assert not (tmp_path / "model.ts").exists()
