"""Batched transforms, each against its definition; and what all promise: per-clip draws, no waiting, no harm."""

import math
from functools import partial

import numpy as np
import pytest
import scipy.signal
import torch
import yaml
from helpers import REPOSITORY

from ssl_audio.augmentations import batch, clip
from ssl_audio.augmentations.batch.base import fast_length
from ssl_audio.augmentations.batch.filters import butterworth
from ssl_audio.config import build
from ssl_audio.errors import InputError

RATE = 16000
PLAIN = [
    getattr(batch, name)
    for name in batch.__all__
    if name not in ("BatchTransform", "Compose", "OneOf", "RandomSubset", "BackgroundNoise", "ImpulseResponse")
]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(rows: int = 1, samples: int = RATE, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(rows, samples, generator=generator(seed))


def impulse(samples: int = RATE, at: int = 0) -> torch.Tensor:
    clips = torch.zeros(1, samples)
    clips[0, at] = 1.0
    return clips


def gain_db(transform, frequency: float, rate: int = RATE) -> float:
    """The level that a sine in the middle of a clip comes out with."""
    time = torch.arange(2 * rate) / rate
    sine = 0.5 * torch.sin(2 * math.pi * frequency * time)[None] * torch.hann_window(2 * rate)
    return 20 * math.log10(transform(sine, rate, generator()).norm() / sine.norm())


# --- what all promise


@pytest.mark.parametrize("kind", PLAIN)
def test_same_seed_same_result_and_the_input_stays(kind):
    clips = noise(3, 9000)
    before = clips.clone()
    transform = kind(p=1.0)
    first, again = transform(clips, RATE, generator(1)), transform(clips, RATE, generator(1))
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    torch.testing.assert_close(clips, before, rtol=0, atol=0)
    assert first.shape == clips.shape and first.dtype == torch.float32


@pytest.mark.parametrize("kind", PLAIN)
def test_odd_clips_come_through_unharmed(kind):
    transform = kind(p=1.0)
    for clips in (
        torch.zeros(2, 8000),
        torch.ones(1, 1),
        noise(2, 7),
        noise(2, 333),
        noise(0, 50),
        0.5 * torch.ones(2, 999),
    ):
        result = transform(clips, RATE, generator())
        assert result.shape == clips.shape and result.isfinite().all()
        assert result.abs().max() < 3 if result.numel() else True


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e25])
def test_a_clip_that_is_no_sound_does_not_reach_the_others(kind, bad):
    clips = noise(4)
    broken = clips.clone()
    broken[1, 5000], broken[2] = bad, bad
    transform = kind(p=1.0)
    expected, got = (transform(given, RATE, generator()) for given in (clips, broken))
    assert torch.equal(got[[0, 3]], expected[[0, 3]])
    assert got.shape == clips.shape


@pytest.mark.parametrize("kind", PLAIN)
def test_nothing_waits_for_the_device(kind):
    """A meta tensor has no values: anything that asked for one (.item(), nonzero) would raise."""
    for p in (0.5, 1.0):
        result = kind(p=p)(torch.empty(4, 20000, device="meta"), RATE, None)
        assert result.is_meta and result.shape == (4, 20000)


@pytest.mark.parametrize("kind", PLAIN)
def test_each_clip_is_drawn_on_its_own(kind):
    voiced = kind in (batch.PitchShift, batch.FormantShift)
    clips = (voice(180.0, 0.6) if voiced else noise(1, 9000)).repeat(60, 1)
    changed = (kind(p=0.5)(clips, RATE, generator()) != clips).any(1).float().mean().item()
    assert 0.25 < changed < 0.75
    if kind is not batch.Polarity:
        results = kind(p=1.0)(clips[:20], RATE, generator())
        assert len({tuple(row.tolist()) for row in results}) > 2  # parameters differ from clip to clip


def test_in_mixed_precision_the_result_is_float32():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = batch.PitchShiftPolyphonic(p=1.0)(noise(), RATE, generator())
    torch.testing.assert_close(inside, batch.PitchShiftPolyphonic(p=1.0)(noise(), RATE, generator()), rtol=0, atol=0)


