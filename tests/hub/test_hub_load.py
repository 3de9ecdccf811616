"""Saving and loading: our layout, training checkpoints, TorchScript, other rates, conversion; and what is refused."""

import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from helpers import REPOSITORY, TESTS, tiny_model
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio import load_model, save_model
from ssl_audio.cli import run_command
from ssl_audio.config import describe
from ssl_audio.encoders import EfficientNet
from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.heads import Projection
from ssl_audio.model import EmbeddingModel
from ssl_audio.resampling import Resample, ResampledFrontend

ROOT = REPOSITORY
STORED = TESTS / "data" / "tiny_model_v1"


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def same(first, second, clips=None):
    clips = noise(2, 16000) if clips is None else clips
    with torch.no_grad():
        return torch.equal(first(clips), second(clips))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder that Lightning's own trainer made in two steps: (folder, the method after training)."""
    import pytorch_lightning as pl

    from ssl_audio.methods import Contrastive

    folder = tmp_path_factory.mktemp("runs") / "my run"
    model = tiny_model(6)
    method = Contrastive(
        frontend=model.frontend, encoder=model.encoder, projection=lambda dim: Projection(dim, 5), sample_rate=16000
    )
    clips = noise(8, 2, 8000)
    batches = [{"clip1": clips[i : i + 4, 0], "clip2": clips[i : i + 4, 1]} for i in (0, 4)]
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    trainer = pl.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(method, loader)
    trainer.save_checkpoint(folder / "checkpoints" / "last.ckpt")
    init_args = {"frontend": describe(model.frontend), "encoder": describe(model.encoder), "sample_rate": 16000}
    init_args["projection"] = {"class_path": "ssl_audio.heads.Projection", "init_args": {"dim": 5}}
    config = {"model": {"class_path": "ssl_audio.methods.Contrastive", "init_args": init_args}, "trainer": {}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return folder, method.eval()


class Doubler(Encoder):
    """An encoder that is not part of the package."""

    def __init__(self, dim: int = 3) -> None:
        super().__init__()
        self.dim = dim
        self.scale = torch.nn.Parameter(torch.full((dim,), 2.0))

    def forward(self, features):
        return features.mean((1, 2))[:, None] * self.scale


def test_our_layout_round_trips(tmp_path):
    model = tiny_model(6)
    save_model(model, tmp_path / "a model")
    assert sorted(p.name for p in (tmp_path / "a model").iterdir()) == ["README.md", "config.yaml", "model.safetensors"]
    loaded = load_model(tmp_path / "a model")
    assert same(loaded, model) and not loaded.training
    assert (loaded.dim, loaded.sample_rate) == (6, 16000)
    assert same(load_model("a model", source=tmp_path), model)
    headed = EmbeddingModel(model.frontend, model.encoder, 16000, Projection(6, 3)).eval()
    save_model(headed, tmp_path / "headed")
    assert same(load_model(str(tmp_path / "headed")), headed)


def test_efficientnet_trained_from_imagenet_loads_without_a_download(tmp_path):
    model = EmbeddingModel(LogMelSpectrogram(), EfficientNet(embedding_dim=4)).eval()
    model.encoder.pretrained = True  # as it was made in training
    save_model(model, tmp_path)
    assert same(load_model(tmp_path), model)


def test_a_model_stored_by_the_first_format_still_loads():
    model = load_model(STORED)
    expected = np.load(STORED / "expected.npz")
    with torch.no_grad():
        np.testing.assert_allclose(
            model(torch.from_numpy(expected["audio"])), expected["embedding"], rtol=1e-4, atol=1e-6
        )


def test_a_failed_save_leaves_the_old_model_whole(tmp_path):
    model = tiny_model(6)
    save_model(model, tmp_path)
    broken = tiny_model(6)
    del broken.encoder.momentum
    with pytest.raises(InputError, match="does not store its argument 'momentum'"):
        save_model(broken, tmp_path)
    assert same(load_model(tmp_path), model)


@pytest.mark.parametrize("target", ["run folder", "checkpoint", "from its config"])
def test_a_runs_checkpoint_loads(run, target):
    from ssl_audio.hub import load_checkpoint

    folder, method = run
    if target == "from its config":
        model = load_checkpoint(folder / "checkpoints/last.ckpt", folder / "config.yaml")
    else:
        model = load_model(folder if target == "run folder" else folder / "checkpoints" / "last.ckpt")
    assert model.sample_rate == 16000 and model.dim == 6
    assert same(model, method.embedding_model().eval())


def test_a_checkpoint_that_does_not_describe_itself_needs_its_config(run, tmp_path):
    from ssl_audio.hub import load_checkpoint

    folder, method = run
    checkpoint = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)
    del checkpoint["model"]
    torch.save(checkpoint, tmp_path / "old.ckpt")
    with pytest.raises(InputError, match="give the config of its run"):
        load_model(tmp_path / "old.ckpt")
    model = load_checkpoint(tmp_path / "old.ckpt", folder / "config.yaml", projection=True)
    assert same(model, method.embedding_model(projection=True).eval())


