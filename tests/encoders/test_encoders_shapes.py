"""What every encoder of ours promises, whatever its architecture; and the sizes that their papers or originals have."""

import pytest
import torch
from helpers import tiny_model

from ssl_audio import encoders
from ssl_audio.baselines import mfcc_statistics
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram, Waveform
from ssl_audio.pooling import AttentiveStatisticsPooling, MeanPooling, StatisticsPooling
from ssl_audio.testing import check_encoder

BANDS = 40

# name: (a small encoder, whether it reads samples, a comfortable length along time)
SMALL = {
    "compact": (lambda: encoders.CompactCNN([8, 8], embedding_dim=16), False, 61),
    "compact, bands kept": (
        lambda: encoders.CompactCNN([4, 8], 16, n_mels=BANDS, stem_stride=2, normalize=True),
        False,
        61,
    ),
    "compact, input statistics": (
        lambda: encoders.CompactCNN([4, 8], 16, n_mels=BANDS, normalize=True, input_statistics=True),
        False,
        61,
    ),
    "compact, attention, no projection": (
        lambda: encoders.CompactCNN([8], embedding_dim=None, pooling=AttentiveStatisticsPooling),
        False,
        61,
    ),
    "compact, whitened": (
        lambda: encoders.Whitened(encoders.CompactCNN([8, 8], embedding_dim=16), encoders.Whitening(16)),
        False,
        61,
    ),
    "views, nearest mean, joined": (
        lambda: encoders.Joined(
            encoders.Whitened(encoders.Views(tiny_model(), encoders.views.VIEWS), encoders.NearestMean(16, 2)),
            mfcc_statistics(16000),
            encoders.Whitening(40),
            0.2,
        ),
        True,
        8000,
    ),
    "ecapa": (lambda: encoders.ECAPATDNN(16, 6, BANDS, mfa_channels=12), False, 61),
    "ecapa, speechbrain": (
        lambda: encoders.ECAPATDNN(16, 6, BANDS, "speechbrain", mfa_channels=12, normalize=True),
        False,
        61,
    ),
    "resnet34": (lambda: encoders.ResNet34([2, 1, 1], 4, 6, BANDS), False, 61),
    "resnet18, mean": (lambda: encoders.ResNet18([1, 1], 4, 6, BANDS, MeanPooling, normalize=True), False, 61),
    "fast_resnet34": (lambda: encoders.FastResNet34([1, 2, 1, 1], 8, 6), False, 61),
    "fast_resnet34, statistics": (
        lambda: encoders.FastResNet34([1, 1], 8, 6, BANDS, StatisticsPooling, normalize=True),
        False,
        61,
    ),
    "eres2net": (lambda: encoders.ERes2Net([1, 1, 2, 1, 1], 4, BANDS), False, 61),
    "eres2net, projection": (lambda: encoders.ERes2Net([1, 1, 1], 4, BANDS, 6, MeanPooling), False, 61),
    "mobilenet_v3": (lambda: encoders.MobileNetV3("small", 0.25), False, 61),
    "mobilenet_v3, projection": (lambda: encoders.MobileNetV3("large", 0.25, 6), False, 61),
    "cam_plus_plus": (lambda: encoders.CAMPlusPlus([2, 1], 4, 8, 2, 6, BANDS), False, 61),
    "sample_cnn": (lambda: encoders.SampleCNN([4] * 5), True, 1000),
    "short_chunk": (lambda: encoders.ShortChunkCNN([4, 4, 8], embedding_dim=6), False, 61),
    "sinc_net": (lambda: encoders.SincNet([6, 4], [33, 5], [3, 3], embedding_dim=10), True, 1000),
    "sinc_net, batch norm": (
        lambda: encoders.SincNet([6, 4], [33, 5], [3, 3], 10, norm="batch", pooling=MeanPooling),
        True,
        1000,
    ),
    "resnet": (lambda: encoders.ResNet50([1, 1, 1, 1], width=4), False, 61),
    "resnet, squashed": (lambda: encoders.ResNet50([1, 1], width=4, resize=32), False, 61),
    "cpc": (lambda: encoders.CPC(8, heads=2, feedforward=16, max_distance=4), True, 1000),
    "cpc, sinc, lstm": (lambda: encoders.CPC(8, first_layer="sinc", context="lstm", context_dim=6), True, 1000),
    "cpc, reverse": (
        lambda: encoders.CPC(8, heads=2, feedforward=16, context_layers=2, positions="sinusoidal", reverse=True),
        True,
        1000,
    ),
    "cpc, no context": (lambda: encoders.CPC(8, context="none"), True, 1000),
    "wavebyol": (lambda: encoders.WaveBYOL("h1", channels=48), True, 3000),
    "wavebyol, original scale": (lambda: encoders.WaveBYOL("l2", 66, input_norm="l2", image_norm="l2"), True, 6000),
    "patch_transformer": (lambda: encoders.PatchTransformer(BANDS, [[8, 8]], 0.5, 16, 2, 2, 32), False, 61),
    "patch_transformer, two sizes": (
        lambda: encoders.PatchTransformer(BANDS, [[8, 8], [BANDS, 2]], 0.5, 16, 1, 2, 32),
        False,
        61,
    ),
    "vit": (lambda: encoders.VisionTransformer(64, 16, 32, 2, 2, 8, 64), False, 61),
}

