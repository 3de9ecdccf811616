"""The global contrastive loss against its equation, written out item by item."""

import numpy as np
import pytest
import torch

from ssl_audio.losses import sogclr_loss


def ratios(z1: torch.Tensor, z2: torch.Tensor, i: int, temperature: float) -> list[torch.Tensor]:
    """exp((s - s_i) / T) of both views of item i with all views of other items."""

    def cosine(a, b):
        return torch.dot(a, b) / a.norm() / b.norm()

    own = cosine(z1[i], z2[i])
    return [
        ((cosine(view[i], other[j]) - own) / temperature).exp()
        for view in (z1, z2)
        for other in (z1, z2)
        for j in range(len(z1))
        if j != i
    ]


def views():
    rng = np.random.default_rng(0)
    z1 = rng.normal(size=(4, 3))
    return [torch.tensor(x, requires_grad=True) for x in (z1, z1 + 0.5 * rng.normal(size=(4, 3)))]


def test_averages_move_and_the_first_value_is_taken_as_it_is() -> None:
    z1, z2 = views()
    before = torch.tensor([0.0, 0.3, 2.0, 0.0], dtype=torch.float64)
    loss, after = sogclr_loss(z1, z2, before, 0.5, 0.7)
    found = [torch.stack(ratios(z1, z2, i, 0.5)).mean().item() for i in range(4)]
    expected = [found[0], 0.3 * 0.3 + 0.7 * found[1], 0.3 * 2.0 + 0.7 * found[2], found[3]]
    assert after.tolist() == pytest.approx(expected) and not after.requires_grad
    assert loss.item() == pytest.approx(0.5 * np.log(expected).mean())


def test_the_gradient_is_that_of_the_logarithm_divided_by_the_average() -> None:
    z1, z2 = views()
    before = torch.tensor([0.0, 0.3, 2.0, 0.7], dtype=torch.float64)
    loss, after = sogclr_loss(z1, z2, before, 0.5, 0.7)
    loss.backward()
    y1, y2 = views()
    terms = [0.5 * torch.stack(ratios(y1, y2, i, 0.5)).mean() / after[i] for i in range(4)]
    torch.stack(terms).mean().backward()
    torch.testing.assert_close(z1.grad, y1.grad)
    torch.testing.assert_close(z2.grad, y2.grad)


def test_what_does_not_fit_is_refused() -> None:
    z = torch.randn(4, 3)
    with pytest.raises(ValueError, match="one number for each of 4 items"):
        sogclr_loss(z, z, torch.zeros(3))
    with pytest.raises(ValueError, match="gamma"):
        sogclr_loss(z, z, torch.zeros(4), gamma=0.0)
    with pytest.raises(ValueError, match="at least 2"):
        sogclr_loss(z[:1], z[:1], torch.zeros(1))
