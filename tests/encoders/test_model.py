"""EmbeddingModel: what it promises of a clip, and what it says of a bad one."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from helpers import tiny_model

from ssl_audio import audio
from ssl_audio.encoders import EfficientNet
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.heads import Projection
from ssl_audio.model import EmbeddingModel


@pytest.fixture
def model():
    return tiny_model(24)


def noise(*shape):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_a_batch_in_embeddings_and_frames_out(model):
    clips = noise(3, 16000)
    assert model(clips).shape == (3, model.dim) == (3, 24)
    assert model.frames(clips).shape[::2] == (3, model.encoder.frame_dim)
    headed = EmbeddingModel(model.frontend, model.encoder, 16000, Projection(24, 6)).eval()
    assert headed(clips).shape == (3, headed.dim) == (3, 6)


@pytest.mark.parametrize(
    "make", [tiny_model, lambda: EmbeddingModel(LogMelSpectrogram(), EfficientNet(embedding_dim=8))]
)
def test_an_embedding_depends_on_its_clip_alone(make):
    model = make().eval()
    clips = noise(3, 16000) * torch.tensor([[1.0], [1e-3], [5.0]])
    with torch.no_grad():
        together, alone = model(clips), torch.cat([model(clip[None]) for clip in clips])
    assert (together - alone).abs().max() <= 1e-4 * together.abs().max()


def test_the_shortest_clip_is_what_it_says(model):
    with torch.no_grad():
        assert model(noise(1, model.minimum_samples)).isfinite().all()
    with pytest.raises(InputError, match=rf"too short; this model needs at least {model.minimum_samples}"):
        model(noise(1, model.minimum_samples - 1))


def test_embed_equals_forward_for_file_clip_and_batch(model, tmp_path, write_tone):
    path = write_tone(tmp_path / "ein Lied, #1.wav", seconds=1.0)
    clip = audio.read(path, sample_rate=16000)
    with torch.no_grad():
        expected = model(torch.from_numpy(clip)[None])[0].numpy()
    for given in (path, str(path), clip, torch.from_numpy(clip), clip.astype(np.float64)):
        result = model.embed(given)
        assert result.shape == (model.dim,) and result.dtype == np.float32
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
    assert model.embed(np.stack([clip, clip])).shape == (2, model.dim)


def test_embed_resamples_files_and_arrays(model, tmp_path, write_tone):
    path = write_tone(tmp_path / "tone.wav", seconds=1.0, sample_rate=44100)
    clip, rate = audio.read(path), audio.info(path).sample_rate
    reference = model.embed(audio.resample(clip, rate, 16000))
    for result in (model.embed(path), model.embed(clip, sample_rate=rate), model.embed(np.stack([clip]), rate)[0]):
        np.testing.assert_allclose(result, reference, rtol=1e-5, atol=1e-6)
    assert not np.allclose(model.embed(clip), reference, rtol=1e-2)  # without its rate it is taken as 16 kHz


def test_embed_leaves_the_training_flags_alone(model):
    model.train()
    model.encoder.stages.eval()
    before = {name: module.training for name, module in model.named_modules()}
    statistics = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = model.embed(noise(16000)), model.embed(noise(16000))
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, statistics[key]) for key, value in model.state_dict().items())
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("clips", "words"),
    [
        (torch.zeros(16000), r"shape \(16000,\); a model takes \(batch, samples\)"),
        (torch.zeros(1, 1, 16000), r"shape \(1, 1, 16000\)"),
        (torch.zeros(1, 16000, dtype=torch.int16), "int16"),
        (torch.zeros(2, 0), "empty"),
        (torch.zeros(0, 16000), "empty"),
        (torch.zeros(1, 100), "too short"),
        (torch.full((1, 16000), float("nan")), "NaN"),
        (torch.full((1, 16000), float("inf")), "infinite"),
        (torch.zeros(1, 16000, device="meta"), r"on meta and the model on cpu; move one with \.to"),
    ],
)
def test_bad_audio_is_named(model, clips, words):
    with pytest.raises(InputError, match=words) as caught:
        model(clips)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("audio", "rate", "words"),
    [
        (np.zeros(0, np.float32), None, "empty"),
        (np.zeros(50, np.float32), None, "too short"),
        (np.full(16000, np.nan, np.float32), None, "NaN"),
        (np.zeros(16000, np.int16), None, "int16.*32768"),
        (np.zeros((1, 2, 16000), np.float32), None, "neither a clip"),
        (np.zeros(16000, np.float32), -1, "sample_rate is -1"),
        ("no such file.wav", None, "no such file"),
        ("file.wav", 16000, "leave sample_rate out"),
    ],
)
def test_embed_names_what_is_wrong(model, audio, rate, words):
    with pytest.raises(InputError, match=words):
        model.embed(audio, sample_rate=rate)


def test_importing_and_using_a_model_needs_none_of_the_extras():
    program = (
        "import sys, torch, ssl_audio, ssl_audio.model, ssl_audio.hub, ssl_audio.hub.singer_identity\n"
        "from ssl_audio.encoders import EfficientNet\n"
        "from ssl_audio.frontends import LogMelSpectrogram\n"
        "model = ssl_audio.EmbeddingModel(LogMelSpectrogram(), EfficientNet(embedding_dim=4))\n"
        "model.embed(torch.zeros(22050), sample_rate=44100)\n"
        "extras = ('pytorch_lightning', 'jsonargparse', 'sklearn', 'pandas', 'matplotlib', 'audiomentations', 'onnx')\n"
        "print([name for name in extras if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
