"""Encoders that are built again from weights in packages of PyPI, beside what the packages themselves compute."""

from importlib.metadata import PackageNotFoundError, distribution

import numpy as np
import pytest
import torch
from helpers import TESTS

from ssl_audio import load_model, save_model
from ssl_audio.config import build, describe
from ssl_audio.encoders import AISFX, Musicnn, Resemblyzer
from ssl_audio.encoders.musicnn import package_weights
from ssl_audio.encoders.resemblyzer import raised, without_silence
from ssl_audio.errors import InputError
from ssl_audio.export import OnnxModel, export_onnx, export_torchscript
from ssl_audio.provenance import fingerprint
from ssl_audio.utils.tensorflow_files import read_checkpoint

PACKAGES = ("resemblyzer", "aisfx", "musicnn")


@pytest.fixture(autouse=True, scope="module")
def packages() -> None:
    for name in PACKAGES:
        try:
            distribution(name)
        except PackageNotFoundError:
            pytest.skip(f"the package {name} is not installed")


def reference(name: str) -> tuple[dict[str, np.ndarray], torch.Tensor]:
    """The package's values, and the wave that it was given as (1, samples)."""
    found = dict(np.load(TESTS / "data" / "others" / f"{name}_reference.npz"))
    return found, torch.from_numpy(found["wave_int16"].astype(np.float32) / 32768)[None]


def near(ours: torch.Tensor, theirs: np.ndarray, tolerance: float) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=tolerance)


@torch.inference_mode()
def test_resemblyzer_gives_what_its_package_gives():
    values, wave = reference("resemblyzer")
    model = load_model("package:resemblyzer")
    near(model.encoder.partials(wave)[0], values["partials"], 1e-6)
    near(model(wave)[0], values["embedding"], 1e-6)
    near(model(wave[:, :8000])[0], values["embedding_first_8000"], 1e-6)
    assert (model.sample_rate, model.dim, model.licence) == (16000, 256, "apache-2.0")
    assert sum(p.numel() for p in model.parameters()) == 1_423_616


@torch.inference_mode()
def test_resemblyzer_with_its_own_preprocessing():
    values, wave = reference("resemblyzer")
    model = load_model("package:resemblyzer?level=-30&trim=webrtc")
    near(model(wave)[0], values["embedding_preprocessed"], 1e-6)
    assert len(without_silence(raised(wave, -30)[0])) == values["preprocessed_samples"]
    assert describe(model)["init_args"]["encoder"]["init_args"]["trim"] == "webrtc"
    assert fingerprint(model) != fingerprint(load_model("package:resemblyzer"))


def test_the_level_is_raised_and_never_lowered():
    clips = torch.tensor([[0.01, -0.01], [0.5, -0.5], [0.0, 0.0]])
    np.testing.assert_allclose(raised(clips, -30)[:, 0], [10**-1.5, 0.5, 0.0], rtol=1e-6)


def test_silence_is_cut_out_and_a_silent_clip_stays():
    _, wave = reference("resemblyzer")
    pause = torch.zeros(32000)
    trimmed = without_silence(torch.cat([wave[0], pause, wave[0]]))
    assert len(trimmed) < 2 * wave.shape[1] + 16000
    assert torch.equal(without_silence(pause), pause)


