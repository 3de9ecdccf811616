"""Where `hf:` models come from: the Hub, folders, code of others; what goes wrong there; a run that starts from one."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hf_models import BODY, CLIP, WAVE, near, stored, theirs, transformers
from loopback_hub import Repository

from ssl_audio import load_model, save_model
from ssl_audio.cli import run_command
from ssl_audio.config import build, describe
from ssl_audio.encoders import HuggingFace
from ssl_audio.errors import InputError
from ssl_audio.hub.address import expanded
from ssl_audio.provenance import fingerprint


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
    with pytest.raises(InputError, match=r"not whole in the cache, which lacks .*, and the Hub cannot") as caught:
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
        ("layer=9", "there is no such layer; the model has the layers 0 to 2"),
        ("layer=last", "layer=last is wrong"),
        ("layer=0,7", "there is no such layer"),
        ("pool=max", "pool=max is wrong; it must be one of mean, mean+std, cls, model"),
        ("pool=cls", "hubert has no class token"),
        ("pool=model", "hubert computes no vector of its own"),
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
        (bert, "the model_type 'bert' is not supported"),
        (cut, "its weights cannot be read"),
        (other, "weights are missing or have another shape, such as encoder.layers.1"),
        (ours, "this is a model of ssl_audio, so leave hf: out"),
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
    assert "has no preprocessor_config.json; the default settings of its family are used" in caplog.text


def test_the_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(InputError, match=r"needs transformers; install it with: pip install .*\[hf\]'"):
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
