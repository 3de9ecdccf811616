"""The per-clip chain: its distributions, its reproducibility, and Praat's pitch shift measured by Praat."""

import random

import numpy as np
import pytest
import soundfile

from ssl_audio.augmentations import clip
from ssl_audio.augmentations.praat import change_gender
from ssl_audio.errors import InputError

SAMPLE_RATE = 16000
ALL = [
    clip.GaussianNoise,
    clip.TimeStretch,
    clip.FormantShift,
    clip.PitchShift,
    clip.Shift,
    clip.Gain,
    clip.SevenBandEQ,
    clip.TanhDistortion,
    clip.TimeMask,
]


def vowel(pitch: float = 200.0, seconds: float = 1.0, rate: int = SAMPLE_RATE) -> np.ndarray:
    """A sung vowel: impulses through three resonances, a little vibrato; Praat finds its pitch and formants."""
    time = np.arange(int(seconds * rate)) / rate
    phase = np.cumsum(pitch * (1 + 0.02 * np.sin(2 * np.pi * 5 * time))) / rate
    audio = np.diff(np.floor(phase), prepend=0.0)
    for frequency, bandwidth in ((600, 80), (1200, 100), (2600, 150)):
        radius = np.exp(-np.pi * bandwidth / rate)
        a1, a2 = -2 * radius * np.cos(2 * np.pi * frequency / rate), radius**2
        out = np.zeros_like(audio)
        for i in range(len(audio)):
            out[i] = audio[i] - a1 * out[i - 1] - a2 * out[i - 2]
        audio = out
    return (0.5 * audio / np.abs(audio).max()).astype(np.float32)


def median_pitch(audio, rate=SAMPLE_RATE) -> float:
    from parselmouth import Sound
    from parselmouth.praat import call

    pitch = call(Sound(np.asarray(audio, dtype=float), rate), "To Pitch", 0.01, 60, 900)
    return call(pitch, "Get quantile", 0, 0, 0.5, "Hertz")


@pytest.fixture(scope="module")
def voice():
    return vowel()