def test_only_the_chosen_clips_change():
    clips = noise(64, 400)
    chosen = torch.rand(64, generator=generator()) < 0.5
    expected = torch.where(chosen[:, None], -clips, clips)
    torch.testing.assert_close(batch.Polarity().where(chosen, clips.clone(), RATE, None), expected)
    torch.testing.assert_close(batch.Polarity().where(chosen & ~chosen, clips.clone(), RATE, None), clips)


# --- chains


def test_compose_one_of_and_subset():
    ones = torch.ones(2000, 2)
    chain = batch.Compose([batch.Gain(-20, -20, p=1.0), batch.Polarity(p=0.0), batch.Gain(-20, -20, p=1.0)])
    torch.testing.assert_close(chain(ones, RATE, generator()), 0.01 * ones)

    either = batch.OneOf([batch.Gain(-20, -20), batch.Gain(-40, -40)])(ones, RATE, generator())[:, 0]
    assert set(either.mul(1000).round().int().tolist()) == {100, 10}
    assert 0.45 < (either > 0.05).float().mean() < 0.55

    subset = batch.RandomSubset([batch.Gain(-20.0 * k, -20.0 * k) for k in (1, 2, 4)], minimum=1, maximum=2)
    decibels = (-20 * subset(ones, RATE, generator())[:, 0].log10()).round().int()
    counts = {int(value): int((decibels == value).sum()) for value in decibels.unique()}
    assert set(counts) == {20, 40, 80, 60, 100, 120}  # one or two distinct ones, never one twice
    assert all(abs(count / 2000 - 1 / 6) < 0.04 for count in counts.values())


@pytest.mark.parametrize("whole", [False, True], ids=["in pieces", "one is called with all its clips"])
def test_a_subset_comes_in_random_order_and_what_is_last_is_last(whole):
    subset = batch.RandomSubset(
        [batch.Gain(-6.0206, -6.0206), batch.Gain(20, 20, clamp=True)], minimum=2, last=[batch.Polarity(p=1.0)]
    )
    subset.transforms[1].whole = whole
    result = subset(torch.ones(500, 1), RATE, generator()).squeeze(1)
    assert set(result.mul(100).round().int().tolist()) == {-50, -100}  # clamped before or after it was halved
    assert 0.4 < (result < -0.75).float().mean() < 0.6


# --- level


def test_noise_has_the_level_that_was_asked_for():
    silent = torch.zeros(300, 2000)
    for kind in (batch.GaussianNoise, clip.GaussianNoise):
        if kind is batch.GaussianNoise:
            levels = kind(0.001, 0.05, p=1.0)(silent, RATE, generator()).std(1).numpy()
        else:
            rng = np.random.default_rng(0)
            levels = np.array([kind(0.001, 0.05, p=1.0)(row.numpy(), RATE, rng).std() for row in silent])
        assert levels.min() < 0.003 and 0.048 < levels.max() < 0.053
        assert levels.mean() == pytest.approx(0.0255, rel=0.08)
    clips = 0.3 * torch.sin(torch.arange(20000.0))[None].repeat(100, 1)
    relative = batch.RelativeNoise(1e-3, 1e-2, p=1.0)(clips, RATE, generator()) - clips
    assert (relative.std(1) / clips.std(1)).min() > 0.9e-3 and (relative.std(1) / clips.std(1)).max() < 1.05e-2
    uniform = batch.UniformNoise(0.1, 0.1, p=1.0)(torch.zeros(1, 50000), RATE, generator())
    assert uniform.min() >= 0 and 0.099 < uniform.max() <= 0.1 and uniform.mean() == pytest.approx(0.05, rel=0.02)


def test_gain_is_uniform_in_decibels_and_clamps():
    decibels = 20 * batch.Gain(-6, 0, p=1.0)(torch.ones(2000, 1), RATE, generator()).log10()
    assert decibels.min() >= -6.001 and decibels.max() <= 0.001 and decibels.mean() == pytest.approx(-3, abs=0.15)
    assert batch.Gain(6, 6, p=1.0, clamp=True)(torch.tensor([[0.9, -0.9]]), RATE).tolist() == [[1.0, -1.0]]


def test_tanh_distortion_equals_audiomentations():
    clips = noise(1, 20000) * torch.linspace(0.1, 1, 20000)
    ours = batch.TanhDistortion(0.15, 0.15, p=1.0)(clips, RATE, generator())[0]
    theirs = clip.TanhDistortion(0.15, 0.15, p=1.0)(clips[0].numpy(), RATE, np.random.default_rng(0))
    assert np.corrcoef(ours, theirs)[0, 1] > 0.9999
    assert ours.std() == pytest.approx(theirs.std(), rel=1e-3)


