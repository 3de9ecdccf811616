"""`hf:` addresses beside the library's own feature extractors and models, tiny and with random weights."""

import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from helpers import tone
from loopback_hub import Repository

from ssl_audio import load_model, save_model
from ssl_audio.baselines import untrained
from ssl_audio.cli import run_command
from ssl_audio.config import build, describe
from ssl_audio.encoders import HuggingFace
from ssl_audio.errors import InputError
from ssl_audio.export import OnnxModel, export_onnx, export_torchscript
from ssl_audio.hub.address import expanded
from ssl_audio.provenance import fingerprint

transformers = pytest.importorskip("transformers")

BODY = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
STILL = dict.fromkeys(("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0)
WAVE = {**BODY, **STILL, "conv_dim": (16,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2}
LARGE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
XVECTOR = {"tdnn_dim": (16, 16, 16, 16, 48), "xvector_output_dim": 24, "num_labels": 7}
WHISPER = {
    **dict.fromkeys(("encoder_layers", "decoder_layers", "encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 64),
    **{"d_model": 32, "vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
    "decoder_start_token_id": 1,
}
TOWER = {"patch_embeds_hidden_size": 16, "depths": [1] * 4, "num_attention_heads": [1, 1, 2, 2], "hidden_size": 128}
TEXT = {**BODY, "num_hidden_layers": 1, "vocab_size": 100}
CLIP = (tone(1.3) + 0.05 * np.random.default_rng(0).standard_normal(20800)).astype(np.float32)
FAMILIES = ("wav2vec2", "wav2vec2 large", "hubert", "wavlm", "unispeech-sat", "data2vec-audio", "sew", "w2v-bert")


def make(name: str, folder: Path) -> Path:
    """A tiny model of a family in a folder."""
    t = transformers
    torch.manual_seed(0)
    wave, extractor = t.Wav2Vec2FeatureExtractor(), None
    if name == "wav2vec2":
        model = t.Wav2Vec2ForCTC(t.Wav2Vec2Config(**WAVE, vocab_size=20))  # a head that no embedding needs
    elif name == "wav2vec2 large":
        model = t.Wav2Vec2Model(t.Wav2Vec2Config(**WAVE, **LARGE))
    elif name == "hubert":
        model = t.HubertModel(t.HubertConfig(**WAVE))
    elif name == "wavlm":
        model = t.WavLMModel(t.WavLMConfig(**WAVE))
    elif name == "wavlm x-vector":
        model = t.WavLMForXVector(t.WavLMConfig(**WAVE, **XVECTOR))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(3)  # or its vectors are near zero
    elif name == "unispeech-sat":
        model = t.UniSpeechSatModel(t.UniSpeechSatConfig(**WAVE))
    elif name == "data2vec-audio":
        model = t.Data2VecAudioModel(t.Data2VecAudioConfig(**WAVE, conv_pos_kernel_size=3))
    elif name == "sew":
        model = t.SEWModel(t.SEWConfig(**{**WAVE, "conv_dim": (16,) * 13}))
    elif name == "w2v-bert":
        model = t.Wav2Vec2BertModel(
            t.Wav2Vec2BertConfig(**BODY, **STILL, conformer_conv_dropout=0, feature_projection_input_dim=160)
        )
        extractor = t.SeamlessM4TFeatureExtractor()
    elif name == "whisper":
        model = t.WhisperForConditionalGeneration(t.WhisperConfig(**WHISPER)).half()
        extractor = t.WhisperFeatureExtractor()
    elif name == "ast":
        model, extractor = t.ASTForAudioClassification(t.ASTConfig(**BODY)), t.ASTFeatureExtractor()
    else:
        fused = name == "clap fused"
        config = {"audio_config": {**TOWER, "enable_fusion": fused}, "text_config": TEXT, "projection_dim": 48}
        model = t.ClapModel(t.ClapConfig(**config))
        extractor = t.ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc", frequency_min=50)
    model.save_pretrained(folder)
    (extractor or wave).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """`folder(family)`: where a tiny model of it lies, made once."""
    root, made = tmp_path_factory.mktemp("hf"), {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make(name, root / name.replace(" ", "-"))
        return made[name]

    return get


def theirs(folder: Path, clip: np.ndarray = CLIP, kind: str = "AutoModel", rate: int = 16000, **options):
    """What the library computes of one clip: its inputs and its output."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    model = getattr(transformers, kind).from_pretrained(folder).float().eval()
    inputs = extractor(clip, sampling_rate=rate, return_tensors="pt")
    with torch.inference_mode():
        if hasattr(model, "encoder") and "Whisper" in type(model).__name__:
            return inputs, model.encoder(inputs["input_features"], **options)
        return inputs, model(**inputs, **options)


def near(ours: np.ndarray, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, expected.numpy(), rtol=0, atol=tolerance * float(expected.abs().max()))


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
    with pytest.raises(InputError, match="layer=sweep is one model a layer"):
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


def test_the_licence_is_the_cards(folder, tmp_path):
    card = folder("hubert") / "README.md"
    assert load_model(f"hf:{folder('hubert')}").licence == "unknown"
    card.write_text("---\nlicense: cc-by-nc-4.0\ntags: [audio]\n---\n# A model\n", encoding="utf-8")
    model = load_model(f"hf:{folder('hubert')}")
    card.unlink()
    assert model.licence == "cc-by-nc-4.0"
    save_model(model, tmp_path / "saved")
    assert load_model(tmp_path / "saved").licence == "cc-by-nc-4.0"


# --- the Hub


def stored(folder: Path, *left_out: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in left_out}


def test_a_model_comes_from_the_hub_and_then_from_the_cache(hub, folder):
    card = b"---\nlicense: mit\n---\n"
    hub.repositories["someone/tiny"] = Repository({**stored(folder("wavlm")), "README.md": card})
    model = load_model("hf:someone/tiny?layer=1")
    near(model.embed(CLIP), theirs(folder("wavlm"), output_hidden_states=True)[1].hidden_states[1][0].mean(dim=0))
    assert model.licence == "mit"
    assert len(expanded("hf:someone/tiny?layer=sweep")) == 3
    hub.requests.clear()
    again = load_model("hf:someone/tiny?layer=1", local_files_only=True)
    assert hub.requests == [] and fingerprint(again) == fingerprint(model)


def test_weights_in_several_files_and_in_torchs_format(hub, folder, tmp_path):
    model = transformers.AutoModel.from_pretrained(folder("wavlm"))
    model.save_pretrained(tmp_path / "parts", max_shard_size="50KB")
    extractor = (folder("wavlm") / "preprocessor_config.json").read_bytes()
    files = stored(tmp_path / "parts") | {"preprocessor_config.json": extractor}
    assert sum(name.endswith(".safetensors") for name in files) > 1
    hub.repositories["someone/parts"] = Repository(files)
    old = stored(folder("wavlm"), "model.safetensors")
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    hub.repositories["someone/old"] = Repository(
        {**old, "pytorch_model.bin": (tmp_path / "pytorch_model.bin").read_bytes()}
    )
    expected = load_model(f"hf:{folder('wavlm')}").embed(CLIP)
    for name in ("parts", "old"):
        np.testing.assert_allclose(load_model(f"hf:someone/{name}").embed(CLIP), expected, atol=1e-6)


def test_what_goes_wrong_at_the_hub_is_one_line(hub, folder, monkeypatch):
    hub.repositories["someone/gated"] = Repository(stored(folder("wavlm")), gated=True)
    hub.repositories["someone/empty"] = Repository({"README.md": b"nothing"})
    for address, message in [
        ("hf:someone/gated", "someone/gated is gated: accept its terms at https://huggingface.co/someone/gated"),
        ("hf:someone/nowhere", "the Hub has no repository 'someone/nowhere', or it is private"),
        ("hf:someone/empty", "someone/empty has no config.json"),
        ("hf:someone/gated?revision=v9", "someone/gated"),
        ("hf:not an id", "is not a Hub id"),
    ]:
        with pytest.raises(InputError) as caught:
            load_model(address)
        assert message in str(caught.value) and "\n" not in str(caught.value)
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    with pytest.raises(InputError, match="not in the cache, and the Hub cannot be reached") as caught:
        load_model("hf:someone/else")
    assert "\n" not in str(caught.value)


# --- code of others


def remote(folder: Path, path: Path) -> Path:
    """The model of a folder as one whose code lies beside it, with an extractor of its own."""
    path.mkdir()
    for name, content in stored(folder).items():
        (path / name).write_bytes(content)
    code = """
import torch
from transformers import HubertConfig, HubertModel
from transformers.feature_extraction_utils import BatchFeature, FeatureExtractionMixin

class OwnConfig(HubertConfig):
    model_type = "own_model"

class OwnModel(HubertModel):
    config_class = OwnConfig

class OwnExtractor(FeatureExtractionMixin):
    def __init__(self, sampling_rate=16000, gain=1.0, **others):
        super().__init__(**others)
        self.sampling_rate, self.gain = sampling_rate, gain
    def __call__(self, clip, sampling_rate=None, return_tensors=None):
        return BatchFeature({"input_values": torch.from_numpy(clip * self.gain)[None]})
"""
    (path / "modeling_own.py").write_text(code)
    config = json.loads((path / "config.json").read_text())
    autos = {"AutoConfig": "modeling_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    (path / "config.json").write_text(json.dumps({**config, "model_type": "own_model", "auto_map": autos}))
    settings = {"sampling_rate": 16000, "gain": 2.0, "auto_map": {"AutoFeatureExtractor": "modeling_own.OwnExtractor"}}
    (path / "preprocessor_config.json").write_text(json.dumps(settings))
    return path


@pytest.fixture
def own_modules(tmp_path, monkeypatch):
    """Where the library copies code of others to: not into the user's cache."""
    from transformers import dynamic_module_utils

    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))


def test_remote_code_runs_only_when_it_is_trusted(hub, folder, tmp_path, own_modules):
    place = remote(folder("hubert"), tmp_path / "own")
    with pytest.raises(InputError, match="runs code that is not part of ssl_audio"):
        load_model(f"hf:{place}")
    model = load_model(f"hf:{place}?layer=1", trusted=True)
    hubert = transformers.HubertModel.from_pretrained(folder("hubert")).eval()
    with torch.inference_mode():
        states = hubert(torch.from_numpy(2 * CLIP)[None], output_hidden_states=True).hidden_states
    near(model.embed(CLIP), states[1][0].mean(dim=0))
    save_model(model, tmp_path / "saved")
    with pytest.raises(InputError, match="names code to import: code"):
        load_model(tmp_path / "saved")
    assert np.array_equal(load_model(tmp_path / "saved", trusted=True).embed(CLIP), model.embed(CLIP))
    hub.repositories["someone/own"] = Repository(stored(place))
    with pytest.raises(InputError, match="runs code that is not part of ssl_audio"):
        load_model("hf:someone/own")
    again = load_model("hf:someone/own?layer=1", trusted=True)
    np.testing.assert_allclose(again.embed(CLIP), model.embed(CLIP), atol=1e-6)


def test_a_config_reaches_no_code_through_the_encoder(folder):
    """Neither by a reference to a module, nor by the name of a kernel on the Hub."""
    encoder = load_model(f"hf:{folder('hubert')}").encoder
    spec = describe(encoder)
    spec["init_args"]["config"] |= {
        "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"},
        "_attn_implementation": "evil/kernel",
        "_attn_implementation_internal": "evil/kernel",
        "attn_implementation": "evil/kernel",
        "quantization_config": {"quant_method": "evil"},
    }
    again = build(spec)
    assert type(again.net).__module__.startswith("transformers.models.hubert")
    assert again.net.config._attn_implementation != "evil/kernel"
    spec["init_args"]["code"] = "evil/repository"
    with pytest.raises(InputError, match="names code to import"):
        build(spec)


# --- bad input


@pytest.mark.parametrize(
    "options, message",
    [
        ("layer=9", "there is no such layer; the model has 0 to 2"),
        ("layer=last", "layer=last is wrong"),
        ("layer=0,7", "there is no such layer"),
        ("pool=max", "pool=max is wrong; it must be one of mean, mean+std, cls, model"),
        ("pool=cls", "hubert has no class token"),
        ("pool=model", "hubert makes no vector of its own"),
        ("pool=model&layer=1", "leave layer out"),
        ("rate=8000", "takes 16000 Hz, not 8000"),
        ("layr=1", "has no option 'layr'; did you mean 'layer'?"),
    ],
)
def test_options_that_do_not_fit_are_one_line(options, message, folder):
    with pytest.raises(InputError) as caught:
        load_model(f"hf:{folder('hubert')}?{options}")
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert str(folder("hubert")) in str(caught.value)


def test_folders_that_hold_no_audio_model_are_one_line(folder, tmp_path):
    bert = tmp_path / "bert"
    transformers.BertConfig(**BODY, vocab_size=50).save_pretrained(bert)
    cut = tmp_path / "cut"
    cut.mkdir()
    for name, content in stored(folder("hubert")).items():
        (cut / name).write_bytes(content[:5000] if name.endswith(".safetensors") else content)
    other = tmp_path / "other"
    transformers.HubertModel(transformers.HubertConfig(**{**WAVE, "num_hidden_layers": 1})).save_pretrained(other)
    (other / "config.json").write_bytes((folder("hubert") / "config.json").read_bytes())
    ours = tmp_path / "ours"
    save_model(load_model(f"hf:{folder('hubert')}"), ours)
    for place, message in [
        (bert, "model_type 'bert' is no audio model that is known here"),
        (cut, "its weights cannot be read"),
        (other, "weights are missing or of another shape, such as encoder.layers.1"),
        (ours, "it holds a model of ssl_audio: leave hf: out"),
        (tmp_path, "cannot be read"),
    ]:
        with pytest.raises(InputError) as caught:
            load_model(f"hf:{place}")
        assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_folder_without_an_extractor_says_what_is_taken(folder, tmp_path, caplog):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name, content in stored(folder("hubert"), "preprocessor_config.json").items():
        (bare / name).write_bytes(content)
    model = load_model(f"hf:{bare}")
    assert np.array_equal(model.embed(CLIP), load_model(f"hf:{folder('hubert')}").embed(CLIP))
    assert "has no preprocessor_config.json; the usual settings of its family are taken" in caplog.text


def test_the_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"pip install 'ssl-audio\[hf\]'"):
        load_model("hf:someone/tiny")


@pytest.mark.slow
def test_a_training_run_starts_from_an_address_and_its_model_loads(folder, tmp_path, singers):
    start = f"hf:{folder('wav2vec2')}"
    settings = {
        "model": {"weights": start, "optimizer": {"init_args": {"lr": 0.01}}},
        "data": {"dataset_dirs": [str(singers)], "nr_samples": 8000, "batch_size": 5, "num_workers": 0},
        "trainer": {"max_steps": 2, "enable_progress_bar": False, "accelerator": "cpu"},
    }
    settings["trainer"]["logger"] = {"init_args": {"save_dir": str(tmp_path / "runs")}}
    (tmp_path / "start.yaml").write_text(yaml.safe_dump(settings))
    stack = [word for name in ("common", "supervised", str(tmp_path / "start.yaml")) for word in ("--config", name)]
    assert run_command("train", stack) == 0
    trained, before = load_model(tmp_path / "runs" / "supervised" / "0"), load_model(start)
    assert isinstance(trained.encoder, HuggingFace) and trained.dim == before.dim
    assert not np.allclose(trained.embed(CLIP), before.embed(CLIP), atol=1e-4)
