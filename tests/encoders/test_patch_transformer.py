"""The transformer on a subset of patches: sizes and counts of Myna, and what masking must and must not do."""

import math

import pytest
import torch

from ssl_audio.encoders import PatchTransformer
from ssl_audio.encoders.patch_transformer import random_subset, sine_positions
from ssl_audio.errors import InputError
from ssl_audio.frontends import Waveform
from ssl_audio.heads import MLP
from ssl_audio.losses import nt_xent_loss
from ssl_audio.methods import NTXent


def small(**arguments):
    torch.manual_seed(0)
    return PatchTransformer(**{"n_mels": 32, "embedding_dim": 16, "depth": 2, "heads": 2, "mlp_dim": 32, **arguments})


def test_the_published_network_and_its_numbers_of_tokens() -> None:
    with torch.device("meta"):
        network = PatchTransformer()
        layer = 3 * 384 * 384 + 384 * 384 + 384 + 2 * 384 * 1536 + 1536 + 384 + 4 * 384
        assert sum(p.numel() for p in network.parameters()) == 12 * layer + 16 * 16 * 384 + 384 + 2 * 384
        for frames, tokens, kept in ((96, 48, 5), (192, 96, 10)):
            x, rows = network.tokens(torch.zeros(1, 128, frames))
            assert (x.shape[1], rows, network.kept(tokens)) == (tokens, 8, kept)
        both = PatchTransformer(patches=[(16, 16), (128, 2)])
        assert both.dim == 768 and both.tokens(torch.zeros(1, 128, 96), 1)[0].shape[1] == 48


def test_a_subset_is_random_ordered_without_repeats_and_seeded() -> None:
    tokens = torch.arange(12.0).repeat(200, 1).unsqueeze(2)
    torch.manual_seed(3)
    first = random_subset(tokens, 5).squeeze(2)
    torch.manual_seed(3)
    assert torch.equal(random_subset(tokens, 5).squeeze(2), first)
    assert (first.diff(dim=1) > 0).all()  # in their order, none twice
    counts = torch.bincount(first.long().flatten(), minlength=12)
    assert counts.sum() == 1000 and counts.min() > 50 and counts.max() < 120  # 83 expected, deviation 7
    assert torch.equal(random_subset(tokens, 12), tokens)


def test_positions_are_sines_of_row_and_column() -> None:
    found = sine_positions(3, 4, 16).unflatten(0, (3, 4))
    for row in range(3):
        for column in range(4):
            for k in range(4):
                frequency = 10000 ** (-k / 3)
                expected = [math.sin(row * frequency), math.cos(row * frequency)]
                expected += [math.sin(column * frequency), math.cos(column * frequency)]
                assert found[row, column, k::4].tolist() == pytest.approx(expected, abs=1e-6)


def test_only_training_masks_and_a_dropped_patch_has_no_influence() -> None:
    network = small(patches=[(16, 8)], mask=0.75)
    x = torch.randn(2, 32, 32)  # 8 patches, of which 2 are kept
    network.train()
    torch.manual_seed(0)
    first, second = network(x), network(x)
    assert not torch.allclose(first, second)
    gradient = torch.zeros_like(x).requires_grad_()
    network(x + gradient)[0].square().sum().backward()
    seen = gradient.grad[0].abs().unflatten(1, (4, 8)).unflatten(0, (2, 16)).sum(dim=(1, 3)) > 0
    assert seen.sum() == 2 and not gradient.grad[1].any()
    network.eval()
    assert torch.equal(network(x), network(x))
    torch.testing.assert_close(network(x), network.frames(x).mean(dim=1))
    whole = small(patches=[(16, 8)], mask=0.0).train()
    whole.load_state_dict(network.state_dict())
    torch.testing.assert_close(whole(x), network(x))


def test_two_sizes_of_patches_have_the_mean_of_their_losses() -> None:
    encoder = small(patches=[(8, 8), (32, 2)], mask=0.0)
    x1, x2 = torch.randn(2, 4, 32, 16)
    head = MLP(32, [8, 6], parts=2)
    assert head.dim == 12

    class Features(Waveform):
        def forward(self, clips):
            return clips.unflatten(1, (32, 16))

    method = NTXent(0.5, parts=2, frontend=Features(), encoder=encoder, projection=lambda dim: head).eval()
    loss = method.objective(x1.flatten(1), x2.flatten(1)).terms["loss"]
    losses = []
    for part in (slice(0, 16), slice(16, 32)):
        z1, z2 = (head.net(encoder(x)[:, part]) for x in (x1, x2))
        losses.append(nt_xent_loss(z1, z2, 0.5))
    torch.testing.assert_close(loss, sum(losses) / 2)


def test_arguments_out_of_their_range_are_one_line() -> None:
    with pytest.raises(InputError, match=r"patches has \[24, 8\]; give bands that divide 32"):
        small(patches=[(24, 8)])
    with pytest.raises(InputError, match=r"mask 1\.0"):
        small(mask=1.0)
    with pytest.raises(InputError, match="multiple of 4 and of heads"):
        small(embedding_dim=18)
    with pytest.raises(InputError, match="n_mels 32 and got 16 bands"):
        small()(torch.randn(1, 16, 32))
    with pytest.raises(InputError, match="parts"):
        MLP(33, [8], parts=2)
