"""Networks for voices: published sizes, the networks written out otherwise, and the traps of their papers."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_audio import encoders
from ssl_audio.encoders.cam_plus_plus import segment_means
from ssl_audio.errors import InputError
from ssl_audio.pooling import (
    ECAPAPooling,
    SelfAttentivePooling,
    StatisticsPooling,
    TemporalStatisticsPooling,
    _moments,
)

SIZES = [
    ("ECAPATDNN", {"context": False}, 5_797_504),
    ("ECAPATDNN", {}, 6_190_720),
    ("ECAPATDNN", {"normalize": True}, 6_190_720 + 384),
    ("ECAPATDNN", {"channels": 1024, "context": False}, 14_263_872),
    ("ECAPATDNN", {"channels": 1024}, 14_657_088),
    ("ECAPATDNN", {"form": "speechbrain"}, 6_194_048),
    ("ECAPATDNN", {"form": "speechbrain", "n_mels": 40}, 6_091_648),
    ("ECAPATDNN", {"form": "speechbrain", "channels": 1024}, 20_767_552),
    ("ECAPATDNN", {"form": "speechbrain", "channels": 1024, "embedding_dim": 512}, 22_733_952),
    ("ECAPATDNN", {"form": "speechbrain", "channels": 1024, "mfa_channels": 1536}, 14_660_416),
    ("ResNet34", {}, 6_634_336),
    ("ResNet18", {}, 4_105_440),
    ("FastResNet34", {}, 1_437_078),
    ("FastResNet34", {"embedding_dim": 256}, 1_404_054),
    ("FastResNet34", {"n_mels": 40, "pooling": StatisticsPooling}, 2_010_262),
    ("FastResNet34", {"n_mels": 80, "pooling": StatisticsPooling}, 2_665_622),
]


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def settled(module: nn.Module) -> nn.Module:
    """In evaluation mode and in float64, with running statistics and scales that are not those of a new network."""
    for part in module.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d)):
            part.running_mean.uniform_(-0.3, 0.3), part.running_var.uniform_(0.5, 2)
            if part.affine:
                with torch.no_grad():
                    part.weight.uniform_(0.5, 1.5), part.bias.uniform_(-0.3, 0.3)
    return module.eval().double()


def norm(x, weights, name):
    values = (weights.get(f"{name}.{kind}") for kind in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *values)


@pytest.mark.parametrize(("name", "arguments", "size"), SIZES)
def test_number_of_parameters(name, arguments, size):
    with torch.device("meta"):
        assert parameters(getattr(encoders, name)(**arguments)) == size


def test_cam_plus_plus_has_the_published_size():
    with torch.device("meta"):
        assert round(parameters(encoders.CAMPlusPlus()) / 1e6, 2) == 7.18


def test_eres2net_has_the_published_sizes():
    with torch.device("meta"):
        paper, student = encoders.ERes2Net([3, 4, 6, 3], 32, 80, 192), encoders.ERes2Net()
        assert [round(parameters(network) / 1e6, 2) for network in (paper, student)] == [6.61, 1.37]
        assert student.dim == 8 * 64 * 2 and student.frames(torch.zeros(2, 128, 160)).shape == (2, 10, 512)


@pytest.mark.parametrize(
    ("layout", "published", "last", "hidden"), [("large", 5_483_032, 960, 1280), ("small", 2_542_856, 576, 1024)]
)
def test_mobilenet_has_the_size_of_torchvisions_without_its_classifier(layout, published, last, hidden):
    classifier = last * hidden + hidden + hidden * 1000 + 1000
    colours = 2 * 16 * 9  # weights of the stem for the second and third channel of an image
    with torch.device("meta"):
        network = encoders.MobileNetV3(layout)
    assert parameters(network) == published - classifier - colours and network.dim == last
    half = encoders.MobileNetV3(layout, width=0.5)
    assert half.dim == last // 2 and parameters(half) < parameters(network) / 2
    assert all(part.out_channels % 8 == 0 for part in half.modules() if isinstance(part, nn.Conv2d))


def test_a_mobilenet_block_written_out():
    """Expansion, depthwise convolution, excitation, projection, shortcut: in this order."""
    block = settled(encoders.MobileNetV3("large").net[5])  # 40 -> 120 -> 40, kernel 5, excited
    w = block.state_dict()

    def unit(x, name, **arguments):
        x = F.conv2d(x, w[f"{name}.0.weight"], **arguments)
        values = [w[f"{name}.1.{kind}"] for kind in ("running_mean", "running_var", "weight", "bias")]
        return F.batch_norm(x, *values, eps=1e-3)

    x = torch.randn(2, 40, 6, 9, dtype=torch.float64)
    y = unit(x, "layers.0").relu()
    y = unit(y, "layers.1", padding=2, groups=120).relu()
    means = y.mean(dim=(2, 3), keepdim=True)
    squeezed = F.conv2d(means, w["layers.2.factors.0.weight"], w["layers.2.factors.0.bias"]).relu()
    factors = F.conv2d(squeezed, w["layers.2.factors.2.weight"], w["layers.2.factors.2.bias"])
    y = unit(y * (factors / 6 + 0.5).clamp(0, 1), "layers.3")
    torch.testing.assert_close(block(x), x + y)


def test_an_eres2net_written_out():
    network = settled(encoders.ERes2Net([1, 1, 1], 4, 8))
    w = network.state_dict()

    def conv(x, name, norm_name, stride=1, padding=0):
        return norm(F.conv2d(x, w[f"{name}.weight"], w.get(f"{name}.bias"), stride, padding), w, norm_name)

    def fused(x, y, name):
        a = conv(torch.cat([x, y], 1), f"{name}.attention.0", f"{name}.attention.1")
        a = conv(F.silu(a), f"{name}.attention.3", f"{name}.attention.4").tanh()
        return x + y + a * (x - y)

    def block(x, name, stride, attentive):
        y = conv(x, f"{name}.conv1.0", f"{name}.conv1.1", stride).clamp(0, 20)
        a, b = y[:, : y.shape[1] // 2], y[:, y.shape[1] // 2 :]
        a = conv(a, f"{name}.first.0", f"{name}.first.1", padding=1).clamp(0, 20)
        joined = fused(a, b, f"{name}.fusion") if attentive else a + b
        b = conv(joined, f"{name}.second.0", f"{name}.second.1", padding=1).clamp(0, 20)
        y = conv(torch.cat([a, b], 1), f"{name}.conv3.0", f"{name}.conv3.1")
        return (y + conv(x, f"{name}.shortcut.0", f"{name}.shortcut.1", stride)).clamp(0, 20)

    x = torch.randn(2, 8, 12, dtype=torch.float64)
    first = block(conv(x[:, None], "stem.0", "stem.1", padding=1).relu(), "stages.0.0", 1, False)
    second = block(first, "stages.1.0", 2, False)
    together = fused(second, F.conv2d(first, w["down.0.weight"], None, 2, 1), "fusions.0")
    third = block(second, "stages.2.0", 2, True)
    together = fused(third, F.conv2d(together, w["down.1.weight"], None, 2, 1), "fusions.1")
    torch.testing.assert_close(network.frames(x), together.flatten(1, 2).transpose(1, 2))


def test_parts_have_the_published_sizes():
    with torch.device("meta"):
        ecapa, resnet = encoders.ECAPATDNN(context=False), encoders.ResNet34()
    parts = [ecapa.stem, *ecapa.blocks, ecapa.mfa, ecapa.pooled_norm, ecapa.projection]
    assert [parameters(p) for p in parts] == [206_336, *[746_432] * 3, 2_360_832, 6_144, 590_016]
    layers = [resnet.layers[a:b] for a, b in ((0, 3), (3, 7), (7, 13), (13, 16))]
    parts = [resnet.conv1, resnet.bn1, *layers, resnet.projection]
    assert [parameters(p) for p in parts] == [288, 64, 55_680, 279_680, 1_707_264, 3_280_384, 1_310_976]


@pytest.mark.parametrize(
    ("encoder", "bands", "frames"),
    [("ResNet34", 80, (25, 2560)), ("FastResNet34", 80, (50, 128)), ("CAMPlusPlus", 80, (100, 512))],
)
def test_maps_have_the_published_shape(encoder, bands, frames):
    with torch.device("meta"):
        network = getattr(encoders, encoder)()
        assert network.frames(torch.zeros(2, bands, 200)).shape == (2, *frames)


def ecapa_written_out(x, weights, form, scale=8):
    """ECAPA-TDNN, function by function; frames before the pooling."""
    reflects = form == "speechbrain"

    def unit(x, name, dilation=1):
        weight = weights[f"{name}.conv.weight"]
        pad = dilation * (weight.shape[2] - 1) // 2
        x = F.pad(x, (pad, pad), mode="reflect" if reflects else "constant")
        x = F.conv1d(x, weight, weights[f"{name}.conv.bias"], dilation=dilation)
        return norm(F.relu(x), weights, f"{name}.norm")  # ReLU comes before the batch normalisation

    def res2(x, name, dilation):
        groups, done = x.chunk(scale, 1), []
        order = groups[1:] if reflects else groups[:-1]
        for i, group in enumerate(order):
            done.append(unit(group if i == 0 else group + done[-1], f"{name}.units.{i}", dilation))
        return torch.cat([groups[0], *done] if reflects else [*done, groups[-1]], 1)

    x = unit(x, "stem")
    outputs = []
    for i, dilation in enumerate((2, 3, 4)):
        name = f"blocks.{i}"
        y = unit(res2(unit(x, f"{name}.before"), f"{name}.res2", dilation), f"{name}.after")
        gate = F.relu(
            y.mean(2) @ weights[f"{name}.excitation.gate.0.weight"].T + weights[f"{name}.excitation.gate.0.bias"]
        )
        gate = gate @ weights[f"{name}.excitation.gate.2.weight"].T + weights[f"{name}.excitation.gate.2.bias"]
        x = x + y * torch.sigmoid(gate)[..., None]
        outputs.append(x)
    joined = torch.cat(outputs, 1)
    if reflects:
        return unit(joined, "mfa")
    return F.relu(F.conv1d(joined, weights["mfa.0.weight"], weights["mfa.0.bias"]))


@pytest.mark.parametrize("form", ["wespeaker", "speechbrain"])
def test_ecapa_is_the_plain_functions(form):
    torch.manual_seed(0)
    encoder = settled(encoders.ECAPATDNN(16, 6, 10, form, mfa_channels=12, normalize=True))
    weights = encoder.state_dict()
    x = torch.randn(2, 10, 23, dtype=torch.float64)
    frames = ecapa_written_out(x, weights, form)
    torch.testing.assert_close(encoder.frames(x), frames.transpose(1, 2))
    pooled = norm(encoder.pooling(frames.transpose(1, 2)), weights, "pooled_norm")
    expected = norm(pooled @ weights["projection.weight"].T + weights["projection.bias"], weights, "norm")
    torch.testing.assert_close(encoder(x), expected)


def test_resnet34_is_the_plain_functions():
    torch.manual_seed(0)
    encoder = settled(encoders.ResNet34([2, 1], width=4, embedding_dim=5, n_mels=11))
    weights = encoder.state_dict()

    def block(x, name, stride, project):
        y = F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1)
        y = F.conv2d(F.relu(norm(y, weights, f"{name}.bn1")), weights[f"{name}.conv2.weight"], padding=1)
        if project:
            x = norm(F.conv2d(x, weights[f"{name}.shortcut.0.weight"], stride=stride), weights, f"{name}.shortcut.1")
        return F.relu(norm(y, weights, f"{name}.bn2") + x)

    x = torch.randn(2, 11, 21, dtype=torch.float64)
    y = F.relu(norm(F.conv2d(x.unsqueeze(1), weights["conv1.weight"], padding=1), weights, "bn1"))
    y = block(block(block(y, "layers.0", 1, False), "layers.1", 1, False), "layers.2", 2, True)
    assert y.shape == (2, 8, 6, 11)
    statistics = torch.cat([y.mean(3).flatten(1), (y.var(3) + 1e-7).sqrt().flatten(1)], 1)
    torch.testing.assert_close(
        encoder(x), F.linear(statistics, weights["projection.weight"], weights["projection.bias"])
    )


def test_fast_resnet34_is_the_plain_functions():
    torch.manual_seed(0)
    encoder = settled(encoders.FastResNet34([1, 1], width=8, embedding_dim=5))
    weights = encoder.state_dict()

    def block(x, name, stride, project):
        y = F.relu(F.conv2d(x, weights[f"{name}.conv1.weight"], stride=stride, padding=1))
        y = F.conv2d(norm(y, weights, f"{name}.bn1"), weights[f"{name}.conv2.weight"], padding=1)
        y = norm(y, weights, f"{name}.bn2")
        gate = F.relu(F.linear(y.mean((2, 3)), weights[f"{name}.gate.0.weight"], weights[f"{name}.gate.0.bias"]))
        gate = torch.sigmoid(F.linear(gate, weights[f"{name}.gate.2.weight"], weights[f"{name}.gate.2.bias"]))
        if project:
            x = norm(F.conv2d(x, weights[f"{name}.shortcut.0.weight"], stride=stride), weights, f"{name}.shortcut.1")
        return F.relu(y * gate[..., None, None] + x)

    x = torch.randn(2, 20, 17, dtype=torch.float64)
    y = F.conv2d(x.unsqueeze(1), weights["conv1.weight"], stride=(2, 1), padding=3)
    y = block(block(F.relu(norm(y, weights, "bn1")), "layers.0", 1, False), "layers.1", 2, True)
    assert y.shape == (2, 16, 5, 9)
    pooled = encoder.pooling(y.mean(2).transpose(1, 2))
    torch.testing.assert_close(encoder(x), F.linear(pooled, weights["projection.weight"], weights["projection.bias"]))


def test_a_layer_of_cam_plus_plus_is_the_plain_functions():
    torch.manual_seed(0)
    encoder = settled(encoders.CAMPlusPlus([1, 1], growth=4, channels=6, width=2, embedding_dim=5, n_mels=16))
    layer = encoder.dense[2]
    weights = layer.state_dict()
    x = torch.randn(2, layer.bottleneck[0].num_features, 250, dtype=torch.float64)
    y = F.conv1d(F.relu(norm(x, weights, "bottleneck.0")), weights["bottleneck.2.weight"])
    y = F.relu(norm(y, weights, "bottleneck.3"))
    segments = [y[..., start : start + 100].mean(2, keepdim=True) for start in (0, 100, 200)]
    local = torch.cat([s.expand(-1, -1, n) for s, n in zip(segments, (100, 100, 50), strict=True)], 2)
    mask = F.relu(F.conv1d(y.mean(2, keepdim=True) + local, weights["mask.0.weight"], weights["mask.0.bias"]))
    mask = torch.sigmoid(F.conv1d(mask, weights["mask.2.weight"], weights["mask.2.bias"]))
    added = F.conv1d(y, weights["conv.weight"], padding=2, dilation=2) * mask
    torch.testing.assert_close(layer(x), torch.cat([x, added], 1))


@pytest.mark.parametrize("frames", [1, 99, 100, 101, 350])
def test_a_segment_that_is_cut_short_has_the_mean_of_what_is_left(frames):
    x = torch.randn(1, 2, frames)
    expected = torch.cat([part.mean(2, keepdim=True).expand_as(part) for part in x.split(100, dim=2)], 2)
    torch.testing.assert_close(segment_means(x), expected)


def test_padding_that_is_masked_changes_nothing():
    torch.manual_seed(0)
    encoder = settled(encoders.ECAPATDNN(16, 6, 10, mfa_channels=12))
    long, short = torch.randn(1, 10, 40, dtype=torch.float64), torch.randn(1, 10, 25, dtype=torch.float64)
    padded = torch.cat([short, torch.full((1, 10, 15), 7.0, dtype=torch.float64)], 2)
    mask = torch.arange(40) < torch.tensor([[40], [25]])
    together = encoder(torch.cat([long, padded]), mask)
    torch.testing.assert_close(together, torch.cat([encoder(long), encoder(short)]))
    assert not torch.allclose(encoder(padded), encoder(short))
    reflecting = encoders.ECAPATDNN(16, 6, 10, "speechbrain", mfa_channels=12)
    with pytest.raises(InputError, match="takes no mask"):
        reflecting(torch.cat([long, padded]).float(), mask)


@pytest.mark.parametrize(
    "build",
    [
        lambda: encoders.ECAPATDNN(16, 6, 10, mfa_channels=12),
        lambda: encoders.ECAPATDNN(16, 6, 10, "speechbrain", mfa_channels=12),
        lambda: encoders.ResNet34([1, 1], 4, 6, 10),
        lambda: encoders.FastResNet34([1, 1], 4, 6, 10, StatisticsPooling),
        lambda: encoders.CAMPlusPlus([1, 1], 4, 6, 2, 6, 10),
    ],
)
def test_constant_frames_have_finite_gradients(build):
    """A deviation of 0 has no slope: without a floor under the root everything becomes NaN."""
    encoder = build().train()
    x = torch.zeros(3, 10, 20, requires_grad=True)
    encoder(x).square().sum().backward()
    gradients = [x.grad, *(p.grad for p in encoder.parameters())]
    assert all(gradient.isfinite().all() for gradient in gradients)


def test_deviations_are_biased_or_not_as_published():
    frames = torch.tensor([1.0, 2.0, 4.0, 5.0]).view(1, 4, 1)
    assert TemporalStatisticsPooling(1)(frames)[0].tolist() == pytest.approx([3, 1.825742], abs=1e-6)
    assert StatisticsPooling(1)(frames)[0].tolist() == pytest.approx([3, 1.581139], abs=1e-6)
    biased = TemporalStatisticsPooling(1, unbiased=False, added=0, least=1e-5)
    assert biased(frames)[0].tolist() == pytest.approx([3, 1.581139], abs=1e-6)


def test_the_root_has_its_published_floor():
    constant = torch.full((1, 5, 2), 3.0)
    for pooling, floor in (
        (TemporalStatisticsPooling(2), 1e-7),
        (TemporalStatisticsPooling(2, unbiased=False, added=0, least=1e-5), 1e-5),
        (ECAPAPooling(2), 1e-7),
        (ECAPAPooling(2, form="speechbrain"), 1e-12),
    ):
        torch.testing.assert_close(pooling.eval()(constant)[0, 2:], torch.full((2,), floor**0.5), rtol=1e-3, atol=0)
    with pytest.raises(ValueError, match="one must be above 0"):
        TemporalStatisticsPooling(2, added=0)


@pytest.mark.parametrize("form", ["wespeaker", "speechbrain"])
@pytest.mark.parametrize("context", [True, False])
def test_ecapas_attention_is_the_plain_functions(form, context):
    torch.manual_seed(0)
    pooling = settled(ECAPAPooling(4, 6, context, form))
    weights = pooling.state_dict()
    x = torch.randn(2, 4, 9, dtype=torch.float64)
    last = "attention.4" if form == "speechbrain" else "attention.2"
    deviation = x.std(2, unbiased=form == "wespeaker", keepdim=True)
    if form == "wespeaker":
        deviation = (deviation.square() + 1e-7).sqrt()
    seen = torch.cat([x, x.mean(2, keepdim=True).expand_as(x), deviation.expand_as(x)], 1) if context else x
    hidden = F.conv1d(seen, weights["attention.0.weight"], weights["attention.0.bias"])
    if form == "speechbrain":
        hidden = norm(F.relu(hidden), weights, "attention.2")
    energy = F.conv1d(torch.tanh(hidden), weights[f"{last}.weight"], weights[f"{last}.bias"])
    share = energy.exp() / energy.exp().sum(2, keepdim=True)  # over time, for each channel
    mean = (share * x).sum(2)
    deviation = ((share * x.square()).sum(2) - mean.square()).sqrt()
    torch.testing.assert_close(pooling(x.transpose(1, 2)), torch.cat([mean, deviation], 1), rtol=1e-6, atol=1e-6)


def test_weighted_statistics_are_those_of_the_specified_example():
    frames = torch.tensor([1.0, 2.0, 4.0, 5.0]).view(1, 4, 1)
    mean, variance = _moments(frames, torch.tensor([0.1, 0.2, 0.3, 0.4]).view(1, 4, 1))
    assert (mean.item(), variance.sqrt().item()) == pytest.approx((3.7, 1.417745), abs=1e-6)


def test_self_attentive_pooling_is_the_plain_functions():
    torch.manual_seed(0)
    pooling, frames = SelfAttentivePooling(5).double(), torch.randn(2, 7, 5, dtype=torch.float64)
    for clip, pooled in zip(frames, pooling(frames), strict=True):
        energy = torch.tanh(clip @ pooling.linear.weight.T + pooling.linear.bias) @ pooling.vector[:, 0]
        share = energy.exp() / energy.exp().sum()
        torch.testing.assert_close(pooled, share @ clip)


POOLINGS = [
    lambda: TemporalStatisticsPooling(6),
    lambda: SelfAttentivePooling(6),
    lambda: ECAPAPooling(6, 4),
    lambda: ECAPAPooling(6, 4, form="speechbrain"),
    lambda: ECAPAPooling(6, 4, context=False),
]


@pytest.mark.parametrize("build", POOLINGS)
def test_a_pooling_leaves_out_what_is_masked(build):
    torch.manual_seed(0)
    pooling, frames = settled(build()), torch.randn(2, 12, 6, dtype=torch.float64)
    mask = torch.arange(12) < torch.tensor([[12], [7]])
    expected = torch.cat([pooling(frames[:1]), pooling(frames[1:, :7])])
    torch.testing.assert_close(pooling(frames, mask), expected)
    torch.testing.assert_close(pooling(frames, torch.ones(2, 12, dtype=torch.bool)), pooling(frames))


@pytest.mark.parametrize("build", POOLINGS)
def test_a_pooling_takes_one_frame_with_finite_gradients(build):
    pooling, frames = build().eval(), torch.randn(2, 1, 6, requires_grad=True)
    pooled = pooling(frames)
    pooled.sum().backward()
    assert pooled.shape == (2, pooling.dim) and frames.grad.isfinite().all()


def test_impossible_arguments_are_named():
    with pytest.raises(InputError, match=r"ECAPATDNN.form is 'kaldi'.*wespeaker, speechbrain"):
        encoders.ECAPATDNN(form="kaldi")
    with pytest.raises(ValueError, match="form is 'kaldi'"):
        ECAPAPooling(4, form="kaldi")
    with pytest.raises(InputError, match=r"channels is 500.*multiple of 8"):
        encoders.ECAPATDNN(500)
    for encoder in (encoders.ECAPATDNN(8, 4), encoders.ResNet18([1]), encoders.CAMPlusPlus([1])):
        with pytest.raises(InputError, match="n_mels 80 and got 40 bands; set the encoder's n_mels"):
            encoder(torch.zeros(2, 40, 30))
