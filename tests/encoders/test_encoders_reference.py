"""Encoders against the same network written out otherwise."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_audio import encoders
from ssl_audio.encoders.sinc_net import SincConv1d
from ssl_audio.errors import InputError


def plain_sample_cnn() -> nn.Sequential:
    """The published table, layer by layer, with the original's flatten at the end."""
    layers = [nn.Conv1d(1, 128, 3, 3), nn.BatchNorm1d(128), nn.ReLU()]
    pairs = [(128, 128), (128, 128), (128, 256), *[(256, 256)] * 5, (256, 512)]
    for a, b in pairs:
        layers += [nn.Conv1d(a, b, 3, padding=1), nn.BatchNorm1d(b), nn.ReLU(), nn.MaxPool1d(3)]
    return nn.Sequential(*layers, nn.Conv1d(512, 512, 3, padding=1), nn.BatchNorm1d(512), nn.ReLU(), nn.Flatten())


def test_sample_cnn_at_its_own_length_is_the_plain_network():
    torch.manual_seed(0)
    plain, ours = plain_sample_cnn().eval(), encoders.SampleCNN().eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), plain.state_dict().values(), strict=True)))
    x = torch.randn(1, 59049)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), plain(x.unsqueeze(1)))
        assert ours(torch.randn(1, 70000)).shape == (1, 512)


def test_short_chunk_cnn_leaves_one_band_of_128():
    encoder = encoders.ShortChunkCNN([2] * 7).eval()
    assert encoder.blocks(torch.randn(1, 1, 128, 128)).shape[-2:] == (1, 1)


def test_resnet_is_the_plain_functions():
    torch.manual_seed(0)
    encoder = encoders.ResNet50([2, 1], width=4).eval()
    for module in encoder.modules():  # running statistics that do something
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1), module.running_var.uniform_(0.5, 2)
    weights = encoder.state_dict()

    def norm(x, name):
        kinds = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(weights[f"{name}.{kind}"] for kind in kinds))

    def bottleneck(x, name, stride, project):
        y = F.relu(norm(F.conv2d(x, weights[f"{name}.conv1.weight"]), f"{name}.bn1"))
        y = F.relu(norm(F.conv2d(y, weights[f"{name}.conv2.weight"], stride=stride, padding=1), f"{name}.bn2"))
        y = norm(F.conv2d(y, weights[f"{name}.conv3.weight"]), f"{name}.bn3")
        if project:
            x = norm(F.conv2d(x, weights[f"{name}.downsample.0.weight"], stride=stride), f"{name}.downsample.1")
        return F.relu(x + y)

    x = torch.randn(2, 50, 70)
    y = F.conv2d(norm(x.unsqueeze(1), "norm"), weights["conv1.weight"], stride=2, padding=3)
    y = F.max_pool2d(F.relu(norm(y, "bn1")), 3, 2, 1)
    y = bottleneck(y, "layer1.0", 1, True)
    y = bottleneck(y, "layer1.1", 1, False)
    y = bottleneck(y, "layer2.0", 2, True)
    torch.testing.assert_close(encoder(x), y.mean((2, 3)))


def test_vision_transformer_is_torchs_own_layer_between_patches_and_class_token():
    torch.manual_seed(0)
    encoder = encoders.VisionTransformer(32, 16, 32, depth=1, heads=4, head_dim=8, mlp_dim=64).eval()
    ours = encoder.layers[0]
    reference = nn.TransformerEncoderLayer(32, 4, 64, 0.0, "gelu", batch_first=True, norm_first=True).eval()
    with torch.no_grad():
        reference.self_attn.in_proj_weight.copy_(ours.qkv.weight)
        reference.self_attn.in_proj_bias.zero_()
    for theirs, mine in (
        (reference.self_attn.out_proj, ours.out),
        (reference.norm1, ours.attention_norm),
        (reference.norm2, ours.mlp[0]),
        (reference.linear1, ours.mlp[1]),
        (reference.linear2, ours.mlp[4]),
    ):
        theirs.load_state_dict(mine.state_dict())
    x = torch.randn(2, 32, 32)
    weight = encoder.patches.weight.flatten(1)
    image = encoder.norm(x.unsqueeze(1))[:, 0]
    tokens = [encoder.class_token[0, 0].expand(2, -1)]
    for row in range(2):  # bands first, then frames
        for column in range(2):
            patch = image[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16].flatten(1)
            tokens.append(patch @ weight.T + encoder.patches.bias)
    expected = reference(torch.stack(tokens, 1) + encoder.positions)[:, 0]
    torch.testing.assert_close(encoder(x), expected, rtol=1e-4, atol=1e-5)


