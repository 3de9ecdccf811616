"""The loss gate, fixed and by a mixture, and label correction."""

import math

import numpy as np
import pytest
import torch
from sklearn.mixture import GaussianMixture
from torch.nn.functional import cross_entropy

from ssl_audio.losses import corrected_loss, fit_loss_gate, gated_loss, predicted_classes
from ssl_audio.losses.noisy_labels import Mixture, fit_mixture, mixture_crossing


def drawn(means=(-2.0, 1.0), deviations=(0.5, 0.8), counts=(1400, 600), seed=0):
    random = np.random.default_rng(seed)
    parts = [random.normal(m, s, n) for m, s, n in zip(means, deviations, counts, strict=True)]
    return torch.from_numpy(np.concatenate(parts))


def test_a_fixed_gate_averages_what_it_keeps():
    losses = torch.tensor([0.5, 3.0, 7.0, 1.0], requires_grad=True)
    loss, kept = gated_loss(losses, 3.0)
    assert loss.item() == pytest.approx(1.5) and kept.tolist() == [True, True, False, True]
    loss.backward()
    assert losses.grad.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])


def test_a_gate_that_keeps_nothing_gives_zero_without_gradient():
    losses = torch.tensor([5.0, 6.0], requires_grad=True)
    loss, kept = gated_loss(losses, 1.0)
    loss.backward()
    assert loss.item() == 0 and not kept.any() and losses.grad.tolist() == [0, 0]


@pytest.mark.parametrize(("deviations", "value"), [((0.5, 0.5), -0.429392), ((0.5, 0.8), -0.67526)])
def test_the_crossings_of_the_specified_mixtures(deviations, value):
    crossing = mixture_crossing(Mixture((-2.0, 1.0), deviations, (0.7, 0.3)))
    assert crossing == pytest.approx(value, abs=1e-5)


def test_no_crossing_between_the_means_gives_no_gate():
    assert mixture_crossing(Mixture((0.0, 0.1), (1.0, 1.0), (0.99, 0.01))) is None  # one density lies above the other
    assert mixture_crossing(Mixture((0.0, 0.0), (1.0, 1.0), (0.5, 0.5))) is None
    assert mixture_crossing(Mixture((0.0, 1.0), (1.0, 1.0), (0.5, 0.5))) == pytest.approx(0.5)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_fitted_mixture_is_scikit_learns(seed):
    values = drawn(seed=seed)
    mixture = fit_mixture(values)
    theirs = GaussianMixture(2, random_state=0, tol=1e-6, max_iter=500).fit(values.numpy()[:, None])
    order = theirs.means_[:, 0].argsort()
    assert mixture.means == pytest.approx(theirs.means_[order, 0], abs=0.01)
    assert mixture.deviations == pytest.approx(theirs.covariances_[order, 0, 0] ** 0.5, abs=0.01)
    assert mixture.weights == pytest.approx(theirs.weights_[order], abs=0.01)


def test_the_gate_parts_small_losses_from_large_ones():
    gate = fit_loss_gate(drawn().exp())
    assert math.log(gate) == pytest.approx(-0.675, abs=0.1)
    assert fit_loss_gate(torch.full((50,), 2.0)) is None
    assert fit_loss_gate(torch.cat([torch.zeros(30), torch.full((20,), 4.0)])) < 4  # a loss of 0 has no logarithm


def test_losses_that_no_mixture_fits_are_refused():
    for losses in (torch.tensor([1.0]), torch.tensor([1.0, math.nan, 2.0])):
        with pytest.raises(ValueError, match="at least 2 finite values"):
            fit_loss_gate(losses)


def test_label_correction_uses_the_clean_views_class_where_it_is_sure():
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    clean = torch.tensor([[0.0, 2.0], [0.1, 0.1], [3.0, 0.0]])
    classes, sure = predicted_classes(clean, weight)
    assert classes[[0, 2]].tolist() == [1, 0] and sure.tolist() == [True, False, True]
    expected = (clean @ weight.T / 0.1).exp()
    assert ((expected / expected.sum(1, keepdim=True)).amax(1) > 0.5).tolist() == sure.tolist()

    logits = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 2.0], [2.0, 0.0, 1.0]], requires_grad=True)
    labels = torch.tensor([2, 0, 0])
    losses, corrected = (cross_entropy(logits, target, reduction="none") for target in (labels, classes))
    loss = corrected_loss(losses, corrected, kept=losses <= 1.0, sure=sure)
    # Clip 0 is corrected, clip 1 is neither kept nor sure, clip 2 is kept; the mean is over all three.
    assert loss.item() == pytest.approx((corrected[0] + losses[2]).item() / 3)
    loss.backward()
    assert (logits.grad[1] == 0).all() and (logits.grad[[0, 2]] != 0).all()
