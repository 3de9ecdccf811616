"""Heads and poolings against their formulas, published sizes, and what they promise."""

import pytest
import torch
from torch import nn

from ssl_audio.config import build, describe
from ssl_audio.errors import InputError
from ssl_audio.heads import MLP, Identity, Projection
from ssl_audio.pooling import AttentiveStatisticsPooling, MeanPooling, StatisticsPooling


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def layers(module: nn.Module) -> list[str]:
    return [type(layer).__name__ for layer in module.net]


def test_projection_is_silu_linear_unit_length():
    torch.manual_seed(0)
    head, x = Projection(10, 4), torch.randn(3, 10)
    linear = head.net[1]
    expected = (x * torch.sigmoid(x)) @ linear.weight.T + linear.bias
    torch.testing.assert_close(head(x), expected / expected.norm(dim=1, keepdim=True))
    torch.testing.assert_close(Projection(10, 4, normalize=False)(x).shape, (3, 4))


def test_byol_predictor():
    head = MLP(128, [1024, 128], batch_norm=True, normalize=True)
    assert layers(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert head.net[0].bias is None and head.net[3].bias is not None
    torch.testing.assert_close(head(torch.randn(4, 128)).norm(dim=1), torch.ones(4))


def test_clmr_projector():
    head = MLP(512, [512, 64], bias=False)
    assert layers(head) == ["Linear", "ReLU", "Linear"]
    assert parameters(head) == 512 * 512 + 512 * 64


def test_simsiam_projector_normalises_its_output_without_scale():
    head = MLP(64, [32, 32, 16], batch_norm=True, output_batch_norm=True)
    assert layers(head) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert list(head.net[-1].parameters()) == []
    out = head(torch.randn(50, 64))
    torch.testing.assert_close(out.mean(0), torch.zeros(16), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.std(0, unbiased=False), torch.ones(16), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("in_dim", "count"), [(2048, 9_449_728), (1024, 5_255_424), (256, 2_109_696)])
def test_wav2rec_heads_have_their_published_size(in_dim, count):
    with torch.device("meta"):
        assert parameters(MLP(in_dim, [4096, 256], batch_norm=True, bias=True)) == count


@pytest.mark.parametrize("head", [Projection(8, 3), MLP(8, [5, 3], batch_norm=True, activation="gelu"), Identity(8)])
def test_a_head_knows_its_size_and_can_be_rebuilt(head):
    head.eval()
    x = torch.randn(2, 8)
    again = build(describe(head)).eval()
    again.load_state_dict(head.state_dict())
    assert head(x).shape == (2, head.dim)
    assert torch.equal(again(x), head(x))


def test_unit_length_is_computed_in_float32():
    with torch.autocast("cpu", torch.bfloat16):
        out = Projection(16, 8)(torch.randn(4, 16))
    assert out.dtype == torch.float32
    torch.testing.assert_close(out.norm(dim=1), torch.ones(4))


def test_impossible_heads_are_named():
    with pytest.raises(InputError, match="dims is empty"):
        MLP(8, [])
    with pytest.raises(InputError, match=r"'tanh'.*relu"):
        MLP(8, [4], activation="tanh")


def test_statistics_are_mean_and_deviation():
    frames = torch.randn(3, 20, 5)
    expected = torch.cat([frames.mean(1), frames.std(1, unbiased=False)], dim=1)
    torch.testing.assert_close(StatisticsPooling(5)(frames), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(MeanPooling(5)(frames), expected[:, :5])


@pytest.mark.parametrize("context", [True, False])
def test_attentive_statistics_follow_the_paper(context):
    """Okabe 2018, eq. 3 to 6, frame by frame and channel by channel in float64."""
    torch.manual_seed(1)
    pooling = AttentiveStatisticsPooling(4, attention_dim=6, context=context).double()
    frames = torch.randn(1, 7, 4, dtype=torch.float64)
    first, second = pooling.attention[0], pooling.attention[2]
    plain = torch.cat([frames[0].mean(0), (frames[0].var(0, unbiased=False) + 1e-8).sqrt()])
    energy = torch.stack(
        [
            second.weight @ torch.tanh(first.weight @ (torch.cat([h, plain]) if context else h) + first.bias)
            + second.bias
            for h in frames[0]
        ]
    )
    weights = energy.exp() / energy.exp().sum(0)
    mean = (weights * frames[0]).sum(0)
    deviation = ((weights * frames[0] ** 2).sum(0) - mean**2).sqrt()
    torch.testing.assert_close(pooling(frames)[0], torch.cat([mean, deviation]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", [MeanPooling, StatisticsPooling, AttentiveStatisticsPooling])
def test_pooling_takes_one_frame_and_has_finite_gradients(kind):
    pooling = kind(6)
    frames = torch.randn(2, 1, 6, requires_grad=True)
    out = pooling(frames)
    out.sum().backward()
    assert out.shape == (2, pooling.dim)
    assert frames.grad.isfinite().all()
