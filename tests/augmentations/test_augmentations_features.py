import pytest
import torch

from ssl_audio.augmentations.features import BandMask, Compose, FrameMask, RandomErasing, SpectralTilt
from ssl_audio.errors import InputError


@pytest.fixture
def features():
    return torch.randn(400, 24, 30, generator=torch.Generator().manual_seed(0))


def test_a_tilt_is_constant_in_time_smooth_over_bands_and_its_own_in_every_clip(features):
    torch.manual_seed(0)
    added = SpectralTilt(std=0.5, order=3)(features) - features
    assert torch.allclose(added, added[:, :, :1].expand_as(added), atol=1e-5)
    curves = added[:, :, 0]
    assert curves.mean(1).abs().max() < 0.05  # cosines have no mean: the level stays
    # variance at a band: std^2 sum_k cos^2 / k
    k, place = torch.arange(1, 4), (torch.arange(24) + 0.5) / 24
    expected = 0.5 * ((torch.cos(torch.pi * k[:, None] * place) ** 2) / k[:, None]).sum(0).sqrt()
    assert torch.allclose(curves.std(0), expected, rtol=0.2)


@pytest.mark.parametrize("mask, dim, longest", [(BandMask(8), 1, 8), (FrameMask(0.2), 2, 6)])
def test_masks_replace_one_run_by_the_mean(features, mask, dim, longest):
    torch.manual_seed(0)
    out = mask(features)
    changed = (out != features).any(3 - dim)
    widths = changed.sum(1)
    assert 1 <= widths.max() <= longest + 1 and abs(widths.float().mean() - longest / 2) < 0.6
    edges = changed.int().diff(dim=1).abs().sum(1) + changed[:, 0].int() + changed[:, -1].int()
    assert set(edges.tolist()) <= {0, 2}  # one run
    clip = int(widths.argmax())
    inside = out[clip].select(dim - 1, int(changed[clip].int().argmax()))
    assert torch.allclose(inside, features[clip].mean().expand_as(inside))


def test_erasing_sets_a_rectangle_of_the_stated_area_in_its_share_of_clips(features):
    torch.manual_seed(0)
    erased = RandomErasing(p=0.25, value=-7.0)(features) == -7.0
    hit = erased.any((1, 2))
    assert 0.17 < hit.float().mean() < 0.33
    area = erased[hit].float().mean((1, 2))
    assert area.min() > 0.005 and area.max() < 0.4
    rows, columns = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(rows * columns, erased.sum((1, 2)))  # a full rectangle


def test_the_input_is_left_alone_and_the_seed_decides(features):
    chain = Compose([SpectralTilt(), BandMask(), FrameMask(), RandomErasing()])
    before = features.clone()
    torch.manual_seed(3)
    first = chain(features)
    torch.manual_seed(3)
    assert torch.equal(first, chain(features)) and torch.equal(before, features)


@pytest.mark.parametrize("make", [lambda: SpectralTilt(-1), lambda: FrameMask(2), lambda: RandomErasing(p=2)])
def test_impossible_settings_are_refused(make):
    with pytest.raises(InputError):
        make()