@pytest.mark.parametrize("kind", ALL)
def test_a_clip_depends_on_its_own_seed_only(kind, voice):
    transform = kind(p=1.0)
    before = voice.copy()
    first = transform(voice, SAMPLE_RATE, np.random.default_rng(3))
    transform(vowel(300), SAMPLE_RATE, np.random.default_rng(9))  # what another clip of the same worker draws
    random.random(), np.random.random()
    again = transform(voice, SAMPLE_RATE, np.random.default_rng(3))
    other = transform(voice, SAMPLE_RATE, np.random.default_rng(4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(voice, before)
    assert first.dtype == np.float32 and first.shape == voice.shape


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("samples", [0, 1, 7, 333, 16000])
def test_silent_short_and_noisy_clips_come_through(kind, samples):
    rng = np.random.default_rng(0)
    for audio in (np.zeros(samples), 0.1 * rng.standard_normal(samples), np.full(samples, 0.5)):
        result = kind(p=1.0)(audio.astype(np.float32), SAMPLE_RATE, rng)
        assert result.shape == (samples,) and np.isfinite(result).all()
        assert np.abs(result).max(initial=0) < 4


def test_other_code_keeps_its_random_numbers(voice):
    random.seed(1), np.random.seed(1)
    expected = random.random(), np.random.random()
    random.seed(1), np.random.seed(1)
    clip.GaussianNoise(p=1.0)(voice, SAMPLE_RATE, np.random.default_rng(0))
    assert (random.random(), np.random.random()) == expected


def test_each_transform_has_its_own_probability():
    audio, rng = np.ones(4, dtype=np.float32), np.random.default_rng(0)
    applied = sum(not np.array_equal(clip.Gain(-6, -1, p=0.3)(audio, SAMPLE_RATE, rng), audio) for _ in range(2000))
    assert 520 < applied < 680  # 600 +- 4 standard deviations
    chain = clip.Compose([clip.Gain(-20, -20, p=1.0), clip.Gain(-6, -6, p=0.0), clip.Gain(-20, -20, p=1.0)])
    np.testing.assert_allclose(chain(audio, SAMPLE_RATE, rng), 0.01, rtol=1e-5)


def test_ranges_are_the_ones_asked_for():
    rng = np.random.default_rng(0)
    ones = np.ones(4000, dtype=np.float32)
    noise = [np.std(clip.GaussianNoise(0.001, 0.05, p=1.0)(ones, SAMPLE_RATE, rng)) for _ in range(200)]
    assert 0.0009 < min(noise) < 0.004 and 0.046 < max(noise) < 0.053
    gains = [20 * np.log10(clip.Gain(-6, 0, p=1.0)(ones, SAMPLE_RATE, rng)[0]) for _ in range(200)]
    assert -6 <= min(gains) < -5.8 and -0.2 < max(gains) <= 1e-6
    masked = [np.sum(clip.TimeMask(0, 0.125, p=1.0)(ones, SAMPLE_RATE, rng) == 0) for _ in range(200)]
    assert min(masked) < 10 and 490 < max(masked) <= 500
    ramp = np.arange(4000, dtype=np.float32)
    shift = clip.Shift(p=1.0, fade_seconds=0)
    shifts = [(int(np.argmin(shift(ramp, SAMPLE_RATE, rng))) + 2000) % 4000 - 2000 for _ in range(200)]
    assert -200 <= min(shifts) < -180 and 780 < max(shifts) <= 800  # -0.05 to 0.2 of the clip, as published


@pytest.mark.parametrize(("ratio", "range_ratio"), [(1.25, 1.0), (0.8, 1.4)])
def test_praat_moves_the_median_pitch(voice, ratio, range_ratio):
    changed = change_gender(voice, SAMPLE_RATE, pitch_ratio=ratio, range_ratio=range_ratio)
    assert median_pitch(changed) / median_pitch(voice) == pytest.approx(ratio, rel=0.01)


def test_formant_shift_keeps_the_pitch(voice):
    changed = change_gender(voice, SAMPLE_RATE, formant_ratio=1.2)
    assert median_pitch(changed) == pytest.approx(median_pitch(voice), rel=0.01)

    def centroid(x):
        power = np.abs(np.fft.rfft(x)) ** 2
        return np.sum(power * np.arange(len(power))) / power.sum()

    assert centroid(changed) > 1.1 * centroid(voice)


def test_pitch_stays_where_the_range_would_fall_below_zero():
    glide = np.concatenate([vowel(90, 0.4), vowel(400, 1.0)])
    stretched = change_gender(glide, SAMPLE_RATE, pitch_ratio=1.3, range_ratio=1.5)
    assert median_pitch(stretched) == pytest.approx(median_pitch(glide), rel=0.01)


def test_silence_and_noise_have_no_pitch_to_shift():
    for audio in (np.zeros(8000), 0.1 * np.random.default_rng(0).standard_normal(8000)):
        audio = audio.astype(np.float32)
        result = change_gender(audio, SAMPLE_RATE, pitch_ratio=1.3)
        assert np.std(result) == pytest.approx(np.std(audio), rel=0.2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: clip.Gain(p=1.5),
        lambda: clip.TimeStretch(1.2, 0.8),
        lambda: clip.PitchShift(1.3, 1.0),
        lambda: clip.FormantShift(-1, 1),
        lambda: clip.GaussianNoise(-1, 0),
    ],
)
def test_impossible_ranges_are_refused(make):
    with pytest.raises(InputError):
        make()


def test_real_singing_is_shifted_as_asked(shared):
    audio, rate = soundfile.read(sorted((shared / "data/singing_dev").rglob("*.flac"))[0], dtype="float32")
    changed = change_gender(audio, rate, pitch_ratio=1.2)
    assert median_pitch(changed, rate) / median_pitch(audio, rate) == pytest.approx(1.2, rel=0.02)
