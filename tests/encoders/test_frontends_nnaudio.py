"""Any layer of nnAudio as a frontend: its values, frames and shortest clip, training, saving, export."""

import io
from contextlib import redirect_stdout

import nnAudio.features
import onnxruntime
import pytest
import torch

from ssl_audio.config import build, describe
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.export import export_onnx, export_torchscript
from ssl_audio.frontends import LogMelSpectrogram, NnAudio
from ssl_audio.model import EmbeddingModel
from ssl_audio.testing import check_frontend

RATE = 16000
LAYERS = {
    "STFT": {"n_fft": 256, "hop_length": 100},
    "MelSpectrogram": {"n_fft": 512, "hop_length": 160, "n_mels": 24, "trainable_mel": True},
    "MFCC": {"n_mfcc": 13, "n_fft": 512, "hop_length": 160, "n_mels": 24},
    "Gammatonegram": {"n_fft": 512, "hop_length": 160, "n_bins": 24},
    "CQT": {"hop_length": 256, "fmin": 220.0, "n_bins": 36},
    "CQT2010": {"hop_length": 256, "fmin": 220.0, "n_bins": 36},
    "CQT2010v2": {"hop_length": 256, "fmin": 220.0, "n_bins": 36, "trainable": True},
    "VQT": {"hop_length": 256, "fmin": 220.0, "n_bins": 36, "gamma": 5},
}
pytestmark = pytest.mark.filterwarnings(r"ignore:\sinput size:UserWarning")


def original(name):
    """The layer of nnAudio itself."""
    magnitude = {"output_format": "Magnitude"} if name.startswith(("STFT", "CQT", "VQT")) else {}
    with redirect_stdout(io.StringIO()):
        return getattr(nnAudio.features, name)(sr=RATE, **LAYERS[name], **magnitude)


def noise(batch, samples):
    return 0.1 * torch.randn(batch, samples, generator=torch.Generator().manual_seed(samples))


@pytest.mark.parametrize("name", LAYERS)
def test_the_values_are_nnaudios(name):
    clips = noise(2, RATE)
    torch.testing.assert_close(NnAudio(name, RATE, LAYERS[name])(clips), original(name)(clips), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["MelSpectrogram", "MFCC", "CQT"])
def test_the_contract_of_frontends_is_kept(name):
    check_frontend(NnAudio(name, RATE, LAYERS[name]))


@pytest.mark.parametrize("name", LAYERS)
def test_frames_and_the_shortest_clip_are_exact(name):
    frontend, layer = NnAudio(name, RATE, LAYERS[name]), original(name)

    def frames(samples):
        return layer(noise(1, samples)).shape[-1]

    for samples in (frontend.minimum_samples, 9000, 9001, 12345, 16000):
        assert frontend.frames(samples) == frames(samples)
    with pytest.raises((RuntimeError, AssertionError, IndexError, ValueError)):
        frames(frontend.minimum_samples - 1)
    with pytest.raises(InputError, match="too short"):
        frontend(noise(1, frontend.minimum_samples - 1))
    least = frontend.samples_for(70)
    assert frames(least) == 70 and frames(least - 1) == 69


def test_a_trained_bank_is_part_of_the_model_and_a_description_makes_it_again():
    frontend = NnAudio("nnAudio.features.MelSpectrogram", RATE, LAYERS["MelSpectrogram"], log_offset=1e-6)
    frontend(noise(2, 8000)).square().mean().backward()
    torch.optim.SGD(frontend.parameters(), lr=1.0).step()
    fresh = build(describe(frontend))
    clips = noise(1, 8000)
    assert not torch.equal(fresh(clips), frontend(clips))
    fresh.load_state_dict(frontend.state_dict())
    torch.testing.assert_close(fresh(clips), frontend(clips), rtol=0, atol=0)


def test_logarithm_and_normalisation_are_those_of_our_mel_frontend():
    options = {"n_fft": 512, "hop_length": 160, "n_mels": 24, "fmin": 0.0, "fmax": None}
    theirs = NnAudio("MelSpectrogram", RATE, options, log_offset=1e-6, normalize="clip_mean")
    ours = LogMelSpectrogram(RATE, 512, 160, 24, log_offset=1e-6, normalize="clip_mean")
    torch.testing.assert_close(theirs(noise(2, 8000)), ours(noise(2, 8000)), rtol=1e-3, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MelSpectrogram", "CQT"])
def test_onnx_and_torchscript_give_what_pytorch_gives(name, tmp_path):
    frontend = NnAudio(name, RATE, LAYERS[name], log_offset=1e-6)
    model = EmbeddingModel(frontend, CompactCNN([8, 8], 16), sample_rate=RATE).eval()
    export_onnx(model, tmp_path / "model.onnx")
    export_torchscript(model, tmp_path / "model.ts")
    clips = noise(3, 12345)
    with torch.no_grad():
        expected = model(clips)
    got = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(None, {"audio": clips.numpy()})[0]
    scale = expected.abs().max().item()
    torch.testing.assert_close(torch.from_numpy(got), expected, rtol=0, atol=1e-3 * scale)
    torch.testing.assert_close(torch.jit.load(tmp_path / "model.ts")(clips), expected, rtol=0, atol=1e-3 * scale)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"layer": "CQTT"}, "layer is 'CQTT', no layer of nnAudio.features with features; did you mean 'CQT'?"),
        ({"layer": "iSTFT"}, "layer is 'iSTFT', no layer"),
        ({"layer": "os.CQT"}, "layer is 'os.CQT', no layer"),
        (
            {"options": {"n_ffft": 3}},
            "options.n_ffft is no argument of nnAudio's MelSpectrogram; did you mean 'n_fft'?",
        ),
        ({"options": {"sr": 8000}}, "options.sr is the sample rate; give it as sample_rate"),
        ({"layer": "CQT", "options": {"output_format": "Complex"}}, "output_format is 'Complex'; encoders take 'Magni"),
        ({"layer": "CQT", "options": {"n_bins": 200}}, "nnAudio's CQT refuses its options"),
        ({"normalize": "x"}, "normalize is 'x'"),
    ],
)
def test_what_nnaudio_cannot_do_is_one_line(arguments, message):
    with pytest.raises(InputError) as error:
        NnAudio(**arguments)
    assert message in str(error.value) and "\n" not in str(error.value)