def test_the_projection_comes_along_when_asked(run):
    folder, method = run
    model = load_model(folder, projection=True)
    assert model.dim == 5 and same(model, method.embedding_model(projection=True).eval())


def test_run_json_names_the_best_checkpoint(run, tmp_path):
    from ssl_audio.hub.place import find_checkpoint

    (tmp_path / "checkpoints").mkdir()
    for name in ("last.ckpt", "epoch=1.ckpt", "epoch=2.ckpt"):
        (tmp_path / "checkpoints" / name).write_bytes(b"")
    assert find_checkpoint(tmp_path).name == "last.ckpt"
    (tmp_path / "run.json").write_text('{"best_checkpoint": "checkpoints/epoch=1.ckpt"}')
    assert find_checkpoint(tmp_path).name == "epoch=1.ckpt"


def test_a_checkpoint_loads_without_lightning(run):
    program = (
        "import sys, ssl_audio, torch\n"
        f"model = ssl_audio.load_model({str(run[0])!r})\n"
        "extras = ('pytorch_lightning', 'jsonargparse', 'sklearn', 'pandas', 'matplotlib', 'huggingface_hub')\n"
        "print(model.embed(torch.zeros(16000)).shape, [name for name in extras if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "(6,) []"


def test_classes_of_others_need_trust(tmp_path):
    model = EmbeddingModel(tiny_model(6).frontend, Doubler(), 16000).eval()
    save_model(model, tmp_path)
    with pytest.raises(InputError, match=r"not part of ssl_audio; if you know its origin, pass trusted=True"):
        load_model(tmp_path)
    assert same(load_model(tmp_path, trusted=True), model)


def test_torchscript_loads_and_keeps_its_rate(tmp_path):
    model = tiny_model(6)
    save_model(model, tmp_path / "m")
    torch.jit.trace(model, noise(2, 16000)).save(str(tmp_path / "m" / "model.ts"))
    loaded = load_model("m", source=tmp_path, torchscript=True)
    assert (loaded.dim, loaded.sample_rate) == (6, 16000)
    with torch.no_grad():
        torch.testing.assert_close(loaded(noise(3, 20000)), model(noise(3, 20000)))
    with pytest.raises(InputError, match="audio at 16000 Hz only, not 44100"):
        load_model("m", source=tmp_path, torchscript=True, input_sr=44100)
    (tmp_path / "m" / "model.ts").write_bytes(b"no such thing")
    with pytest.raises(InputError, match="not a TorchScript file"):
        load_model("m", source=tmp_path, torchscript=True)
    (tmp_path / "m" / "model.ts").unlink()
    with pytest.raises(InputError, match=r"model\.ts: no such file"):
        load_model("m", source=tmp_path, torchscript=True)


def damaged(folder, kind):
    """Damage a saved model in one way; the words that must be said of it."""
    weights, config = folder / "model.safetensors", folder / "config.yaml"
    content = yaml.safe_load(config.read_text())
    if kind == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
        return r"model\.safetensors: truncated or damaged"
    if kind == "no weights":
        weights.unlink()
        return r"model\.safetensors: no such file"
    if kind == "not yaml":
        config.write_text("a: [")
        return r"config\.yaml: not valid YAML"
    if kind == "newer":
        content["format_version"] = 99
        words = "format 99, .* pip install -U"
    elif kind == "no version":
        del content["format_version"]
        words = "no format_version"
    elif kind == "unknown class":
        content["model"]["init_args"]["encoder"]["class_path"] = "ssl_audio.encoders.Nope"
        words = "unknown class 'ssl_audio.encoders.Nope'"
    else:
        content["model"]["init_args"]["encoder"]["init_args"]["channels"] = [4, 4, 4]
        words = r"keys missing \(.*\.\.\.\).*shapes that differ \(.*file \(8, 1, 3, 3\), model \(4, 1, 3, 3\)"
    config.write_text(yaml.safe_dump(content))
    return words


@pytest.mark.parametrize(
    "kind", ["truncated", "no weights", "not yaml", "newer", "no version", "unknown class", "other shape"]
)
def test_damaged_models_are_named(tmp_path, kind):
    save_model(tiny_model(6), tmp_path)
    words = damaged(tmp_path, kind)
    with pytest.raises(InputError, match=words) as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda config: config.update(model=None), "describes no EmbeddingModel"),
        (lambda config: config.update(model="a network"), "describes no EmbeddingModel"),
        (lambda config: config["model"]["init_args"].update(encoder=None), "cannot be built"),
        (lambda config: config["model"]["init_args"].update(sample_rate="fast"), "cannot be built"),
    ],
)
def test_a_config_with_the_wrong_kind_of_value_is_named(tmp_path, change, words):
    save_model(tiny_model(6), tmp_path / "m")
    config = yaml.safe_load((tmp_path / "m" / "config.yaml").read_text())
    change(config)
    (tmp_path / "m" / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(InputError, match=words):
        load_model(tmp_path / "m")


@given(st.binary(max_size=200), st.sampled_from([b"", b"\x80\x02", b"\x80\x04", b"PK", b"PK\x03\x04"]))
@settings(max_examples=200, deadline=None)
def test_no_file_at_all_brings_down_the_reader(tmp_path_factory, content, start):
    path = tmp_path_factory.getbasetemp() / "any.ckpt"
    path.write_bytes(start + content)
    with pytest.raises(InputError):
        load_model(path)


def test_a_web_page_in_place_of_weights_is_not_called_an_attack(tmp_path):
    (tmp_path / "page.ckpt").write_text("<html>404</html>")
    with pytest.raises(InputError, match="not a torch weight file"):
        load_model(tmp_path / "page.ckpt")


@pytest.mark.parametrize("rate", [0, -1, 44100.5, "16000"])
def test_an_input_rate_that_is_none_is_refused(tmp_path, rate):
    save_model(tiny_model(6), tmp_path / "m")
    with pytest.raises(InputError, match="input_sr"):
        load_model(tmp_path / "m", input_sr=rate)


def test_a_damaged_run_json_is_named(run, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"x")
    (tmp_path / "run.json").write_text("{half")
    with pytest.raises(InputError, match=r"run\.json: damaged"):
        load_model(tmp_path)


def test_missing_models_are_named(tmp_path):
    save_model(tiny_model(6), tmp_path / "one")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "todo.txt").touch()
    for name, source, words in [
        ("two", tmp_path, r"has no model 'two'; it has one"),
        (tmp_path / "notes", None, r"holds no model.*it has todo\.txt"),
        (tmp_path / "nothing", None, "no such file or folder"),
        ("byol", "not an id", "neither a folder nor a Hub id"),
        (tmp_path / "notes" / "todo.txt", None, r"todo\.txt: .*damaged"),
    ]:
        with pytest.raises(InputError, match=words):
            load_model(name, **({} if source is None else {"source": source}))


