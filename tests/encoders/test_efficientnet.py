"""EfficientNet: torchvision's arithmetic on efficientnet_pytorch's network, its variants and its training behaviour."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ssl_audio.encoders import EfficientNet, efficientnet
from ssl_audio.errors import InputError
from ssl_audio.pooling import AttentiveStatisticsPooling
from ssl_audio.weights import load_strict


@pytest.fixture(scope="module")
def b0():
    torch.manual_seed(0)
    return EfficientNet(embedding_dim=16).eval()


def test_padding_and_batch_norm_are_torchvisions(b0):
    for module in b0.modules():
        if isinstance(module, nn.Conv2d):
            assert module.padding == ((module.kernel_size[0] - 1) // 2,) * 2
        if isinstance(module, nn.BatchNorm2d):
            assert module.eps == 1e-5 and module.momentum == pytest.approx(0.1)


@pytest.mark.parametrize(("backbone", "count"), [("efficientnet_b0", 5_288_548), ("efficientnet_b4", 19_341_616)])
def test_sizes_are_torchvisions(backbone, count):
    with torch.device("meta"):
        assert sum(p.numel() for p in EfficientNet(backbone).parameters()) == count


@pytest.mark.parametrize("frames", [1, 2, 31, 64, 65])
def test_any_length_gives_one_vector_and_its_frames(b0, frames):
    features = torch.randn(2, 40, frames)
    with torch.no_grad():
        assert b0(features).shape == (2, 16)
        assert b0.frames(features).shape == (2, -(-frames // 32), b0.frame_dim)


def test_the_embedding_is_the_linear_layer_on_the_mean_of_the_feature_map(b0):
    features = torch.randn(1, 64, 90)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    image = (features[:, None].expand(-1, 3, -1, -1) - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        expected = b0.classifier[1](b0.net.extract_features(image).mean((2, 3)))
        torch.testing.assert_close(b0(features), expected, rtol=1e-4, atol=1e-6)


def test_the_attention_variant_is_the_singer_models():
    """Two groups and an attention that sees the frames alone, written out from the definition in their code."""
    with torch.device("meta"):
        encoder = EfficientNet("efficientnet_b0_att")
    assert sum(p.numel() for p in encoder.parameters()) == 4_458_676
    assert encoder.pooling[0].layer.weight.shape == (500, 640, 1)
    assert encoder.pooling[1].attention[0].weight.shape == (128, 500)

    torch.manual_seed(0)
    encoder = EfficientNet("efficientnet_b0_att", embedding_dim=100).eval()
    image = torch.rand(2, 40, 170)
    theirs = efficientnet.to_torchvision(encoder.state_dict(), encoder)
    with torch.no_grad():
        frames = encoder.frames(image).transpose(1, 2)
        x = F.conv1d(frames, theirs["att.0.weight"], theirs["att.0.bias"], groups=2)
        hidden = F.conv1d(x, theirs["att.1.network.0.weight"], theirs["att.1.network.0.bias"]).tanh()
        weights = F.conv1d(hidden, theirs["att.1.network.2.weight"], theirs["att.1.network.2.bias"]).softmax(-1)
        mean = (weights * x).sum(-1)
        deviation = ((weights * x.square()).sum(-1) - mean.square()).clamp(min=1e-9).sqrt()
        expected = torch.cat([mean, deviation], 1) / (1 + 1e-5) ** 0.5
        torch.testing.assert_close(encoder(image), expected, rtol=1e-3, atol=1e-6)
    back = efficientnet.from_torchvision(theirs, encoder)
    assert all(torch.equal(back[key], value) for key, value in encoder.state_dict().items())


@pytest.mark.parametrize(("dim", "groups"), [(1000, 20), (100, 10)])
def test_weights_of_the_attention_variant_of_0_1_still_load(dim, groups):
    old = EfficientNet("efficientnet_b0_att", dim)
    old.pooling = efficientnet._grouped_attention(1280, dim, groups, AttentiveStatisticsPooling)
    new = EfficientNet("efficientnet_b0_att", dim)
    load_strict(new, old.state_dict(), "old")
    image = torch.rand(1, 40, 70)
    with torch.no_grad():
        assert torch.equal(new.eval()(image), old.eval()(image))


def test_running_statistics_move_by_the_momentum_asked_for():
    for momentum in (0.1, 0.01):
        torch.manual_seed(0)
        encoder = EfficientNet(embedding_dim=4, batch_norm_momentum=momentum).train()
        features = torch.rand(2, 32, 32)
        stem = encoder.net._conv_stem((features[:, None].expand(-1, 3, -1, -1) - encoder.mean) / encoder.std)
        encoder(features)
        torch.testing.assert_close(encoder.net._bn0.running_mean, momentum * stem.mean((0, 2, 3)), rtol=1e-3, atol=1e-6)


def test_stochastic_depth_and_dropout_act_in_training_only():
    features = torch.rand(4, 32, 32)
    still = EfficientNet(embedding_dim=4, dropout=0.0, stochastic_depth=0.0).train()
    assert torch.equal(still(features), still(features))
    noisy = EfficientNet(embedding_dim=4, dropout=0.0, stochastic_depth=0.9).train()
    assert not torch.equal(noisy(features), noisy(features))
    noisy.eval()
    assert torch.equal(noisy(features), noisy(features))


def test_an_untrained_network_gives_vectors_that_can_be_compared(b0):
    """torchvision's initial depthwise weights give vectors of length 1e-12, which a cosine rounds away."""
    with torch.no_grad():
        assert b0(torch.rand(2, 64, 64)).norm(dim=1).min() > 1e-6


def test_all_weights_learn():
    encoder = EfficientNet(embedding_dim=4).train()
    encoder(torch.rand(2, 32, 64)).square().sum().backward()
    assert [name for name, p in encoder.named_parameters() if p.grad is None] == []


def test_wrong_names_are_refused():
    with pytest.raises(InputError, match=r"'efficientnet_b9'; it must be one of efficientnet_b0"):
        EfficientNet("efficientnet_b9")
    with pytest.raises(InputError, match="multiple of 4"):
        EfficientNet("efficientnet_b0_att", embedding_dim=7)


def test_half_precision_training_follows_float32():
    torch.manual_seed(0)
    encoder = EfficientNet(embedding_dim=4, dropout=0.0, stochastic_depth=0.0).train()
    features = torch.rand(4, 64, 64)
    gradients = []
    for half in (False, True):
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            embedding = encoder(features)
        assert embedding.dtype == (torch.bfloat16 if half else torch.float32)
        embedding.float().square().mean().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters()]))
    assert torch.cosine_similarity(*gradients, dim=0) > 0.9