def test_partials_are_those_of_the_package_at_every_length():
    """The package's rule as it is written there; ours is a formula."""

    def count(samples: int) -> int:
        frames = -(-(samples + 1) // 160)
        starts = list(range(0, max(1, frames - 160 + 77 + 1), 77))
        covered = (samples - starts[-1] * 160) / 25600
        return len(starts) - (covered < 0.75 and len(starts) > 1)

    encoder = Resemblyzer().eval()
    with torch.inference_mode():
        for samples in (400, 25599, 31519, 31520, 43839, 43840, 60000):
            assert encoder.partials(torch.zeros(1, samples)).shape[1] == count(samples)


@torch.inference_mode()
def test_aisfx_gives_what_its_package_gives():
    values, wave = reference("aisfx")
    model = load_model("package:aisfx")
    near(model.encoder.log_mel(wave)[0], values["essentia_log_mel"], 1e-4)
    near(model.encoder.block_vectors(wave)[0], values["essentia_blocks"], 2e-5)
    near(model(wave)[0], values["embedding_mean"], 2e-5)
    assert (model.sample_rate, model.dim, model.licence) == (44100, 512, "cc-by-4.0")


@torch.inference_mode()
@pytest.mark.parametrize("weights", ["MTT", "MSD"])
def test_musicnn_gives_what_its_package_gives(weights):
    values, wave = reference("musicnn")
    model = load_model(f"package:musicnn?weights={weights}&vector=pooled")
    mel = model.encoder.log_mel(wave)[:, :187]
    near(mel[0], values["log_mel"], 2e-5)
    pooled = model.encoder.pooled(mel)
    near(pooled[0, ::2], values[f"{weights}_musicnn_max_pool"], 5e-4)  # up to 94
    near(pooled[0, 1::2], values[f"{weights}_musicnn_mean_pool"], 5e-5)
    assert torch.equal(model(wave), pooled)
    hidden = load_model(f"package:musicnn?weights={weights}").encoder.penultimate(pooled)
    near(hidden[0], values[f"{weights}_musicnn_dense_relu"], 1e-4)


@torch.inference_mode()
def test_the_penultimate_layer_gives_musicnns_tags():
    values, wave = reference("musicnn")
    prefix = str(distribution("musicnn").locate_file("musicnn/MTT_musicnn/")) + "/"
    last = {name: torch.from_numpy(array) for name, array in read_checkpoint(prefix).items() if "dense_1" in name}
    vector = load_model("package:musicnn")(wave)
    near((vector @ last["dense_1/kernel"] + last["dense_1/bias"])[0], values["MTT_musicnn_logits"], 1e-4)


@torch.inference_mode()
def test_musicnn_is_the_mean_over_patches_of_three_seconds_and_takes_shorter_clips():
    wave = reference("musicnn")[1]
    model = load_model("package:musicnn")
    long = torch.cat([wave, wave.flip(1)], dim=1)
    mel = model.encoder.log_mel(long)
    parts = [model.encoder.dense_norm(model.encoder.penultimate(model.encoder.pooled(p))) for p in mel.split(187, 1)]
    assert parts[-1].shape == (1, 200) and mel.shape[1] // 187 == 2
    torch.testing.assert_close(model(long), torch.stack(parts[:2]).mean(dim=0))
    assert model(wave[:, :8000]).isfinite().all()


@pytest.mark.parametrize("name", PACKAGES)
def test_a_packaged_model_saves_loads_and_trains_as_ours_do(name, tmp_path):
    model = load_model(f"package:{name}?short=repeat")
    torch.manual_seed(0)
    clips = 0.1 * torch.randn(3, model.sample_rate * 2)
    save_model(model, tmp_path / "saved")
    loaded = load_model(tmp_path / "saved")
    with torch.inference_mode():
        assert torch.equal(loaded(clips), model(clips))
        torch.testing.assert_close(model(clips)[1:2], model(clips[1:2]), rtol=1e-4, atol=1e-5)
    assert fingerprint(loaded) == fingerprint(model)
    assert loaded.licence == model.licence
    assert loaded.minimum_samples == 1 and loaded(clips[:, :100]).isfinite().all()
    encoder = build(describe(model.encoder))
    encoder.load_state_dict(model.encoder.state_dict())
    before = {key: value.clone() for key, value in encoder.named_parameters()}
    optimizer = torch.optim.SGD(encoder.train().parameters(), lr=1e-3)
    vectors = encoder(clips)
    (vectors * torch.randn_like(vectors)).sum().backward()
    optimizer.step()
    unmoved = [key for key, value in encoder.named_parameters() if torch.equal(value, before[key])]
    assert not [key for key in unmoved if "norm" not in key and "dense" not in key]


def test_the_gradient_reaches_the_waveform():
    clip = (0.1 * torch.randn(1, 30000)).requires_grad_()
    torch.manual_seed(0)
    (Resemblyzer()(clip) * torch.randn(256)).sum().backward()
    assert clip.grad is not None and clip.grad.abs().sum() > 0


@pytest.mark.slow
@pytest.mark.parametrize("encoder, rate", [(AISFX, 44100), (Musicnn, 16000), (Resemblyzer, 16000)])
def test_exports_take_clips_of_several_windows(encoder, rate, tmp_path):
    model = load_model(f"package:{encoder.__name__.lower()}")
    clips = 0.1 * torch.randn(2, 7 * rate, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = model(clips)
        export_torchscript(model, tmp_path / "model.ts")
        torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(clips), expected, rtol=1e-4, atol=1e-4)
        export_onnx(model, tmp_path / "model.onnx")
        torch.testing.assert_close(OnnxModel(tmp_path / "model.onnx", model)(clips), expected, rtol=1e-3, atol=1e-3)


def test_a_trimmed_model_is_not_exported(tmp_path):
    with pytest.raises(InputError, match="trim=webrtc cannot be exported"):
        export_torchscript(load_model("package:resemblyzer?trim=webrtc"), tmp_path / "model.ts")
    assert not (tmp_path / "model.ts").exists()


def test_wrong_arguments_are_named():
    for arguments, message in [
        ({"level": 3}, "level is 3"),
        ({"trim": "librosa"}, "trim is 'librosa'"),
        ({"short": "cut"}, "short is 'cut'; it must be one of refuse, repeat, pad"),
    ]:
        with pytest.raises(InputError, match=message):
            Resemblyzer(**arguments)
    with pytest.raises(InputError, match="vector is 'last'"):
        Musicnn("last")


def test_damaged_weight_files_are_refused_in_one_line(tmp_path):
    from ssl_audio.encoders import aisfx, resemblyzer

    (tmp_path / "x.pth").write_bytes(b"PK\x03\x04 and nothing else")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pt")
    folder = distribution("musicnn").locate_file("musicnn/MTT_musicnn")
    (tmp_path / "cut.index").write_bytes((folder / ".index").read_bytes())
    (tmp_path / "cut.data-00000-of-00001").write_bytes(b"\0" * 1000)
    for read, name in [
        (aisfx.package_weights, "x.pth"),
        (resemblyzer.package_weights, "other.pt"),
        (package_weights, "cut"),
        (package_weights, "absent"),
    ]:
        with pytest.raises(InputError) as caught:
            read(str(tmp_path / name))
        assert name in str(caught.value) and "\n" not in str(caught.value)
