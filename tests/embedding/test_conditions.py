"""Conditions against their definitions, and embeddings that are kept on disk."""

import numpy as np
import pytest
from helpers import tiny_model, tone, write_voices
from scipy.signal import welch

from ssl_audio import audio
from ssl_audio.embedding import conditions
from ssl_audio.embedding.conditions import parse_condition
from ssl_audio.embedding.kept import KeptEmbeddings
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.errors import InputError

RATE = 16000


def wide(seconds=2.0, rate=RATE):
    """Noise at all frequencies under a tone: what a codec has to give up."""
    return tone(seconds, rate) + 0.05 * np.random.default_rng(1).standard_normal(round(seconds * rate)).astype("f4")


def power_above(samples, hertz, rate=RATE):
    frequency, power = welch(samples, rate, nperseg=1024)
    return power[frequency > hertz].mean()


@pytest.mark.parametrize("name", ["opus:16", "mp3:32", "telephone", "reverb:0.3", "noise:10"])
@pytest.mark.parametrize("rate", [16000, 44100])
def test_a_condition_changes_the_clip_keeps_its_length_and_is_the_same_each_time(name, rate):
    clip = wide(1.0, rate)[: rate - 7]
    before = clip.copy()
    changed, again = (parse_condition(name)(clip, rate) for _ in range(2))
    assert changed.shape == clip.shape and changed.dtype == np.float32 and np.isfinite(changed).all()
    np.testing.assert_array_equal(changed, again)
    np.testing.assert_array_equal(clip, before)
    assert 0.3 < np.corrcoef(changed, clip)[0, 1] < 0.9999  # aligned with the clip, and not the clip


@pytest.mark.parametrize("codec", ["opus", "mp3"])
def test_a_codec_errs_less_at_a_higher_rate(codec):
    clip = wide()
    errors = [np.mean((parse_condition(f"{codec}:{kbits}")(clip, RATE) - clip) ** 2) for kbits in (8, 24, 96)]
    assert errors[0] > errors[1] > errors[2]


def test_the_telephone_keeps_its_band_alone():
    clip = wide()
    through = parse_condition("telephone")(clip, RATE)
    assert power_above(through, 4200) < 1e-3 * power_above(clip, 4200)
    frequency, power = welch(through, RATE, nperseg=1024)
    given = welch(clip, RATE, nperseg=1024)[1]
    middle = (frequency > 600) & (frequency < 3000)
    assert power[middle].sum() == pytest.approx(given[middle].sum(), rel=0.1)


def test_mu_law_is_its_formula_in_256_steps():
    x = np.linspace(-1, 1, 20001)
    coded = np.sign(x) * np.log(1 + 255 * np.abs(x)) / np.log(256)
    back = conditions.mu_law(x)
    assert len(np.unique(back)) <= 256
    recoded = np.sign(back) * np.log(1 + 255 * np.abs(back)) / np.log(256)
    assert np.abs(recoded - coded).max() <= 0.5 / 127 + 1e-9


@pytest.mark.parametrize("decibels", [-5, 0, 20])
def test_noise_has_the_ratio_that_is_asked_for_and_is_pink(decibels):
    clip = wide()
    noise = parse_condition(f"noise:{decibels}")(clip, RATE) - clip
    assert 10 * np.log10(np.mean(clip**2) / np.mean(noise**2)) == pytest.approx(decibels, abs=0.02)
    frequency, power = welch(noise, RATE, nperseg=2048)
    slope = np.polyfit(np.log10(frequency[8:900]), np.log10(power[8:900]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.15)


def test_reverberation_decays_by_60_dB_in_its_time():
    response = conditions.room(np.random.default_rng(0), RATE, 0.5, 5.0)
    assert response[0] == 1 and np.sum(response[1:] ** 2, dtype=float) == pytest.approx(10**-0.5, rel=1e-4)
    early, late = (np.mean(response[i : i + 800] ** 2, dtype=float) for i in (1, 4001))  # a quarter of a second apart
    assert 10 * np.log10(early / late) == pytest.approx(30, abs=2)


def test_cut_is_the_middle_and_leaves_shorter_clips():
    clip = np.arange(100, dtype=np.float32)
    np.testing.assert_array_equal(parse_condition("cut:2")(clip, 10), clip[40:60])
    np.testing.assert_array_equal(parse_condition("cut:20")(clip, 10), clip)


@pytest.mark.parametrize("text", ["opus", "opus:1", "opus:x", "telephone:3", "noise:nan", "wind:3", "cut:0", ""])
def test_a_wrong_condition_is_refused(text):
    with pytest.raises(InputError, match="condition"):
        parse_condition(text)


@pytest.fixture
def voices(tmp_path):
    return sorted(write_voices(tmp_path / "voices", people=3, files=3, seconds=0.6).rglob("*.wav"))


def counted(model):
    """The model, and the list that grows by the number of clips of each forward pass."""
    clips = []
    model.register_forward_hook(lambda _, given, __: clips.append(len(given[0])))
    return model, clips


def test_each_embedding_is_computed_once_and_found_by_content(voices, tmp_path):
    model, clips = counted(tiny_model())
    expected = embed_recordings(EvalProtocol(tiny_model()), voices, progress=None)
    kept = KeptEmbeddings(tmp_path / "kept")
    np.testing.assert_allclose(kept.embed(model, voices[:5]), expected[:5], atol=1e-6)
    assert sum(clips) == 5
    np.testing.assert_allclose(KeptEmbeddings(tmp_path / "kept").embed(model, voices), expected, atol=1e-6)
    assert sum(clips) == 9  # the other four only
    moved = voices[0].rename(tmp_path / "moved.wav")
    audio.write(voices[1], tone(0.6, frequency=333), RATE)
    again = KeptEmbeddings(tmp_path / "kept").embed(model, [moved, *voices[1:]])
    assert sum(clips) == 10 and not np.allclose(again[1], expected[1])
    assert kept.seconds_per_hour(model) > 0


def test_other_weights_and_conditions_have_their_own_embeddings(voices, tmp_path):
    kept = KeptEmbeddings(tmp_path / "kept")
    clean, other = kept.embed(tiny_model(), voices), kept.embed(tiny_model(seed=1), voices)
    noisy = kept.embed(tiny_model(), voices, parse_condition("noise:0"))
    assert not np.allclose(clean, other) and not np.allclose(clean, noisy)
    by_hand = []
    for path in voices:
        samples = audio.read(path)
        audio.write(tmp_path / "noisy.wav", parse_condition("noise:0")(samples, RATE), RATE, "FLOAT")
        by_hand.append(embed_recordings(EvalProtocol(tiny_model()), [tmp_path / "noisy.wav"], progress=None)[0])
    np.testing.assert_allclose(noisy, by_hand, atol=1e-5)


def test_a_damaged_file_of_the_cache_is_computed_again(voices, tmp_path):
    kept = KeptEmbeddings(tmp_path / "kept")
    first = kept.embed(tiny_model(), voices)
    (part,) = (tmp_path / "kept").rglob("*.npz")
    part.write_bytes(part.read_bytes()[:100])
    model, clips = counted(tiny_model())
    np.testing.assert_allclose(kept.embed(model, voices), first, atol=1e-6)
    assert sum(clips) == 9
