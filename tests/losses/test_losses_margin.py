"""Margins on cosines: the specified numbers, and the formulas in angles."""

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from ssl_audio.losses import aam_cosines, am_cosines, inter_top_k_cosines

COSINES = torch.tensor([[0.5, 0.3, -0.1]])
OWN = torch.tensor([0])


def loss(cosines, scale=30.0):
    return cross_entropy(scale * cosines, OWN).item()


def test_the_specified_losses():
    assert aam_cosines(COSINES, OWN, 0.2)[0, 0].item() == pytest.approx(0.317981, abs=1e-6)
    assert loss(aam_cosines(COSINES, OWN)) == pytest.approx(0.459380, abs=1e-5)
    assert loss(aam_cosines(COSINES, OWN), 32) == pytest.approx(0.446283, abs=1e-5)
    assert loss(am_cosines(COSINES, OWN)) == pytest.approx(0.693150, abs=1e-5)
    assert loss(COSINES) == pytest.approx(0.002476, abs=1e-5)
    sub_centres = torch.tensor([[[0.5, 0.1], [0.3, 0.45], [-0.1, -0.2]]]).amax(2)
    assert loss(aam_cosines(sub_centres, OWN)) == pytest.approx(3.979456, abs=1e-5)


@pytest.mark.parametrize(("continuous", "value"), [(False, -1.029734), (True, -1.009933)])
def test_beyond_the_limit_both_published_forms(continuous, value):
    cosines = torch.tensor([[-0.99, 0.0]])
    assert aam_cosines(cosines, OWN, 0.2, continuous)[0, 0].item() == pytest.approx(value, abs=1e-6)


def test_aam_widens_the_own_angle_and_the_continuous_form_has_no_jump():
    angles = torch.linspace(0.01, math.pi - 0.01, 500, dtype=torch.float64)
    cosines = torch.stack([angles.cos(), angles.cos()], 1)
    own = torch.zeros(500, dtype=torch.long)
    wider = aam_cosines(cosines, own, 0.2)
    inside = angles < math.pi - 0.2
    torch.testing.assert_close(wider[inside, 0], (angles[inside] + 0.2).cos())
    assert torch.equal(wider[:, 1], cosines[:, 1])
    assert (wider[:, 0].diff() < 0).all() and wider[:, 0].diff().abs().max() < 0.01
    jump = aam_cosines(cosines, own, 0.2, continuous=False)[:, 0].diff().abs().max()
    assert jump > 0.015


def test_inter_top_k_narrows_the_angles_of_the_nearest_others_only():
    cosines = torch.tensor([[0.9, 0.45, 0.2, -0.3]])
    raised = inter_top_k_cosines(cosines, OWN, k=1, penalty=0.06)
    assert raised[0, 1].item() == pytest.approx(0.502740, abs=1e-6)
    assert raised[0, [0, 2, 3]].tolist() == cosines[0, [0, 2, 3]].tolist()
    everything = inter_top_k_cosines(cosines, OWN, k=9, penalty=0.06)
    torch.testing.assert_close(everything[0, 1:], (cosines[0, 1:].acos() - 0.06).cos())
    assert everything[0, 0] == cosines[0, 0]


@pytest.mark.parametrize("change", [am_cosines, aam_cosines, inter_top_k_cosines])
def test_gradients_are_finite_where_a_vector_meets_its_class(change):
    for value in (1.0, -1.0, 1.0 + 1e-7):
        cosines = torch.tensor([[value, value, 0.0]], requires_grad=True)
        change(cosines, OWN).sum().backward()
        assert cosines.grad.isfinite().all()


def test_no_margin_changes_nothing():
    torch.testing.assert_close(aam_cosines(COSINES, OWN, 0.0), COSINES)
    assert torch.equal(am_cosines(COSINES, OWN, 0.0), COSINES)
    torch.testing.assert_close(inter_top_k_cosines(COSINES, OWN, 2, 0.0), COSINES)


@pytest.mark.parametrize("change", [am_cosines, aam_cosines, inter_top_k_cosines])
def test_shapes_that_do_not_fit_are_refused(change):
    with pytest.raises(ValueError, match=r"cosines \(batch, classes\) and labels \(batch,\)"):
        change(COSINES, torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="k must be at least 1"):
        inter_top_k_cosines(COSINES, OWN, 0)
