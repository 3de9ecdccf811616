"""What the contexts of CPC may see, and their layers written out."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from ssl_audio import encoders
from ssl_audio.encoders.causal import CausalTransformerLayer
from ssl_audio.encoders.cpc import ChannelNorm
from ssl_audio.errors import InputError

CONTEXTS = [{"context": "transformer"}, {"context": "transformer", "positions": "sinusoidal"}, {"context": "gru"}]


def small(**arguments) -> encoders.CPC:
    torch.manual_seed(0)
    return encoders.CPC(16, heads=4, feedforward=32, max_distance=5, **arguments).eval()


def test_channel_norm_is_the_formula_and_looks_at_one_frame():
    norm = ChannelNorm(6)
    with torch.no_grad():
        norm.weight.normal_(), norm.bias.normal_()
    x = torch.randn(2, 6, 4)
    v = x.double().numpy()
    expected = (v - v.mean(1, keepdims=True)) / np.sqrt(v.var(1, ddof=1, keepdims=True) + 1e-5)
    expected = expected * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    np.testing.assert_allclose(norm(x).detach().numpy(), expected, atol=1e-5)


def test_batch_norm_is_over_the_frames_of_the_batch_and_saved_statistics_are_used_later():
    encoder = small(norm="batch", context="none").train()
    x = torch.randn(2, 1, 1600)
    plain = nn.BatchNorm1d(16)
    expected = plain(encoder.convolutions[0](x))
    torch.testing.assert_close(encoder.convolutions[:2](x), expected)
    encoder.eval(), plain.eval()
    torch.testing.assert_close(encoder.convolutions[:2](x), plain(encoder.convolutions[0](x)))
    with pytest.raises(InputError, match="channel, batch"):
        small(norm="layer")


def test_heads_that_do_not_divide_the_channels_are_named():
    with pytest.raises(InputError, match="heads is 3; it must divide the 16 channels"):
        encoders.CPC(16, heads=3)


def test_a_normalised_input_has_no_level():
    x = torch.randn(1, 3200)
    encoder = small(normalize=True)
    torch.testing.assert_close(encoder.latents(x), encoder.latents(0.1 * x + 0.2), rtol=0, atol=1e-2)
    assert encoder.latents(torch.zeros(1, 3200)).isfinite().all()
    assert not torch.allclose(small().latents(x), small().latents(0.1 * x + 0.2), rtol=0, atol=1e-2)


@pytest.mark.parametrize("arguments", CONTEXTS)
@pytest.mark.parametrize("reverse", [False, True])
def test_a_context_frame_sees_one_side_of_time_only(arguments, reverse):
    encoder = small(reverse=reverse, **arguments)
    latents = torch.randn(1, 12, 16, requires_grad=True)
    for frame in (0, 5, 11):
        (gradient,) = torch.autograd.grad(encoder.contextualize(latents)[0][0, frame, 0], latents)
        seen = gradient[0].abs().sum(1) > 0
        side = torch.arange(12) >= frame if reverse else torch.arange(12) <= frame
        assert torch.equal(seen, side)


@pytest.mark.parametrize("context", ["gru", "lstm", "rnn"])
def test_a_carried_state_continues_where_the_clip_ended(context):
    encoder = small(context=context, context_dim=8)
    latents = torch.randn(2, 10, 16)
    whole, _ = encoder.contextualize(latents)
    first, state = encoder.contextualize(latents[:, :4])
    second, _ = encoder.contextualize(latents[:, 4:], state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)


def test_relative_attention_is_the_formula_also_beyond_its_table():
    torch.manual_seed(0)
    layer = CausalTransformerLayer(8, heads=2, feedforward=16, dropout=0.1, max_distance=3).eval()
    x = torch.randn(1, 7, 8)
    q, k, v = (part.reshape(7, 2, 4).detach() for part in layer.qkv(x)[0].chunk(3, dim=1))
    attended = torch.zeros(7, 2, 4)
    for head in range(2):
        for i in range(7):
            keys = [k[j, head] + layer.relative_keys[min(i - j, 2)] for j in range(i + 1)]
            weights = torch.stack([q[i, head] @ key / math.sqrt(4) for key in keys]).softmax(0)
            attended[i, head] = sum(w * v[j, head] for j, w in enumerate(weights))
    y = layer.attention_norm(x + layer.out(attended.reshape(1, 7, 8)))
    torch.testing.assert_close(layer(x), layer.mlp_norm(y + layer.mlp(y)), rtol=1e-4, atol=1e-5)


def test_without_relative_keys_it_is_torchs_own_layer():
    torch.manual_seed(0)
    layer = CausalTransformerLayer(8, heads=2, feedforward=16, dropout=0.1, max_distance=None).eval()
    reference = nn.TransformerEncoderLayer(8, 2, 16, 0.1, "relu", batch_first=True).eval()
    with torch.no_grad():
        reference.self_attn.in_proj_weight.copy_(layer.qkv.weight)
        reference.self_attn.out_proj.weight.copy_(layer.out.weight)
        reference.self_attn.in_proj_bias.zero_(), reference.self_attn.out_proj.bias.zero_()
    for theirs, ours in (
        (reference.norm1, layer.attention_norm),
        (reference.norm2, layer.mlp_norm),
        (reference.linear1, layer.mlp[0]),
        (reference.linear2, layer.mlp[3]),
    ):
        theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 9, 8)
    mask = nn.Transformer.generate_square_subsequent_mask(9)
    torch.testing.assert_close(layer(x), reference(x, mask), rtol=1e-4, atol=1e-5)


def test_a_frame_every_ten_milliseconds_and_the_mean_of_them():
    encoder = small()
    x = torch.randn(2, 16000)
    frames = encoder.frames(x)
    assert frames.shape == (2, 100, 16)
    torch.testing.assert_close(encoder(x), frames.mean(1))
    assert encoder.frames(torch.randn(1, 160 * 300)).shape == (1, 300, 16)
