"""WaveBYOL's encoder step by step, and what its two scales do to clips of different length."""

import pytest
import torch
from torch.nn import functional as F

from ssl_audio import encoders


@pytest.fixture(params=["rms", "l2"])
def encoder(request) -> encoders.WaveBYOL:
    torch.manual_seed(0)
    return encoders.WaveBYOL("h1", channels=48, input_norm=request.param, image_norm=request.param).eval()


def test_the_pipeline_written_out():
    torch.manual_seed(0)
    encoder = encoders.WaveBYOL("h1", channels=48, input_norm="l2", image_norm="l2").eval()
    x = torch.randn(2, 20480)
    y = F.normalize(x, dim=1).unsqueeze(1)
    for i, (stride, padding) in enumerate([(5, 2), (4, 2), (2, 2), (2, 2), (2, 1)]):
        conv, norm = encoder.waveform_layers[3 * i], encoder.waveform_layers[3 * i + 1]
        y = F.relu(norm(F.conv1d(y, conv.weight, conv.bias, stride, padding)))
    assert y.shape == (2, 48, 130)
    y = F.normalize(torch.stack([y[:, :16], y[:, 16:32], y[:, 32:]], dim=1), dim=-1)
    convolutions = [m for m in encoder.image_layers if isinstance(m, torch.nn.Conv2d)]
    norms = [m for m in encoder.image_layers if isinstance(m, torch.nn.BatchNorm2d)]
    for conv, norm in zip(convolutions, norms, strict=True):
        y = F.max_pool2d(F.relu(norm(F.conv2d(y, conv.weight, conv.bias, padding=1))), 2)
    pooled = F.adaptive_max_pool2d(y, 1) + F.adaptive_avg_pool2d(y, 1)
    torch.testing.assert_close(encoder(x), F.normalize(pooled.flatten(1), dim=1), rtol=1e-4, atol=1e-5)


def test_the_embedding_has_unit_length_and_ignores_loudness(encoder):
    x = torch.randn(2, 8000)
    torch.testing.assert_close(encoder(x).norm(dim=1), torch.ones(2))
    torch.testing.assert_close(encoder(0.01 * x), encoder(x), rtol=1e-3, atol=1e-4)


def test_rms_keeps_the_scale_of_a_longer_clip_and_l2_does_not(encoder):
    seen = []
    encoder.waveform_layers.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].square().mean().sqrt()))
    clip = torch.randn(1, 4000)
    encoder(clip), encoder(clip.repeat(1, 4))
    ratio = float(seen[1] / seen[0])
    assert ratio == pytest.approx(1.0 if encoder.input_norm == "rms" else 0.5, rel=1e-4)


def test_no_norm_hears_loudness():
    torch.manual_seed(0)
    encoder = encoders.WaveBYOL("h1", channels=48, input_norm="none", image_norm="none").eval()
    x = torch.randn(1, 8000)
    assert not torch.allclose(encoder(0.01 * x), encoder(x), atol=1e-3)


def test_training_on_clips_that_are_too_short_says_how_long_they_must_be():
    from ssl_audio.errors import InputError
    from ssl_audio.frontends import Waveform
    from ssl_audio.heads import Identity
    from ssl_audio.methods import NTXent

    model = encoders.WaveBYOL("h1", channels=51)
    method = NTXent(frontend=Waveform(), encoder=model, projection=Identity, sample_rate=16000)
    with pytest.raises(InputError, match=f"the model needs {model.minimum_frames}; raise data.nr_samples"):
        method.check(2, 100)
