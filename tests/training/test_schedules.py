"""Values over a training, as the papers' tables have them."""

import pytest
import torch

from ssl_audio.errors import InputError
from ssl_audio.schedules import linear, margin_ramp, warmup_cosine


def test_dinos_learning_rate():
    """.2 at batch 256, so .1 at 128; least 5e-5 scaled alike; 150 epochs of one step, 20 of them warm-up."""
    rates = [warmup_cosine(step, 150, peak=0.1, warmup=20, final=2.5e-5) for step in (0, 10, 19, 20, 85, 149)]
    assert rates == pytest.approx([0, 0.0526316, 0.1, 0.1, 0.0500125, 3.9596e-5], rel=1e-5)


def test_the_momentum_of_dinos_teacher():
    momenta = [warmup_cosine(step, 100, peak=0.996, final=1.0) for step in (0, 25, 50, 75, 99)]
    assert momenta == pytest.approx([0.996, 0.996586, 0.998, 0.999414, 0.999999], abs=5e-7)


def test_the_temperature_of_dinos_teacher():
    temperatures = [linear(epoch, 30, 0.04, 0.07) for epoch in (0, 1, 15, 29, 30, 100)]
    assert temperatures == pytest.approx([0.04, 0.041034, 0.055517, 0.07, 0.07, 0.07], abs=5e-7)


def test_linear_is_torchs_linspace_with_both_ends():
    table = torch.linspace(0.3, 0.9, 7, dtype=torch.float64)
    assert [linear(step, 7, 0.3, 0.9) for step in range(7)] == pytest.approx(table.tolist())
    assert linear(0, 1, 0.3, 0.9) == linear(0, 0, 0.3, 0.9) == 0.9


def test_warmup_may_start_above_zero_and_the_end_stays():
    assert [warmup_cosine(step, 10, 1.0, 3, start=0.5) for step in (0, 1, 2)] == pytest.approx([0.5, 0.75, 1.0])
    assert warmup_cosine(10, 10, 1.0, final=0.2) == warmup_cosine(99, 10, 1.0, final=0.2) == pytest.approx(0.2)


def test_the_ramp_of_a_margin():
    margins = [margin_ramp(epoch, 20, 40) for epoch in (0, 20, 25, 30, 35, 40, 41)]
    assert margins == pytest.approx([0, 0, 0.164434, 0.193675, 0.198875, 0.1998, 0.2], abs=1e-6)
    assert margin_ramp(5, 0, 10, start=0.2, final=0.5) == pytest.approx(0.2 + 0.3 * (1 - 0.001**0.5))


def test_impossible_schedules_are_named():
    with pytest.raises(InputError, match="warm-up of 10 steps must be shorter than the training, which has 10 steps"):
        warmup_cosine(0, 10, 1.0, warmup=10)
    with pytest.raises(InputError, match="must begin before it ends"):
        margin_ramp(0, 5, 5)
