"""What users of ssl-singer-identity have and do: training checkpoints, arguments by name, weights under any name."""

import shutil

import pytest
import torch
import yaml

from ssl_audio import load_model
from ssl_audio.cli import run_command
from ssl_audio.encoders import EfficientNet
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub import load_checkpoint, singer_identity
from ssl_audio.model import EmbeddingModel
from ssl_audio.resampling import PUBLISHED_FILTER, Resample

SETTINGS = {
    "feature_extractor": {"spec_layer": "melspectogram", "n_fft": 1024, "hop_length": 256, "n_mels": 40},
    "backbone": {"backbone": "efficientnet_b0", "pretrained": True, "embedding_dim": 24},
}
KINDS = ("SSLTrainer", "BYOL")


class Adam:
    """Stands for the optimiser's class, which BYOL keeps among its hyper-parameters."""


def clips(samples=20000):
    return 0.1 * torch.randn(2, samples, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    frontend = LogMelSpectrogram(n_fft=1024, hop_length=256, n_mels=40)
    encoder = EfficientNet(embedding_dim=24)
    return EmbeddingModel(frontend, encoder, 44100, level="peak", level_in_forward=False).eval()


def checkpoint(model, kind, path, **hyper_parameters):
    """What Lightning would save of one of the two classes of the original; the projection doubles the first numbers."""
    inside = singer_identity.published_weights(model)
    linear = {"weight": 2 * torch.eye(6, 24), "bias": torch.zeros(6)}
    if kind == "SSLTrainer":
        weights = {**inside, **{f"projection.net.1.{key}": value for key, value in linear.items()}}
        weights |= {key.replace("feature_extractor.", "net.0.", 1): value for key, value in inside.items()}
        stored = {**SETTINGS, "projection": {"input_dim": 24, "output_dim": 6, "l2_normalize": False}, "temp": 0.2}
    else:
        weights = {}
        for network in ("module", "student_network", "teacher_network"):
            change = 0 if network != "teacher_network" else 1
            weights |= {f"{network}.encoder.{key}": value + change for key, value in inside.items()}
            weights |= {f"{network}.projector.net.1.{key}": value + change for key, value in linear.items()}
        stored = {**SETTINGS, "projection": {"l2_normalize": False}, "optimizer": Adam()}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"epoch": 3, "state_dict": weights, "hyper_parameters": {**stored, **hyper_parameters}}
    torch.save(content, path)
    return path


def same(first, second):
    with torch.no_grad():
        return torch.equal(first(clips()), second(clips()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_training_checkpoint_of_the_original_loads(model, tmp_path, kind):
    path = checkpoint(model, kind, tmp_path / "their.ckpt")
    loaded = load_model(path)
    assert same(loaded, model) and (loaded.sample_rate, loaded.dim) == (44100, 24)
    headed = load_model(path, projection=True)
    with torch.no_grad():
        expected = 2 * torch.nn.functional.silu(model(clips()))[:, :6]
        torch.testing.assert_close(headed(clips()), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", ["ours", "published"])
def test_it_is_converted_by_the_originals_own_command(model, tmp_path, kind, layout):
    """Its documented use, with a config whose settings the checkpoint holds as an object."""
    path = checkpoint(model, kind, tmp_path / "their.ckpt", feature_extractor=Adam(), backbone=Adam())
    section = {"class_path": f"singer_identity.trainer.{kind}", "init_args": SETTINGS}
    (tmp_path / "their.yaml").write_text(yaml.safe_dump({"model": section}))
    given = ["--checkpoint", str(path), "--config", str(tmp_path / "their.yaml"), "--num_trials", "1"]
    assert run_command("convert", [*given, "--output_dir", str(tmp_path / "mine"), "--layout", layout]) == 0
    assert same(load_model("mine", source=tmp_path), model)


def test_a_run_folder_of_the_original_loads_by_its_config(model, tmp_path):
    run = tmp_path / "logs" / "byol" / "version_0"
    checkpoint(model, "BYOL", run / "checkpoints" / "best.ckpt", feature_extractor=Adam())
    with pytest.raises(InputError, match=r"give the run's config: ssl-audio convert .* --config config.yaml"):
        load_model(run)
    (run / "config.yaml").write_text(yaml.safe_dump({"model": {"init_args": SETTINGS}}))
    assert same(load_model(run), model)


def test_a_config_of_something_else_is_named(model, tmp_path):
    path = checkpoint(model, "SSLTrainer", tmp_path / "their.ckpt")
    (tmp_path / "other.yaml").write_text("model: {encoder: 1}")
    with pytest.raises(InputError, match=r"other.yaml: no feature_extractor and backbone in its section 'model'"):
        load_checkpoint(path, tmp_path / "other.yaml")


def test_weights_beside_their_hyperparameters_load_under_any_name(model, tmp_path):
    """`load_model(model_filename.pt, source=folder)`, as its README says it."""
    singer_identity.save_published(model, tmp_path / "byol")
    shutil.move(tmp_path / "byol" / "model.pt", tmp_path / "byol" / "finetuned.pt")
    assert same(load_model("finetuned.pt", source=tmp_path / "byol"), model)
    assert same(load_model(tmp_path / "byol" / "finetuned.pt"), model)
    assert same(load_model(str(tmp_path / "byol" / "finetuned.pt")), model)


def test_the_attention_variant_has_the_published_layout_too(tmp_path):
    torch.manual_seed(0)
    encoder = EfficientNet("efficientnet_b0_att", 8)
    model = EmbeddingModel(LogMelSpectrogram(), encoder, 44100, level="peak", level_in_forward=False).eval()
    singer_identity.save_published(model, tmp_path / "att")
    weights = torch.load(tmp_path / "att" / "model.pt", weights_only=True)
    assert weights["encoder.net.2.att.0.weight"].shape == (4, 640, 1)
    assert weights["encoder.net.2.att.1.network.0.weight"].shape == (128, 4, 1)
    assert "encoder.net.2.vision.0.0.weight" in weights and "encoder.net.2.bn1.running_mean" in weights
    assert same(load_model("att", source=tmp_path), model)


def test_arguments_have_the_originals_names_and_order(model, tmp_path):
    singer_identity.save_published(model, tmp_path / "byol")
    assert same(load_model(model="byol", source=str(tmp_path)), model)
    loaded = load_model("byol", str(tmp_path), False, None, 16000)
    assert loaded.sample_rate == 16000
    with pytest.raises(InputError, match="savedir is 16000; it must be a folder"):
        load_model("byol", str(tmp_path), False, 16000)


def test_input_sr_is_the_originals_filter_for_what_its_layout_can_hold(model, tmp_path):
    singer_identity.save_published(model, tmp_path / "byol")
    waves = clips()
    with torch.no_grad():
        expected = model(Resample(16000, 44100, **PUBLISHED_FILTER)(waves))
        assert torch.equal(load_model("byol", tmp_path, input_sr=16000)(waves), expected)