def test_clipping_cuts_at_a_share_of_the_extremes():
    ramp = torch.linspace(-1, 0.5, 100)[None]
    result = batch.Clipping(0.4, 0.4, p=1.0)(ramp, RATE)
    torch.testing.assert_close(result, ramp.clamp(-0.4, 0.2))


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5, 12, 24, 60])
def test_butterworth_of_any_order_is_its_definition(order):
    frequency = torch.linspace(0, 0.5, 2001)
    for high in (False, True):
        ours = butterworth(frequency, torch.tensor([[0.1]]), order, high)[0].double()
        assert ours.isfinite().all()
        ratio = (0.1 / frequency.double().clamp_min(1e-9)) if high else frequency.double() / 0.1
        torch.testing.assert_close(ours, 1 / (1 + ratio ** (2 * order)).sqrt(), rtol=1e-4, atol=1.1e-4)


def test_clmrs_filters_are_as_steep_as_clmrs():
    """The original's windowed sinc has -47 dB at 0.8 of the high-pass cut-off and -44 dB at 1.25 of the low-pass."""
    config = yaml.safe_load((REPOSITORY / "train_configs/augmentation/clmr.yaml").read_text())
    chain = config["model"]["init_args"]["augmentation"]["init_args"]["transforms"]
    (one_of,) = (build(t) for t in chain if t["class_path"].endswith(".OneOf"))
    for transform, edge in zip(one_of.transforms, (0.8, 1.25), strict=True):
        for cutoff in (transform.min_cutoff, transform.max_cutoff):
            steep = type(transform)(cutoff, cutoff, transform.order, p=1.0)
            assert gain_db(steep, edge * cutoff, 22050) < -40
            assert abs(gain_db(steep, cutoff * edge**-1, 22050)) < 0.1


# --- time


def test_shift_rolls_over():
    ramp = torch.arange(1000.0)[None]
    shift = partial(batch.Shift, p=1.0, fade_seconds=0)
    torch.testing.assert_close(shift(0.25, 0.25)(ramp, RATE), ramp.roll(250, 1))
    torch.testing.assert_close(shift(-0.05, -0.05)(ramp, RATE), ramp.roll(-50, 1))


@pytest.mark.parametrize("fraction", [0.2, -0.05, 0.004, 0.0, -0.999])
def test_the_fade_of_shift_is_audiomentations(fraction):
    audiomentations = pytest.importorskip("audiomentations")
    ones = np.linspace(0.5, 1, 3 * RATE, dtype=np.float32)
    theirs = audiomentations.Shift(fraction, fraction, rollover=True, fade_duration=0.01, p=1.0)(ones, RATE)
    ours = batch.Shift(fraction, fraction, p=1.0)(torch.from_numpy(ones)[None], RATE)[0]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-6)


def test_the_published_shift_is_the_one_shipped():
    for chain in ("clip", "device"):
        config = yaml.safe_load((REPOSITORY / f"train_configs/augmentation/{chain}.yaml").read_text())
        section = config["data" if chain == "clip" else "model"]["init_args"]["augmentation"]["init_args"]
        (shift,) = (t["init_args"] for t in section["transforms"] if t["class_path"].endswith(".Shift"))
        assert shift == {"min_fraction": -0.05, "max_fraction": 0.2, "fade_seconds": 0.01, "p": 0.0}


@pytest.mark.parametrize(
    ("transform", "low", "high"),
    [
        (batch.TimeMask(0, 0.125, p=1.0), 0, 500),
        (batch.MeanMask(0.01, 0.1, p=1.0), 40, 400),
        (batch.TimeDropout(0, 0.1, p=1.0), 0, 1600),
    ],
)
def test_masks_are_one_span_within_their_limits(transform, low, high):
    clips = 1 + torch.rand(500, 4000, generator=generator())
    result = transform(clips, RATE, generator())
    hidden = result != clips
    lengths = hidden.sum(1)
    assert (
        lengths.min() >= low
        and lengths.max() <= high
        and lengths.float().mean() == pytest.approx((low + high) / 2, rel=0.1)
    )
    assert (hidden.diff(dim=1).sum(1) <= 2).all()  # one span
    expected = clips.mean(1, keepdim=True) if isinstance(transform, batch.MeanMask) else torch.zeros(500, 1)
    torch.testing.assert_close(result, torch.where(hidden, expected, clips))
    starts = hidden.float().argmax(1)[lengths > 0]
    assert starts.min() < 200 and (starts + lengths[lengths > 0]).max() > 3800


