"""MoCo's step: keys, the queue and what is no negative."""

import copy

import pytest
import torch
from test_methods import clips, make
from torch.nn.functional import normalize

from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.losses import moco_loss
from ssl_audio.methods.averaging import follow


def batch(seed: int = 0, samples: int = 32, **changes):
    clip1, clip2 = clips(seed, samples=samples)
    return {"clip1": clip1, "clip2": clip2, "index": torch.arange(8), **changes}


def test_both_directions_have_a_queue_of_the_keys_that_serve_them():
    method = make("moco")
    views = clips()
    with torch.no_grad():
        z1, z2 = (method.projection(method(clip)) for clip in views)  # the key network is still a copy
    expected = (moco_loss(z1, z2, method.queue[0]) + moco_loss(z2, z1, method.queue[1])) / 2
    torch.testing.assert_close(method.batch_objective(batch()).terms["loss"], expected)
    method.enqueue()
    torch.testing.assert_close(method.queue[0, :8], normalize(z2, dim=1))
    torch.testing.assert_close(method.queue[1, :8], normalize(z1, dim=1))
    one_way = make("moco-one-way")
    torch.testing.assert_close(one_way.batch_objective(batch()).terms["loss"], moco_loss(z1, z2, one_way.queue[0]))


def test_the_queue_is_a_ring_and_a_batch_longer_than_it_leaves_its_last_keys():
    method = make("moco", queue_size=12)
    for seed in (0, 1):
        method.batch_objective(batch(seed, index=torch.arange(8) + 8 * seed))
        method.enqueue()
    assert method.queue_ids.tolist() == [12, 13, 14, 15, 4, 5, 6, 7, 8, 9, 10, 11] and int(method.pointer) == 4
    short = make("moco", queue_size=3)
    short.batch_objective(batch())
    short.enqueue()
    assert sorted(short.queue_ids.tolist()) == [5, 6, 7]
    method.eval().batch_objective(batch(2))
    method.enqueue()
    assert int(method.pointer) == 4  # validation leaves the queue alone


def test_earlier_keys_of_a_recording_are_no_negatives_for_it():
    method = make("moco", queue_size=8)
    method.batch_objective(batch())
    method.enqueue()
    ignored = torch.eye(8, dtype=torch.bool)
    result = method.batch_objective(batch(1))
    q1, q2 = result.projections
    expected = (
        moco_loss(q1, q2, method.queue[0], ignored=ignored) + moco_loss(q2, q1, method.queue[1], ignored=ignored)
    ) / 2
    torch.testing.assert_close(result.terms["loss"], expected)
    other = method.batch_objective(batch(1, index=torch.arange(8) + 100)).terms["loss"]
    assert not torch.allclose(other, expected)


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_keys_come_in_chunks_with_statistics_of_their_own_and_keep_their_order(chunks):
    method = make("moco", CompactCNN([4, 8], embedding_dim=12), key_chunks=chunks).train()
    seen: list[torch.Tensor] = []
    method.key["encoder"].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    features = method.features(clips(samples=6000)[0])
    torch.manual_seed(5)
    with torch.no_grad():
        _, keys = method._keys(features)
        parts = list(seen)
        expected = torch.cat([copy.deepcopy(method.key["projection"])(method.key["encoder"](part)) for part in parts])
    assert len(parts) == chunks and sum(map(len, parts)) == 8
    order = [int((features == row).flatten(1).all(dim=1).nonzero()) for row in torch.cat(parts)]
    assert sorted(order) == list(range(8)) and order != list(range(8))
    torch.testing.assert_close(keys[order], expected)


def test_the_key_network_follows_the_weights():
    method = make("moco")
    before = [parameter.clone() for parameter in method.key.parameters()]
    with torch.no_grad():
        for parameter in [*method.encoder.parameters(), *method.projection.parameters()]:
            parameter += 1.0
    follow(method.key["encoder"], method.encoder, 0.9)
    follow(method.key["projection"], method.projection, 0.9)
    for now, then in zip(method.key.parameters(), before, strict=True):
        torch.testing.assert_close(now, then + 0.1)
        assert not now.requires_grad


def test_values_out_of_range_are_one_line():
    for changes, message in (
        ({"queue_size": 0}, r"model\.queue_size is 0"),
        ({"momentum": 2}, r"model\.momentum is 2"),
    ):
        with pytest.raises(InputError, match=message):
            make("moco", **changes)
