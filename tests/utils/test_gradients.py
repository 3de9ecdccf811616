"""Clipping tensor by tensor, and freezing without the optimiser's decay."""

import pytest
import torch
from torch import nn

from ssl_audio.utils.gradients import clip_each, drop_gradients


def with_gradient(*values):
    parameter = nn.Parameter(torch.zeros(len(values)))
    parameter.grad = torch.tensor(values)
    return parameter


def test_each_tensor_is_clipped_by_its_own_norm():
    large, small, none = with_gradient(3.0, 4.0), with_gradient(1.0, 0.0), nn.Parameter(torch.zeros(2))
    clip_each([large, none, small], 3.0)
    assert large.grad.tolist() == pytest.approx([1.8, 2.4], abs=1e-5)
    assert small.grad.tolist() == [1.0, 0.0] and none.grad is None
    clip_each([none], 3.0)


def test_the_global_norm_would_clip_more():
    large, small = with_gradient(3.0, 4.0), with_gradient(1.0, 0.0)
    nn.utils.clip_grad_norm_([large, small], 3.0)
    assert [*large.grad, *small.grad] == pytest.approx([1.765, 2.353, 0.588, 0], abs=1e-3)


def test_a_dropped_gradient_freezes_where_a_zero_does_not():
    weights = {}
    for how in ("dropped", "zero"):
        parameter = nn.Parameter(torch.ones(1))
        optimizer = torch.optim.SGD([parameter], lr=0.1, weight_decay=0.5, momentum=0.9)
        parameter.grad = torch.zeros(1)
        if how == "dropped":
            drop_gradients([parameter])
        optimizer.step()
        weights[how] = parameter.item()
    assert weights == pytest.approx({"dropped": 1.0, "zero": 0.95})