def test_delay_is_at_the_right_sample():
    result = batch.Delay(p=1.0)(impulse().repeat(300, 1), RATE, generator())
    torch.testing.assert_close(result[:, 0], torch.full((300,), 0.5))
    echoes = (result[:, 1:] != 0).nonzero()[:, 1] + 1
    assert set(echoes.tolist()) == {round(RATE * t) for t in (0.2, 0.25, 0.3, 0.35, 0.4, 0.45)}
    assert len(echoes) == 300 and (result[:, 1:].sum(1) == 0.25).all()


def test_speed_moves_pitch_and_tempo():
    sine = torch.sin(2 * math.pi * 1000 * torch.arange(RATE) / RATE)[None]
    slow = batch.Speed([0.5], p=1.0)(sine, RATE, generator())
    assert slow[0, 100:-100].std() > 0.65  # no silence where the clip became longer
    assert peak_frequency(slow[0]) == pytest.approx(500, abs=2)
    fast = batch.Speed([2.0], p=1.0)(sine, RATE, generator())[0]
    assert peak_frequency(fast) == pytest.approx(2000, abs=4)
    assert fast[:3900].abs().max() < 0.02 and fast[-3900:].abs().max() < 0.02 and fast[4200:-4200].std() > 0.65


# --- filters


@pytest.mark.parametrize("cutoff", [250.0, 1000.0, 3000.0])
def test_cut_offs_are_at_minus_three_decibels(cutoff):
    high, low = batch.HighPass(cutoff, cutoff, p=1.0), batch.LowPass(cutoff, cutoff, p=1.0)
    for transform, stopped, passed in ((high, cutoff / 4, cutoff * 2), (low, cutoff * 2, cutoff / 4)):
        assert gain_db(transform, cutoff) == pytest.approx(-3.01, abs=0.1)
        assert gain_db(transform, passed) == pytest.approx(0, abs=0.1)
        octaves = abs(math.log2(stopped / cutoff))
        assert gain_db(transform, stopped) == pytest.approx(-24 * octaves, abs=0.5)  # order 4


def test_band_pass_keeps_its_band():
    transform = batch.BandPass(1000, 1000, 1.0, 1.0, order=4, p=1.0)  # 500 to 1500 Hz
    assert gain_db(transform, 500) == pytest.approx(-3.0, abs=0.1)
    assert gain_db(transform, 1500) == pytest.approx(-3.0, abs=0.1)
    assert gain_db(transform, 866) == pytest.approx(0, abs=0.2)
    assert gain_db(transform, 125) < -40 and gain_db(transform, 6000) < -40


def test_filters_do_not_come_round_to_the_other_end():
    result = batch.HighPass(200, 200, p=1.0)(impulse(4000, at=3990), RATE, generator())
    assert result[0, :2000].abs().max() < 1e-4


@pytest.mark.parametrize(("kind", "band"), [("low_shelf", 0), ("peak", 3), ("high_shelf", 6)])
def test_equalizer_bands_are_the_cookbook_s(kind, band):
    """Against audiomentations' coefficients and scipy's frequency response."""
    import audiomentations

    from ssl_audio.augmentations.batch.filters import equalizer_power

    name = {"low_shelf": "LowShelfFilter", "peak": "PeakingFilter", "high_shelf": "HighShelfFilter"}[kind]
    center, decibels, q = {0: 80.0, 3: 700.0, 6: 5000.0}[band], 5.0, 0.7
    make = getattr(audiomentations, name)()._get_biquad_coefficients_from_input_parameters
    frequencies, response = scipy.signal.sosfreqz(make(center, decibels, q, RATE), worN=2000, fs=RATE)
    frequencies, response = frequencies[1:], response[1:]
    analog = torch.tan(math.pi * torch.from_numpy(frequencies) / RATE) / math.tan(math.pi * center / RATE)
    one = torch.ones(1, 1, dtype=torch.float64)
    power = equalizer_power(analog[None], one * 10 ** (decibels / 40), one * q, kind)
    np.testing.assert_allclose(power.sqrt()[0], np.abs(response), rtol=1e-5)