def test_interpolated_positions_are_torchs_bicubic():
    encoder = encoders.VisionTransformer(64, 16, 8, 1, 1, 8, 16)
    grid = encoder.positions[:, 1:].transpose(1, 2).unflatten(2, (4, 4))
    expected = F.interpolate(grid, size=(3, 7), mode="bicubic").flatten(2).transpose(1, 2)
    torch.testing.assert_close(encoder._positions(3, 7)[:, 1:], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(encoder._positions(4, 4), encoder.positions)


def test_interpolated_positions_keep_what_they_encode():
    encoder = encoders.VisionTransformer(64, 16, 8, 1, 1, 8, 16)
    with torch.no_grad():
        encoder.positions[0, 1:] = torch.arange(4.0).repeat(4)[:, None]  # the column's number
    positions = encoder._positions(2, 8)[0, 1:].unflatten(0, (2, 8))[..., 0]
    assert (positions.diff(dim=1) > 0).all() and torch.allclose(positions[0], positions[1])


@pytest.mark.parametrize("size", [31, 32])
def test_sinc_filters_pass_their_band_and_nothing_else(size):
    rate = 16000
    layer = SincConv1d(20, 16 * size, sample_rate=rate)  # long filters, so that the edges are sharp
    assert layer.kernel_size % 2 == 1
    kernels = layer.filters().detach().double().numpy()
    np.testing.assert_allclose(kernels, kernels[:, ::-1], atol=1e-7)
    response = np.abs(np.fft.rfft(kernels, 8192))
    frequencies = np.fft.rfftfreq(8192, 1 / rate)
    low, high = (edge.detach().numpy() for edge in layer.edges())
    assert low[0] == pytest.approx(80, abs=1) and (high <= rate / 2).all() and (high - low >= 50).all()
    for r, a, b in zip(response, low, high, strict=True):
        margin = 60.0  # Hz: the window's own width
        centre = np.interp((a + b) / 2, frequencies, r)
        outside = (frequencies < a - margin) | (frequencies > b + margin)
        assert r[outside].max() < 0.1 * centre


def test_sinc_filters_equal_the_formula_and_move_with_their_edges():
    layer = SincConv1d(3, 11, stride=5, padding=3, sample_rate=16000)
    low, high = (edge.detach().double().numpy() for edge in layer.edges())
    t = np.arange(-5, 6) / 16000
    window = 0.54 - 0.46 * np.cos(2 * np.pi * np.linspace(0, 4.5, 5) / 11)
    window = np.concatenate([window, [1.0], window[::-1]])
    ideal = 2 * high[:, None] * np.sinc(2 * high[:, None] * t) - 2 * low[:, None] * np.sinc(2 * low[:, None] * t)
    expected = ideal * window / (2 * (high - low)[:, None])
    np.testing.assert_allclose(layer.filters().detach().numpy(), expected, atol=1e-5)
    assert layer(torch.randn(2, 1, 20480)).shape == (2, 3, 4096)
    layer(torch.randn(2, 1, 200)).square().sum().backward()
    assert (layer.low_hz.grad != 0).all() and (layer.band_hz.grad != 0).any()


def test_sample_cnn_may_be_deaf_to_loudness():
    clips = torch.randn(2, 243)
    plain, even = encoders.SampleCNN([4] * 5).eval(), encoders.SampleCNN([4] * 5, input_norm="rms").eval()
    even.load_state_dict(plain.state_dict())
    torch.testing.assert_close(even(0.01 * clips), even(clips))
    assert not torch.allclose(plain(0.01 * clips), plain(clips))
    unit = clips / clips.square().mean(1, keepdim=True).sqrt()
    torch.testing.assert_close(even(clips), plain(unit))
    with pytest.raises(InputError, match="input_norm is 'loud'"):
        encoders.SampleCNN(input_norm="loud")