def test_another_input_rate_puts_a_resampler_in_front(tmp_path):
    model = tiny_model(6)
    save_model(model, tmp_path / "m")
    loaded = load_model(tmp_path / "m", input_sr=44100)
    assert loaded.sample_rate == 44100 and isinstance(loaded.frontend, ResampledFrontend)
    clip = noise(1, 44100).requires_grad_()
    embedding = loaded(clip)
    torch.testing.assert_close(embedding, model(Resample(44100, 16000)(clip)))
    embedding.sum().backward()
    assert clip.grad.abs().sum() > 0
    with torch.no_grad():
        assert loaded(noise(1, loaded.minimum_samples)).isfinite().all()
    with pytest.raises(InputError, match="too short"):
        loaded(noise(1, loaded.minimum_samples - 1))
    save_model(loaded, tmp_path / "resampled")
    assert same(load_model(tmp_path / "resampled"), loaded, noise(2, 44100))
    assert isinstance(load_model(tmp_path / "m", input_sr=16000).frontend, LogMelSpectrogram)
    with pytest.raises(InputError, match="resample the audio first"):
        load_model(tmp_path / "m", input_sr=44101)


def test_convert_writes_a_model_with_the_same_output(run, tmp_path):
    folder, method = run
    arguments = [
        "--checkpoint",
        folder / "checkpoints/last.ckpt",
        "--config",
        folder / "config.yaml",
        "--num_trials",
        3,
    ]
    door = [sys.executable, ROOT / "convert_checkpoint.py", *map(str, arguments), "--output_dir", tmp_path / "out"]
    result = subprocess.run(door, capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert same(load_model(tmp_path / "out"), method.embedding_model().eval())
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def checkpoint_of(model, path):
    """What a method would save of this model."""
    weights = dict(model.state_dict())
    spec = {"frontend": describe(model.frontend), "encoder": describe(model.encoder), "sample_rate": model.sample_rate}
    torch.save({"state_dict": weights, "model": spec}, path)
    return str(path)


def test_convert_to_the_published_layout(tmp_path):
    torch.manual_seed(0)
    model = EmbeddingModel(LogMelSpectrogram(), EfficientNet(embedding_dim=8)).eval()
    checkpoint = checkpoint_of(model, tmp_path / "x.ckpt")
    arguments = ["--checkpoint", checkpoint, "--layout", "published", "--num_trials", "1"]
    assert run_command("convert", [*arguments, "--output_dir", str(tmp_path / "mine")]) == 0
    assert sorted(p.name for p in (tmp_path / "mine").iterdir()) == ["hyperparams.yaml", "model.pt", "model.ts"]
    clips = noise(2, 30000)
    assert same(load_model("mine", source=tmp_path), model, clips)
    with torch.no_grad():
        scripted = load_model("mine", source=tmp_path, torchscript=True)(clips)
        torch.testing.assert_close(scripted, model(clips), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("case", ["layout", "differs", "config", "no checkpoint"])
def test_convert_refuses_and_leaves_nothing_behind(run, tmp_path, capsys, case):
    model = tiny_model(6)
    config, layout = [], "ours"
    if case == "layout":
        layout, words = "published", "the published layout holds efficientnet_b0"
    if case == "differs":
        model.encoder.projection.weight.data[0, 0] = float("nan")
        words = "x.ckpt: weights are not finite (encoder.projection.weight)"
    checkpoint = checkpoint_of(model, tmp_path / "x.ckpt")
    if case == "config":
        content = yaml.safe_load((run[0] / "config.yaml").read_text())
        content["model"]["init_args"]["encoder"]["init_args"]["embedding_dim"] = 7
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
        config, words = ["--config", str(tmp_path / "config.yaml")], "encoder.embedding_dim is 7 and 6"
    if case == "no checkpoint":
        checkpoint, words = str(tmp_path / "y.ckpt"), "no such checkpoint"
    before = sorted(tmp_path.rglob("*"))
    status = run_command(
        "convert", ["--checkpoint", checkpoint, *config, "--layout", layout, "--output_dir", str(tmp_path / "o")]
    )
    assert status == 2 and words in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
