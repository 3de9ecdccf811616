"""`ssl-audio harness`: written files against the contracts of the benchmarks, and their checkers where installed."""

import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
import yaml
from helpers import tone
from torch import nn

from ssl_audio.cli import main
from ssl_audio.commands.harness import FILES
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub import load_model, save_model
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint

S3PRL = importlib.util.find_spec("s3prl") is not None


def tiny(rate=16000, seed=0):
    torch.manual_seed(seed)
    frontend = LogMelSpectrogram(rate, n_fft=512, hop_length=160, n_mels=32, normalize="band")
    return EmbeddingModel(frontend, CompactCNN([8, 8], embedding_dim=16), rate).eval()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness")
    for name, rate in (("model", 16000), ("at 24 kHz", 24000)):
        save_model(tiny(rate), folder / name)
    return folder


@pytest.fixture
def written(saved, tmp_path, monkeypatch):
    """`written(kind)` writes the file for a kind and imports it, with stand-ins for what is not installed."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(kind, model="model"):
        path = tmp_path / f"my_{kind}.py"
        assert main(["harness", kind, "--model", str(saved / model), "--output", str(path)]) == 0
        for name, content in STAND_INS.get(kind, {}).items():
            if kind != "s3prl" or not S3PRL:
                module = types.ModuleType(name)
                vars(module).update(content)
                monkeypatch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, path.stem, module)
        spec.loader.exec_module(module)
        return module

    return write


class _Base(nn.Module):
    """As `evar.ar_base.BaseAudioRepr` takes its config, and as the bases of MARBLE and s3prl take nothing."""

    def __init__(self, cfg=None, **kwargs):
        super().__init__()
        self.cfg = cfg


STAND_INS = {
    "evar": {"evar": {}, "evar.ar_base": {"BaseAudioRepr": _Base}},
    "marble": {"marble": {}, "marble.core": {}, "marble.core.base_encoder": {"BaseEncoder": _Base}},
    "s3prl": {"s3prl": {}, "s3prl.upstream": {}, "s3prl.upstream.interfaces": {"UpstreamBase": _Base}},
}


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- HEAR


def test_hear(written):
    module = written("hear")
    model = module.load_model("")
    assert (
        model.sample_rate == 16000 and model.scene_embedding_size == 16 and type(model.timestamp_embedding_size) is int
    )
    for count, seconds in [(2, 1.07), (2, 1.98), (2, 4.0), (4, 2.74), (1, 65.0)]:
        audio = noise(count, round(seconds * 16000))
        scenes = module.get_scene_embeddings(audio, model)
        assert scenes.shape == (count, 16) and scenes.dtype == torch.float32
        frames, times = module.get_timestamp_embeddings(audio, model)
        assert frames.shape == (*times.shape, model.timestamp_embedding_size) and frames.dtype == torch.float32
        steps = times.diff()
        assert (steps - steps.mean()).abs().max() < 1 and times[:, -1].max() <= 1000 * seconds
        assert times[0, 0] <= steps.mean()
    short = noise(2, 16000)
    np.testing.assert_allclose(module.get_scene_embeddings(short, model), tiny().embed(short.numpy()), atol=1e-5)


def test_hear_at_a_rate_that_it_does_not_offer(written):
    module = written("hear", "at 24 kHz")
    model = module.load_model()
    assert model.sample_rate == 32000
    times = torch.arange(32000) / 32000
    sound = 0.3 * torch.sin(2 * np.pi * 440 * times)
    expected = tiny(24000).embed(sound.numpy(), 32000)
    found = module.get_scene_embeddings(sound[None], model)[0].numpy()
    assert expected @ found / np.linalg.norm(expected) / np.linalg.norm(found) > 0.999  # two resamplers


@pytest.mark.parametrize("model", ["model", "at 24 kHz"])
def test_hears_own_validator(written, monkeypatch, model):
    pytest.importorskip("hearvalidator", reason="hearvalidator is not installed (pip install --no-deps hearvalidator)")
    if importlib.util.find_spec("tensorflow") is None:  # it is imported to tell TensorFlow's modules from torch's
        monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(Module=type("Module", (), {})))
    from hearvalidator.validate import ValidateModel

    module = written("hear", model)
    # the release on PyPI is older than the rate of 32 kHz
    monkeypatch.setattr(ValidateModel, "ACCEPTABLE_SAMPLE_RATE", [16000, 22050, 32000, 44100, 48000])
    ValidateModel(module.__name__, "", "cpu")()


# --- X-ARES


def xares_class(module):
    (name,) = [name for name in vars(module) if name.endswith("Encoder")]  # it takes the one that ends so
    return getattr(module, name)


def test_xares(written):
    encoder = xares_class(written("xares"))()
    assert isinstance(encoder, nn.Module) and fingerprint(tiny()) in type(encoder).__name__
    frames = encoder(noise(2, 50000))
    assert frames.ndim == 3 and frames.shape[0] == 2 and frames.shape[2] == encoder.output_dim
    assert (
        abs(frames.shape[1] * encoder.hop_size_in_ms - 1000 * 50000 / encoder.sampling_rate)
        < 2 * encoder.hop_size_in_ms
    )


def test_the_mean_over_frames_does_not_depend_on_the_padding_of_xares(written):
    encoder = xares_class(written("xares"))()
    long, short = noise(1, 48000), noise(1, 20000, seed=1)
    alone = encoder(short).mean(1)
    batch = torch.cat([long, torch.nn.functional.pad(short, (0, 28000))])
    torch.testing.assert_close(encoder(batch)[1:].mean(1), alone)
    assert torch.isfinite(encoder(torch.zeros(2, 20000))).all()


def test_xares_own_checker(written):
    pytest.importorskip("xares", reason="xares is not installed")
    from xares.audio_encoder_checker import check_audio_encoder

    assert check_audio_encoder(xares_class(written("xares"))())


# --- EVAR, MARBLE


def test_evar(written):
    module = written("evar")
    config = yaml.safe_load("\n".join(line for line in module.__doc__.splitlines() if line.startswith("    ")))
    assert config["audio_repr"] == "ar_ssl_audio.AR_SSLAudio" and hasattr(module, "AR_SSLAudio")
    representation = module.AR_SSLAudio(types.SimpleNamespace(**config))
    representation.precompute("cpu", None)
    clips = noise(3, 32000)
    embeddings, frames = representation(clips), representation.encode_frames(clips)
    assert embeddings.shape == (3, config["feature_d"]) and frames.shape[0] == 3 and frames.ndim == 3
    np.testing.assert_allclose(embeddings, tiny().embed(clips.numpy()), atol=1e-5)
    torch.testing.assert_close(frames.transpose(1, 2), representation.representation.frames.model.frames(clips))
    with pytest.raises(InputError, match="sample_rate is 44100 in EVAR's config and 16000"):
        module.AR_SSLAudio(types.SimpleNamespace(**{**config, "sample_rate": 44100}))


def test_marble(written):
    module = written("marble")
    encoder = module.SSLAudioEncoder()
    layers = encoder(noise(2, 48000), torch.tensor([48000, 48000]))
    assert isinstance(layers, tuple) and len(layers) == encoder.N_TRANSFORMER_LAYERS == 1
    assert torch.stack(layers).ndim == 4 and layers[0].shape[::2] == (2, encoder.NUM_FEATURES)
    assert abs(layers[0].shape[1] - 3 * encoder.TOKEN_RATE) <= 1 and encoder.SAMPLING_RATE == 16000
    encoder.train()
    assert not any(part.training for part in encoder.layers.modules()) and not layers[0].requires_grad
    full = module.SSLAudioEncoder(train_mode="full").train()
    full(noise(2, 1, 48000))[0].sum().backward()
    assert any(weight.grad is not None for weight in full.parameters())
    with pytest.raises(InputError, match="freeze or full"):
        module.SSLAudioEncoder(train_mode="lora")


# --- s3prl


def test_s3prl(written):
    upstream = written("s3prl").UpstreamExpert(ckpt=None, model_config=None)
    rate = upstream.get_downsample_rates("hidden_states")
    wavs = [noise(16000), noise(12345, seed=1), noise(600, seed=2)]
    result = upstream(wavs)
    hidden = result["hidden_states"]
    assert len(hidden) == 1 and hidden[0].shape[:2] == (3, round(16000 / rate))
    assert torch.equal(hidden[0], result["last_hidden_state"])
    alone = upstream(wavs[1:2])["last_hidden_state"][0]
    torch.testing.assert_close(hidden[0][1, : len(alone)], alone)
    assert len(alone) == round(12345 / rate)


def test_s3prls_own_featurizer(written):
    pytest.importorskip("s3prl", reason="s3prl is not installed (pip install --no-deps s3prl)")
    from s3prl.upstream.interfaces import Featurizer

    upstream = written("s3prl").UpstreamExpert()
    featurizer = Featurizer(upstream, "hidden_states", upstream_device="cpu")
    wavs = [noise(16000), noise(12345), noise(40 * 16000)]
    features = featurizer(wavs, upstream(wavs))
    assert [len(rows) for rows in features] == [round(len(wav) / featurizer.downsample_rate) for wav in wavs]


# --- MTEB


def clips_of(rate=16000):
    return [{"array": tone(0.5 + 0.1 * (i % 2), rate, 150 + 50 * i, i), "sampling_rate": rate} for i in range(5)]


def test_mteb_encodes_in_order_at_any_rate(saved):
    from ssl_audio.harnesses.mteb import MTEBEncoder
    from ssl_audio.harnesses.source import Target

    encoder = MTEBEncoder(Target.of(str(saved / "model")))
    clips = [*clips_of(), *clips_of(22050)]
    stereo = {"array": [clips[0]["array"].tolist()] * 2, "sampling_rate": 16000}
    found = encoder.encode([{"audio": clips[:4]}, {"audio": [*clips[4:], stereo]}], task_metadata=None, hf_split="test")
    expected = [tiny().embed(clip["array"], clip["sampling_rate"]) for clip in clips]
    np.testing.assert_allclose(found[:-1], expected, atol=1e-5)
    np.testing.assert_allclose(found[-1], expected[0], atol=1e-5)
    similarity = encoder.similarity(found, found[:3])
    assert similarity.shape == (11, 3) and similarity.diagonal().tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    assert torch.allclose(
        encoder.similarity_pairwise(found[:3], found[1:4]), encoder.similarity(found[:3], found[1:4]).diag()
    )


@pytest.mark.slow
def test_mteb_runs_a_task(saved, tmp_path, monkeypatch, capsys):
    mteb = pytest.importorskip("mteb", reason="mteb is not installed")
    from datasets import Dataset, DatasetDict, Features, Sequence, Value
    from mteb.mocks.mock_tasks.classification import MockAudioClassification

    class Tones(MockAudioClassification):
        def load_data(self, **kwargs):
            audio = {"array": Sequence(Value("float32")), "sampling_rate": Value("int32")}
            rows = {"audio": [], "label": []}
            for i in range(24):
                rows["audio"].append({"array": tone(0.6, 16000, (200, 800)[i % 2] + i, i), "sampling_rate": 16000})
                rows["label"].append(i % 2)
            data = Dataset.from_dict(rows, Features({"audio": audio, "label": Value("int64")}))
            self.dataset, self.data_loaded = DatasetDict({"train": data, "test": data}), True

    monkeypatch.setattr(mteb, "get_task", lambda name: {"Tones": Tones}[name]())
    command = ["harness", "mteb", "--model", str(saved / "model"), "--output", str(tmp_path / "results")]
    assert main([*command, "--tasks", "Tones"]) == 0
    name, score = capsys.readouterr().out.split()[-2:]
    assert name == "MockAudioClassification" and float(score) > 0.6
    (result,) = (tmp_path / "results").rglob("MockAudioClassification.json")
    assert fingerprint(tiny()) in str(result)
    assert main([*command, "--tasks", "Tonnes"]) == 2
    assert "MTEB has no task 'Tonnes'" in capsys.readouterr().err


# --- the command


@pytest.mark.parametrize("kind", FILES)
def test_a_file_refuses_another_model_than_it_was_written_for(saved, written, kind, monkeypatch):
    module = written(kind)
    other = tiny(seed=1)
    monkeypatch.setattr("ssl_audio.harnesses.source.load_model", lambda *args, **kwargs: other)
    make = {
        "hear": lambda: module.load_model(),
        "xares": lambda: xares_class(module)(),
        "evar": lambda: module.AR_SSLAudio(types.SimpleNamespace(sample_rate=16000)),
        "marble": lambda: module.SSLAudioEncoder(),
        "s3prl": lambda: module.UpstreamExpert(),
    }[kind]
    with pytest.raises(InputError, match="has changed since this file was written"):
        make()


def test_paths_with_quotes_and_backslashes_are_no_code(tmp_path, monkeypatch):
    folder = tmp_path / 'a "model"\\n\'s """ #'
    save_model(tiny(), folder)
    output = tmp_path / "written.py"
    assert main(["harness", "hear", "--model", str(folder), "--output", str(output)]) == 0
    names: dict = {}
    exec(compile(output.read_text(encoding="utf-8"), "written.py", "exec"), names)
    assert names["load_model"]().scene_embedding_size == load_model(folder).dim


@pytest.mark.skipif(importlib.util.find_spec("mteb") is not None, reason="mteb is installed")
def test_without_mteb_its_installation_is_named(saved, tmp_path, capsys):
    command = ["harness", "mteb", "--model", str(saved / "model"), "--output", str(tmp_path / "x"), "--tasks", "a"]
    assert main(command) == 2 and "pip install mteb" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hear", "--output", "x.txt"], "must end in .py"),
        (["hear", "--output", "x.py", "--tasks", "a"], "--tasks is for mteb"),
        (["mteb", "--output", "x"], "needs --tasks"),
        (["mteb", "--output", "x", "--tasks", "a", "--batch_size", "0"], "--batch_size is 0"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(saved, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["harness", *arguments, "--model", str(saved / "model")]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1 and not list(tmp_path.iterdir())
