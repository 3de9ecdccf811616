"""DINO's head and the margin head: sizes, formulas, and what every head promises."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ssl_audio.config import build, describe
from ssl_audio.errors import InputError
from ssl_audio.heads import DINOHead, MarginHead
from ssl_audio.losses import dino_loss, dino_statistics


def parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("in_dim", "mlp"), [(192, 5_124_352), (256, 5_255_424), (512, 5_779_712)])
def test_dino_head_has_the_published_size(in_dim, mlp):
    with torch.device("meta"):
        head = DINOHead(in_dim)
    assert (parameters(head.mlp), head.prototypes.numel()) == (mlp, 16_777_216)


def test_dino_head_is_linear_norm_gelu_then_cosines():
    torch.manual_seed(0)
    head, x = DINOHead(6, 5, [8, 7], 4), torch.randn(9, 6)
    kinds = [nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Linear, nn.BatchNorm1d, nn.GELU, nn.Linear]
    assert [type(layer) for layer in head.mlp.net] == kinds
    assert all(layer.bias is not None for layer in head.mlp.net if isinstance(layer, nn.Linear))
    z = F.normalize(head.mlp.net(x), dim=1)
    expected = F.cosine_similarity(z[:, None], head.prototypes[None], dim=2)
    torch.testing.assert_close(head(x), expected)
    assert [type(layer) for layer in DINOHead(6, 5, [8], 4, batch_norm=False).mlp.net] == [
        nn.Linear,
        nn.GELU,
        nn.Linear,
    ]


def test_the_last_layer_is_weight_normalised_with_a_gain_of_one():
    head = DINOHead(2, 2, [], 2)
    z = torch.tensor([[1.0, 1.0]]) / 2**0.5
    with torch.no_grad():
        head.prototypes.copy_(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
    assert head.cosines(z)[0].tolist() == pytest.approx([0.989950, 0.707107], abs=1e-6)
    head.cosines(torch.tensor([[1.0, 0.0]]))[0, 0].backward()
    assert head.prototypes.grad[0].tolist() == pytest.approx([0.128, -0.096], abs=1e-6)  # orthogonal to the row
    reference = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        reference.parametrizations.weight.original1.copy_(head.prototypes)
        reference.parametrizations.weight.original0.fill_(1)
    torch.testing.assert_close(reference(z), head.cosines(z))


def test_a_fresh_head_stands_near_chance():
    torch.manual_seed(0)
    head, x = DINOHead(64, hidden=[32, 32]), torch.randn(12, 64)
    outputs = head(x).detach()
    assert outputs.std().item() == pytest.approx(0.0625, abs=0.005)
    views, center = outputs.unflatten(0, (3, 4)), torch.zeros(65536)
    assert 10.3 < dino_loss(views, views[:2], center).item() < 11.3
    assert dino_statistics(views[:2], center)["teacher_entropy"].item() == pytest.approx(9.9, abs=0.1)


def test_the_mlp_starts_small_and_without_bias():
    head = DINOHead(64, 16, [256, 256], 32)
    for layer in head.mlp.net:
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.02, abs=0.002) and (layer.bias == 0).all()
    assert head.prototypes.abs().max().item() <= 32**-0.5


@pytest.mark.parametrize("head", [DINOHead(8, 6, [5, 4], 3), MarginHead(8, 6, centers=2, top_k=2)])
def test_heads_are_float32_under_autocast_and_are_rebuilt(head):
    x = torch.randn(4, 8)
    head.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert head(x).dtype == torch.float32
    again = build(describe(head)).eval()
    again.load_state_dict(head.state_dict())
    assert head(x).shape == (4, head.dim) == (4, 6) and torch.equal(again(x), head(x))


def test_cosines_near_one_are_not_rounded_under_autocast():
    head = DINOHead(8, 6, [], 8)
    z = F.normalize(torch.randn(4, 8), dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = head.cosines(z)
    assert torch.equal(inside, head.cosines(z))


def test_margin_head_gives_scaled_cosines_and_lowers_the_own_class():
    torch.manual_seed(0)
    head, x, labels = MarginHead(5, 4, scale=32.0), torch.randn(7, 5), torch.randint(4, (7,))
    cosines = F.cosine_similarity(x[:, None], head.weight[None], dim=2)
    torch.testing.assert_close(head(x), 32 * cosines)
    own = F.one_hot(labels, 4).bool()
    inside = cosines.acos() < math.pi - 0.2
    expected = torch.where(
        own & inside, (cosines.acos() + 0.2).cos(), torch.where(own, cosines - 1 + math.cos(0.2), cosines)
    )
    torch.testing.assert_close(head.logits(x, labels), 32 * expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(head.logits(x, labels, margin=0.0), head(x), rtol=1e-4, atol=1e-4)
    am = MarginHead(5, 4, "am", 0.3)
    am.load_state_dict(head.state_dict())
    torch.testing.assert_close(am.logits(x, labels), 30 * (cosines - 0.3 * own))
    none = MarginHead(5, 4, "none")
    torch.testing.assert_close(none.logits(x, labels), none(x))


def test_the_nearest_centre_of_a_class_counts():
    head = MarginHead(2, 2, centers=2)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 0.0], [0.0, -3.0]]))
    assert head.cosines(torch.tensor([[0.6, 0.8]]))[0].tolist() == pytest.approx([0.8, -0.6])


def test_the_penalty_of_the_nearest_others_grows_with_the_margin():
    torch.manual_seed(0)
    head, x, labels = MarginHead(5, 6, top_k=2), torch.randn(3, 5), torch.tensor([0, 1, 2])
    for margin, penalty in ((0.2, 0.06), (0.1, 0.03)):
        angles = head.cosines(x).acos()
        raised = head.logits(x, labels, margin) > head(x) + 1e-4
        assert raised.sum(1).tolist() == [2, 2, 2]
        torch.testing.assert_close(head.logits(x, labels, margin)[raised], 30 * (angles[raised] - penalty).cos())
    assert not (head.logits(x, labels, 0.0) > head(x) + 1e-4).any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"margin_type": "arc"}, "margin_type is 'arc'.*aam, am, none"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"centers": 0}, "centers 0"),
        ({"scale": 0.0}, "scale 0.0"),
        ({"margin": -0.1}, "margin -0.1"),
    ],
)
def test_impossible_margin_heads_are_named(arguments, words):
    with pytest.raises(InputError, match=words):
        MarginHead(**{"in_dim": 4, "num_classes": 3, **arguments})
