"""Objectives that know groups, queues and stored positives: SupCon, NT-Xent with groups, MoCo."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity

from ssl_audio.losses import contrastive_loss, moco_loss, nt_xent_loss, replace_positives, sup_con_loss

Z = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-0.6, 0.8]])
Z1 = torch.tensor([[1.0, 0.0], [0.8, 0.6], [-0.6, 0.8]])
Z2 = torch.tensor([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]])


@pytest.mark.parametrize("decoupled", [True, False])
def test_contrastive_takes_no_clip_of_the_same_group_as_a_negative(decoupled):
    z1, z2 = views(6, 4, 3)
    groups = torch.tensor([0, 1, 0, 2, 1, 0])
    rows = []
    for i in range(6):
        score = [math.exp(float(cosine_similarity(z1[i], z2[j], dim=0)) / 0.3) for j in range(6)]
        others = sum(score[j] for j in range(6) if groups[j] != groups[i])
        rows.append(math.log(others if decoupled else others + score[i]) - math.log(score[i]))
    value = contrastive_loss(z1, z2, 0.3, decoupled=decoupled, groups=groups)
    assert value.item() == pytest.approx(sum(rows) / 6, abs=1e-9)
    z1.requires_grad_()
    alone = contrastive_loss(z1, z2, 0.3, decoupled=decoupled, groups=torch.zeros(6, dtype=torch.long))
    alone.backward()
    assert alone.item() == pytest.approx(0.0, abs=1e-9) and z1.grad.isfinite().all()


def views(n, dim, seed):
    return torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("temperature", "value"), [(0.5, 0.430190), (0.1, 0.063780)])
def test_sup_con_of_the_specified_pairs(temperature, value):
    groups = torch.tensor([0, 0, 1, 1])
    assert sup_con_loss(Z, groups, temperature).item() == pytest.approx(value, abs=1e-6)
    assert sup_con_loss(3 * Z, groups, temperature).item() == pytest.approx(value, abs=1e-6)  # cosines


def test_sup_con_leaves_anchors_without_positives_out_and_sums_outside():
    assert sup_con_loss(Z, torch.tensor([0, 0, 0, 1]), 0.5).item() == pytest.approx(1.162501, abs=1e-6)
    rows = [1.033257, 0.827123, 1.627123]
    assert sum(rows) / 3 == pytest.approx(1.162501, abs=1e-6)
    inside = [0.742504, 0.807255, 1.456988]  # the form with the sum inside the logarithm is another loss
    assert abs(sup_con_loss(Z, torch.tensor([0, 0, 0, 1]), 0.5).item() - sum(inside) / 3) > 0.1


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 7), dim=st.integers(1, 5), seed=st.integers(0, 999))
def test_sup_con_equals_the_equation(n, dim, seed):
    z = views(n, dim, seed).flatten(0, 1)
    generator = torch.Generator().manual_seed(seed)
    groups = torch.randint(n, (2 * n,), generator=generator)
    groups[1] = groups[0]
    ignored = torch.rand(2 * n, 2 * n, generator=generator) < 0.2
    ignored[0, 1] = False
    anchors = []
    for i in range(2 * n):
        score = [float(cosine_similarity(z[i], z[j], dim=0)) / 0.3 for j in range(2 * n)]
        counted = [j for j in range(2 * n) if j != i and not ignored[i, j]]
        positives = [j for j in counted if groups[j] == groups[i]]
        if positives:
            total = math.log(sum(math.exp(score[j]) for j in counted))
            anchors.append(-sum(score[j] - total for j in positives) / len(positives))
    value = sup_con_loss(z, groups, 0.3, ignored)
    assert value.item() == pytest.approx(sum(anchors) / len(anchors), abs=1e-9)


def test_sup_con_of_two_views_and_no_other_positives_is_nt_xent():
    z1, z2 = views(6, 4, 0)
    clips = torch.arange(6)
    expected = nt_xent_loss(z1, z2, 0.2).item()
    assert sup_con_loss(torch.cat([z1, z2]), torch.cat([clips, clips]), 0.2).item() == pytest.approx(expected)


def test_sup_con_has_finite_gradients_where_an_anchor_meets_nothing():
    z = Z.clone().requires_grad_()
    ignored = torch.zeros(4, 4, dtype=torch.bool)
    ignored[3] = True
    sup_con_loss(z, torch.tensor([0, 0, 1, 1]), 0.5, ignored).backward()
    assert z.grad.isfinite().all()
    assert torch.autograd.gradcheck(
        lambda z: sup_con_loss(z, torch.tensor([0, 0, 1, 1]), 0.5), (Z.double().requires_grad_(),)
    )


def test_sup_con_refuses_a_batch_without_positives_and_shapes_that_do_not_fit():
    with pytest.raises(ValueError, match="no two views in the batch have the same group"):
        sup_con_loss(Z, torch.arange(4))
    for groups, ignored in ((torch.zeros(3), None), (torch.zeros(4), torch.zeros(4, 3))):
        with pytest.raises(ValueError, match="4 views do not fit"):
            sup_con_loss(Z, groups, 0.1, ignored)


def test_nt_xent_with_groups_of_the_specified_example():
    assert nt_xent_loss(Z1, Z2, 0.5).item() == pytest.approx(1.242825, abs=1e-6)
    assert nt_xent_loss(Z1, Z2, 0.5, torch.tensor([0, 0, 1])).item() == pytest.approx(0.594822, abs=1e-6)


@settings(deadline=None, max_examples=30)
@given(n=st.integers(2, 7), dim=st.integers(1, 5), seed=st.integers(0, 999))
def test_nt_xent_with_groups_equals_the_equation(n, dim, seed):
    z1, z2 = views(n, dim, seed)
    z, groups = torch.cat([z1, z2]), torch.randint(3, (n,), generator=torch.Generator().manual_seed(seed)).tolist()
    total = 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        met = [j for j in range(2 * n) if j != i and (j == partner or groups[j % n] != groups[i % n])]
        score = {j: math.exp(float(cosine_similarity(z[i], z[j], dim=0)) / 0.5) for j in met}
        total -= math.log(score[partner] / sum(score.values()))
    assert nt_xent_loss(z1, z2, 0.5, torch.tensor(groups)).item() == pytest.approx(total / (2 * n), abs=1e-9)


def test_groups_of_one_clip_change_no_bit_and_all_clips_of_one_group_have_no_negatives():
    z1, z2 = torch.randn(2, 16, 8)
    assert torch.equal(nt_xent_loss(z1, z2, 0.1, torch.arange(16)), nt_xent_loss(z1, z2, 0.1))
    same = z1.clone().requires_grad_()
    loss = nt_xent_loss(same, z2, 0.1, torch.zeros(16, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0 and (same.grad == 0).all()
    with pytest.raises(ValueError, match="one number for each of 16 clips"):
        nt_xent_loss(z1, z2, 0.1, torch.zeros(32))


def test_nt_xent_with_a_replaced_positive_of_the_specified_example():
    z1 = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    z2 = torch.tensor([[0.8, 0.6], [-0.6, 0.8]], requires_grad=True)
    stored = torch.tensor([[0.6, -0.8], [9.0, 9.0]], requires_grad=True)
    assert nt_xent_loss(z1, z2, 0.5).item() == pytest.approx(0.430190, abs=1e-6)
    loss = nt_xent_loss(z1, replace_positives(z2, stored, torch.tensor([True, False])), 0.5)
    assert loss.item() == pytest.approx(0.182284, abs=1e-6)
    loss.backward()
    assert stored.grad is None and (z2.grad[0] == 0).all() and z2.grad[1].abs().sum() > 0
    with pytest.raises(ValueError, match="one shape"):
        replace_positives(z2, stored[:1], torch.tensor([True, False]))
    with pytest.raises(ValueError, match="known must be a"):
        replace_positives(z2, stored, torch.tensor([True]))


Q, K = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8]])
QUEUE = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])


def test_moco_of_the_specified_example():
    assert moco_loss(Q, K, QUEUE, 0.2).item() == pytest.approx(0.048907, abs=1e-6)
    assert moco_loss(5 * Q, 7 * K, QUEUE, 0.2).item() == pytest.approx(0.048907, abs=1e-6)


def test_moco_ignores_a_clips_own_older_keys():
    older = torch.cat([QUEUE, Q])  # the own key of an earlier epoch, nearer than the positive
    assert moco_loss(Q, K, older, 0.2).item() > 2
    ignored = torch.tensor([[False, False, True]])
    assert moco_loss(Q, K, older, 0.2, ignored).item() == pytest.approx(0.048907, abs=1e-6)
    assert moco_loss(Q, K, older, 0.2, torch.ones(1, 3, dtype=torch.bool)).item() == 0


def test_moco_after_the_keys_have_entered_the_queue_cannot_fall_below_ln_2():
    assert moco_loss(Q, Q, torch.cat([QUEUE, Q]), 0.05).item() == pytest.approx(math.log(2), abs=1e-4)


def test_moco_at_chance_is_the_logarithm_of_the_candidates():
    queue = torch.eye(3)[[2]].expand(4096, 3)
    loss = moco_loss(torch.eye(3)[[0]], torch.eye(3)[[1]], queue, 0.07)
    assert loss.item() == pytest.approx(math.log(4097), abs=1e-4)


def test_moco_gives_keys_and_queue_no_gradient():
    q, k, queue = Q.clone().requires_grad_(), K.clone().requires_grad_(), QUEUE.clone().requires_grad_()
    moco_loss(q, k, queue).backward()
    assert q.grad.abs().sum() > 0 and k.grad is None and queue.grad is None


def test_moco_refuses_shapes_that_do_not_fit():
    for queue, ignored in ((torch.zeros(4, 3), None), (QUEUE, torch.zeros(1, 3))):
        with pytest.raises(ValueError, match="do not fit a queue"):
            moco_loss(Q, K, queue, 0.1, ignored)
    with pytest.raises(ValueError, match="temperature"):
        moco_loss(Q, K, QUEUE, 0.0)