def test_seven_bands_stay_within_their_gains():
    spectrum = torch.fft.rfft(batch.SevenBandEQ(-2, 1, p=1.0)(impulse(at=8000).repeat(50, 1), RATE, generator())).abs()
    decibels = 20 * spectrum.log10()
    assert decibels.max() < 2.5 and decibels.min() > -7 and decibels.std() > 0.3  # neighbours overlap and add up
    flat = batch.SevenBandEQ(0, 0, p=1.0)(noise(), RATE, generator())
    torch.testing.assert_close(flat, noise(), rtol=0, atol=1e-6)


# --- time stretch and polyphonic pitch


def voice(pitch: float, seconds: float = 1.0) -> torch.Tensor:
    """(1, samples): a harmonic tone, its overtones falling."""
    time = torch.arange(int(seconds * RATE)) / RATE
    return 0.1 * sum(torch.sin(2 * math.pi * k * pitch * time) / k for k in range(1, 6))[None]


def peak_frequency(clip: torch.Tensor, rate: int = RATE) -> float:
    spectrum = torch.fft.rfft(clip * torch.hann_window(len(clip)), n=8 * len(clip)).abs()
    return spectrum.argmax().item() * rate / (8 * len(clip))


@pytest.mark.parametrize("rate", [0.8, 1.0, 1.2])
def test_time_stretch_keeps_the_pitch_and_moves_the_time(rate):
    clips = voice(220.0) * (torch.arange(RATE) < RATE // 2)
    result = batch.TimeStretch(rate, rate, p=1.0)(clips, RATE, generator())[0]
    end = int((result.abs() > 0.02).nonzero().max())
    assert end / (RATE // 2) == pytest.approx(1 / rate, rel=0.06)
    assert peak_frequency(result[: end - 500]) == pytest.approx(220, rel=0.01)


@pytest.mark.parametrize("cents", [-700, -250, 400, 700])
def test_polyphonic_pitch_shift_moves_every_note_of_a_chord(cents):
    time = torch.arange(2 * RATE) / RATE
    notes = (220.0, 277.2, 415.3)
    chord = 0.2 * sum(torch.sin(2 * math.pi * note * time) for note in notes)[None]
    result = batch.PitchShiftPolyphonic(cents, cents, p=1.0)(chord, RATE, generator())[0]
    spectrum = torch.fft.rfft(result * torch.hann_window(len(result)), n=8 * len(result)).abs()
    spectrum = spectrum / spectrum.max()
    for note in notes:
        expected = note * 2 ** (cents / 1200)
        around = slice(int(expected * 0.97 * 16), int(expected * 1.03 * 16))
        assert spectrum[around].max() > 0.4
        found = (around.start + spectrum[around].argmax().item()) / 16
        assert 1200 * abs(math.log2(found / expected)) < 6
    assert result.std() == pytest.approx(chord.std().item(), rel=0.05)


def test_polyphonic_pitch_shift_up_does_not_alias():
    sine = 0.5 * torch.sin(2 * math.pi * 6500 * torch.arange(RATE) / RATE)[None]
    assert batch.PitchShiftPolyphonic(700, 700, p=1.0)(sine, RATE, generator()).std() < 0.02


# --- small things


def test_fast_lengths():
    for n in (1, 2, 3, 7, 97, 1000, 59049 + 22050, 176000):
        size = fast_length(n)
        assert size >= n and size % 2 == 0 and size <= max(2, 1.13 * n + 2)
        for prime in (2, 3, 5, 7):
            while size % prime == 0:
                size //= prime
        assert size == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: batch.Gain(p=-0.1),
        lambda: batch.TimeMask(0.5, 0.2),
        lambda: batch.TimeMask(0.5, 1.2),
        lambda: batch.HighPass(0, 100),
        lambda: batch.BandPass(max_bandwidth=2.5),
        lambda: batch.RandomSubset([batch.Polarity()], minimum=2),
        lambda: batch.OneOf([]),
        lambda: batch.Speed([0.0]),
        lambda: batch.Delay(step_milliseconds=0),
    ],
)
def test_impossible_arguments_are_refused(make):
    with pytest.raises(InputError):
        make()
