"""BYOL-A's augmentations against their definitions."""

import numpy as np
import pytest
import torch
from scipy.interpolate import RectBivariateSpline

from ssl_audio.augmentations.byol_a import Mixup, PostNorm, RandomLinearFader, RandomResizeCrop
from ssl_audio.errors import InputError


@pytest.fixture
def features():
    torch.manual_seed(3)
    ramp = torch.linspace(0, 2, 16)[:, None] + torch.sin(torch.linspace(0, 6, 40))
    return ramp + torch.arange(4.0)[:, None, None] + 0.01 * torch.randn(4, 16, 40)


def test_mixup_mixes_powers_with_clips_of_earlier_batches(features):
    mixup, now = Mixup(0.2, memory=4), features + 0.5
    assert torch.isfinite(mixup(features)).all()
    mixed = mixup(now)
    shares = []
    for clip, result in zip(now.exp(), mixed.exp(), strict=True):
        fits = []
        for other in features.exp():
            share = ((result - clip) * (other - clip)).sum() / (other - clip).square().sum()
            fits.append(((clip + share * (other - clip) - result).abs().max().item(), share.item()))
        assert min(fits)[0] < 1e-3
        shares.append(min(fits)[1])
    assert min(shares) >= 0 and max(shares) <= 0.2
    torch.testing.assert_close(mixup.kept, now)  # the last four, not mixed


def test_a_resumed_mixup_goes_on_as_it_would_have(features):
    one, two = Mixup(), Mixup()
    one(features)
    two.load_state_dict(one.state_dict())
    results = []
    for mixup in (one, two):
        torch.manual_seed(0)
        results.append(mixup(features + 1))
    torch.testing.assert_close(*results)


def test_a_crop_is_a_part_of_the_clip_stretched(features):
    crop = RandomResizeCrop(area=(1.0, 1.0), bands=(0.5, 0.5), frames=(1.0, 1.0))
    torch.manual_seed(1)
    found = crop(features)
    torch.manual_seed(1)
    u = torch.rand(2, 4, 1)[1, :, 0]
    for clip, result, place in zip(features.double().numpy(), found.numpy(), u.tolist(), strict=True):
        rows = place * 8 + np.linspace(0, 7, 16)
        expected = RectBivariateSpline(np.arange(16), np.arange(40), clip, s=0)(rows, np.arange(40))
        inside = (rows >= 2) & (rows <= 13)  # cubic kernels reach past the edges
        assert inside.any() and np.abs(result - expected)[inside].max() < 0.05
    whole = RandomResizeCrop((1.0, 1.0), (1.0, 1.0), (1.0, 1.0))(features)
    torch.testing.assert_close(whole, features, atol=1e-4, rtol=0)
    assert RandomResizeCrop()(features).shape == features.shape


def test_the_fader_adds_a_line(features):
    line = RandomLinearFader(2.0)(features) - features
    assert torch.allclose(line, line[:, :1].expand_as(line), atol=1e-5) and torch.allclose(
        line.diff(n=2), torch.zeros(4, 16, 38), atol=1e-5
    )
    assert line.abs().max() <= 2 and line[:, 0, 0].std() > 0


def test_the_statistics_of_a_batch_stay(features):
    changed = PostNorm([Mixup(), RandomResizeCrop(), RandomLinearFader(3.0)])(features)
    assert not torch.allclose(changed, features)
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(statistic(changed), statistic(features))


def test_arguments_out_of_range_are_one_line():
    for kind, arguments in ((Mixup, {"ratio": 2}), (Mixup, {"memory": 0}), (RandomResizeCrop, {"area": (0.5, 1)})):
        with pytest.raises(InputError):
            kind(**arguments)