SIZES = {
    "SampleCNN": 2_368_512,
    "SampleCNNXL": 25_190_400,
    "ShortChunkCNN": 12_104_244 - (512 * 50 + 50),  # the published figure includes a classifier of 50 tags
    "ResNet50": 23_501_762,
    "VisionTransformer": 38_915_074,
}


def features(samples: bool, length: int, batch: int = 3, seed: int = 0) -> torch.Tensor:
    shape = (batch, length) if samples else (batch, BANDS, length)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=SMALL)
def small(request) -> tuple[encoders.Encoder, bool, int]:
    torch.manual_seed(0)
    build, samples, length = SMALL[request.param]
    return build().eval(), samples, length


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", SIZES)
def test_number_of_parameters(name):
    with torch.device("meta"):
        assert parameters(getattr(encoders, name)()) == SIZES[name]


@pytest.mark.parametrize(
    "arguments, convolutions, context",
    [
        ({}, 5_255_680, 3_158_528),
        ({"first_layer": "sinc"}, 5_251_072, 3_158_528),
        ({"context": "gru", "context_dim": 256}, 5_255_680, 591_360),
    ],
)
def test_number_of_parameters_of_cpc(arguments, convolutions, context):
    with torch.device("meta"):
        encoder = encoders.CPC(**arguments)
    assert (parameters(encoder.convolutions), parameters(encoder.network)) == (convolutions, context)


# millions of the 2-D part; then channels, rows and columns that 20,480 samples become
WAVEBYOL = {
    "h1": (0.96, (256, 10, 8)),
    "h2": (20.44, (1024, 10, 8)),
    "h3": (7.97, (1024, 5, 4)),
    "h4": (36.96, (2048, 10, 8)),
    "h5": (39.94, (1024, 10, 8)),
    "l2": (8.64, (1024, 19, 9)),
    "l3": (6.27, (1024, 10, 5)),
}


@pytest.mark.parametrize("layout", WAVEBYOL)
def test_number_of_parameters_and_map_of_wavebyol(layout):
    millions, shape = WAVEBYOL[layout]
    with torch.device("meta"):
        encoder = encoders.WaveBYOL(layout)
        assert encoder.feature_map(torch.zeros(2, 20480)).shape == (2, *shape)
    assert round(parameters(encoder.image_layers) / 1e6, 2) == millions
    if layout.startswith("h"):
        assert parameters(encoder.waveform_layers) == 4_223_529
    if layout == "h2":
        assert parameters(encoder) == 24_660_009


def test_the_compact_network_has_the_size_that_its_docstring_says():
    with torch.device("meta"):
        stages = encoders.CompactCNN().stages
    assert 2.55e6 < sum(p.numel() for p in stages.parameters()) < 2.65e6


def test_input_statistics_add_a_linear_path_from_each_bands_mean_and_deviation():
    encoder = encoders.CompactCNN([4, 8], 16, n_mels=BANDS, input_statistics=True).eval()
    for parameter in encoder.projection.parameters():
        torch.nn.init.zeros_(parameter)  # the path through the convolutions ends here
    x = features(False, 61)
    values = torch.cat([x.mean(2), x.std(2, unbiased=False)], 1) / (1 + 1e-5) ** 0.5  # of an untrained batch-norm
    expected = values @ encoder.around[-1].weight.T + encoder.around[-1].bias
    torch.testing.assert_close(encoder(x), expected, atol=1e-4, rtol=1e-4)
    with pytest.raises(InputError, match="input_statistics needs n_mels"):
        encoders.CompactCNN([4, 8], 16, input_statistics=True)


def test_the_contract_of_encoders_holds(small):
    encoder, samples, _ = small
    mel = LogMelSpectrogram(16000, n_fft=512, hop_length=256, n_mels=BANDS, normalize="clip_mean")
    check_encoder(encoder, Waveform() if samples else mel, samples=6000)


def test_the_stated_minimum_is_the_minimum(small):
    encoder, samples, _ = small
    if encoder.minimum_frames > 1:
        with pytest.raises((RuntimeError, InputError)):
            encoder(features(samples, encoder.minimum_frames - 1))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_trace_takes_other_batches_and_lengths(small):
    encoder, samples, length = small
    with torch.no_grad():
        traced = torch.jit.trace(encoder, features(samples, length), check_trace=False)
        x = features(samples, 2 * length + 3, batch=2)
        torch.testing.assert_close(traced(x), encoder(x), rtol=1e-4, atol=1e-5)


def test_silence_gives_finite_embeddings_and_gradients(small):
    encoder, samples, length = small
    x = torch.zeros_like(features(samples, length)).requires_grad_()
    encoder(x).sum().backward()
    assert encoder(x).isfinite().all() and x.grad.isfinite().all()


@pytest.mark.parametrize(
    "build",
    [
        lambda: encoders.SincNet([4, 4], [33], [3, 3]),
        lambda: encoders.SincNet(norm="none"),
        lambda: encoders.VisionTransformer(image_size=60, patch_size=16),
        lambda: encoders.CPC(8, context="mamba"),
        lambda: encoders.CPC(8, context="transformer", context_dim=4),
        lambda: encoders.WaveBYOL("h9"),
        lambda: encoders.WaveBYOL(channels=512),
        lambda: encoders.WaveBYOL(channels=9),
        lambda: encoders.WaveBYOL(image_norm="max"),
    ],
)
def test_impossible_arguments_are_refused_in_one_line(build):
    with pytest.raises(InputError) as error:
        build()
    assert "\n" not in str(error.value)
