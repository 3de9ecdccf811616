"""The singer models' objectives against the original's values and against their definitions."""

import math
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cosine_similarity, normalize

from ssl_audio.losses import (
    alignment_loss,
    byol_loss,
    contrastive_loss,
    covariance_loss,
    invariance_loss,
    nt_xent_loss,
    uniformity_loss,
    variance_loss,
)

sizes = {"n": st.integers(2, 9), "dim": st.integers(1, 6), "seed": st.integers(0, 999)}


def views(n, dim, seed):
    return torch.randn(2, n, dim, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def original(shared):
    return {name: torch.as_tensor(value) for name, value in np.load(shared / "fixtures" / "losses.npz").items()}


def test_contrastive_agrees_with_the_original(original):
    cases = [re.fullmatch(r"contrastive_neg(\d+)_decoupled(\d)_temp([\d.]+)", name) for name in original]
    cases = [case for case in cases if case]
    assert len(cases) == 8
    for case in cases:
        negatives, decoupled, temperature = int(case[1]), case[2] == "1", float(case[3])
        value = contrastive_loss(original["z1"], original["z2"], temperature, negatives, decoupled)
        assert value.item() == pytest.approx(original[case[0]].item(), abs=1e-5)


def test_other_terms_agree_with_the_original(original):
    z1, z2 = original["z1"], original["z2"]
    u1, u2 = normalize(z1), normalize(z2)
    rsqrt = z1.shape[1] ** -0.5
    invariance, covariance = invariance_loss(z1, z2), covariance_loss(z1) + covariance_loss(z2)
    variance = (variance_loss(z1, 1.0) + variance_loss(z2, 1.0)) / 2
    for value, name in [
        (invariance, "invariance"),
        (covariance, "covariance"),
        (variance, "variance_gamma1"),
        ((variance_loss(u1, rsqrt) + variance_loss(u2, rsqrt)) / 2, "variance_normalized_gamma_rsqrt_d"),
        (alignment_loss(u1, u2), "align_normalized"),
        ((uniformity_loss(u1) + uniformity_loss(u2)) / 2, "uniform_mean_of_both_normalized"),
        (byol_loss(z1, z2), "byol_mse_normalized"),
    ]:
        assert value.item() == pytest.approx(original[name].item(), abs=1e-5), name
    total = 25 * invariance + 25 * variance + 100 * covariance
    assert total.item() == pytest.approx(original["vicreg_25_25_100"].item(), rel=1e-6)


@settings(deadline=None, max_examples=40)
@given(**sizes, negatives=st.integers(1, 12), decoupled=st.booleans())
def test_contrastive_equals_rolling(n, dim, seed, negatives, decoupled):
    """The definition as it is written: the second view rolled by k, for each k."""
    z1, z2 = views(n, dim, seed).double()
    positive = cosine_similarity(z1, z2) / 0.2
    terms = [cosine_similarity(z1, z2.roll(k, 0)) / 0.2 for k in range(1, min(n - 1, negatives) + 1)]
    expected = (torch.stack(terms + ([] if decoupled else [positive])).logsumexp(0) - positive).mean()
    assert contrastive_loss(z1, z2, 0.2, negatives, decoupled).item() == pytest.approx(expected.item(), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(**sizes)
def test_nt_xent_equals_the_equation(n, dim, seed):
    z1, z2 = views(n, dim, seed).double()
    z = torch.cat([z1, z2])
    total = 0.0
    for i in range(2 * n):
        score = [math.exp(float(cosine_similarity(z[i], z[j], dim=0)) / 0.5) for j in range(2 * n)]
        total -= math.log(score[(i + n) % (2 * n)] / (sum(score) - score[i]))
    assert nt_xent_loss(z1, z2, 0.5).item() == pytest.approx(total / (2 * n), abs=1e-9)


@settings(deadline=None, max_examples=40)
@given(**sizes, scale=st.sampled_from([1e-2, 1.0, 30.0]))
def test_uniformity_equals_the_pairs(n, dim, seed, scale):
    z = views(n, dim, seed)[0].double() * scale
    pairs = [-2 * float((z[i] - z[j]).square().sum()) for i in range(n) for j in range(i)]
    expected = float(torch.tensor(pairs, dtype=torch.float64).logsumexp(0)) - math.log(len(pairs))
    assert uniformity_loss(z).item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_covariance_equals_numpy():
    z = views(7, 5, 0)[0].double()
    c = np.cov(z.numpy().T)
    assert covariance_loss(z).item() == pytest.approx(float((c**2).sum() - (np.diag(c) ** 2).sum()) / 5)


def test_byol_is_the_cosine_distance_over_the_dimensions():
    p, z = views(6, 10, 1).double()
    assert byol_loss(3 * p, z).item() == pytest.approx(float((2 - 2 * cosine_similarity(p, z)).mean()) / 10)


@pytest.mark.parametrize("loss", [contrastive_loss, nt_xent_loss])
def test_gradients_are_right_and_finite_where_views_coincide(loss):
    z1, z2 = views(4, 3, 2).double().requires_grad_()
    assert torch.autograd.gradcheck(loss, (z1, z2))
    same = torch.ones(4, 3, requires_grad=True)
    loss(same, same).backward()
    assert same.grad.isfinite().all()


def test_uniformity_and_variance_have_gradients_where_all_clips_coincide():
    z = torch.ones(5, 3, requires_grad=True)
    (uniformity_loss(z) + variance_loss(z)).backward()
    assert z.grad.isfinite().all() and uniformity_loss(z).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads a process's peak memory from /proc")
def test_nt_xent_of_2048_pairs_stays_below_half_a_gigabyte():
    program = """
import re, torch
from ssl_audio.losses import nt_xent_loss
def step(n):
    z1, z2 = torch.randn(2, n, 64).requires_grad_()
    nt_xent_loss(z1, z2).backward()
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])
print(-step(4) + step(2048))
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    similarities = 4096 * 4096 * 4  # one matrix: less would mean that nothing was measured
    assert similarities < int(output) < 0.5e9


@pytest.mark.parametrize("loss", [contrastive_loss, nt_xent_loss, alignment_loss, invariance_loss, byol_loss])
@pytest.mark.parametrize("shapes", [((4, 3), (4, 2)), ((4,), (4,)), ((4, 3), (5, 3))])
def test_views_of_different_shapes_are_refused(loss, shapes):
    with pytest.raises(ValueError, match=r"\(batch, dim\)"):
        loss(*(torch.randn(shape) for shape in shapes))


@pytest.mark.parametrize("loss", [contrastive_loss, nt_xent_loss])
def test_a_batch_of_one_is_refused_with_the_key_to_change(loss):
    with pytest.raises(ValueError, match=r"data\.batch_size"):
        loss(torch.randn(1, 3), torch.randn(1, 3))


@pytest.mark.parametrize("loss", [uniformity_loss, variance_loss, covariance_loss])
def test_one_view_losses_refuse_one_clip_and_other_shapes(loss):
    for shape in ((1, 3), (4,)):
        with pytest.raises(ValueError, match="batch"):
            loss(torch.randn(shape))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_an_impossible_temperature_is_refused(temperature):
    for loss in (contrastive_loss, nt_xent_loss):
        with pytest.raises(ValueError, match="temperature"):
            loss(torch.randn(3, 2), torch.randn(3, 2), temperature)
    with pytest.raises(ValueError, match="num_negatives"):
        contrastive_loss(torch.randn(3, 2), torch.randn(3, 2), num_negatives=0)
