"""Frontends against nnAudio's own layer, the published model's values, librosa's definition, and what they promise."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nnAudio.features import MelSpectrogram as NNAudioMel

from ssl_audio.errors import InputError
from ssl_audio.frontends import DecibelMelSpectrogram, LogMelSpectrogram, MelSpectrogram, Waveform

MELS = [MelSpectrogram, LogMelSpectrogram, DecibelMelSpectrogram]


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=12, deadline=None)
@given(
    n_fft=st.sampled_from([256, 512, 2048]),
    hop=st.sampled_from([100, 128, 512]),
    n_mels=st.sampled_from([16, 64]),
    rate=st.sampled_from([16000, 22050, 44100]),
    f_min=st.sampled_from([0.0, 60.0]),
    f_max=st.sampled_from([None, 7600.0]),
    power=st.sampled_from([1.0, 2.0]),
    samples=st.integers(1030, 9000),
)
def test_equals_nnaudios_layer(n_fft, hop, n_mels, rate, f_min, f_max, power, samples):
    theirs = NNAudioMel(
        sr=rate, n_fft=n_fft, hop_length=hop, n_mels=n_mels, fmin=f_min, fmax=f_max, power=power, verbose=False
    )
    ours = MelSpectrogram(rate, n_fft, hop, n_mels, f_min, f_max, power)
    clips = noise(2, samples, seed=samples)
    expected = theirs(clips)
    assert (ours(clips) - expected).abs().max() <= 1e-4 * expected.max()


def test_equals_what_the_published_model_sees(shared):
    expected = np.load(shared / "fixtures/expected_byol.npz")
    mel = MelSpectrogram()(torch.from_numpy(expected["audio"][:1])).numpy()
    reference = expected["mel_power_first_clip"]
    assert np.abs(mel - reference).max() <= 1e-4 * reference.max()


def test_number_of_frames_and_the_shortest_clip():
    mel = MelSpectrogram(n_fft=512, hop_length=128, n_mels=20)
    for samples in (257, 383, 384, 1000):
        assert mel(noise(1, samples)).shape == (1, 20, 1 + samples // 128)
    with pytest.raises(InputError, match=r"256 samples is too short.*257"):
        mel(noise(1, 256))
    for frames in (1, 3, 4, 10):
        least = mel.samples_for(frames)
        assert mel(noise(1, least)).shape[2] >= frames
        assert least == mel.minimum_samples or mel(noise(1, least - 1)).shape[2] < frames


@pytest.mark.parametrize("kind", MELS)
@pytest.mark.parametrize("loudness", [1e-4, 1.0])
def test_a_clip_does_not_depend_on_its_neighbours(kind, loudness):
    clips = noise(3, 8000) * torch.tensor([[loudness], [0.3], [1.0]])
    together = kind(n_mels=32)(clips)
    alone = torch.cat([kind(n_mels=32)(clip[None]) for clip in clips])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6 * together.abs().max().item())


def test_log_mel_is_divided_by_the_clips_own_largest_logarithm():
    clips = noise(2, 8000)
    log_mel = torch.log(MelSpectrogram(n_mels=32)(clips) + 1e-8)
    scaled = LogMelSpectrogram(n_mels=32)(clips)
    for i in range(2):
        torch.testing.assert_close(scaled[i] * log_mel[i].max(), log_mel[i], rtol=1e-4, atol=1e-4)
    assert torch.equal(LogMelSpectrogram(n_mels=32, normalize="none")(clips), log_mel)


def test_the_clips_mean_is_subtracted_so_that_only_its_loudness_goes():
    clips = noise(2, 8000)
    settings = {"n_mels": 32, "log_offset": 1e-12}
    centred = LogMelSpectrogram(**settings, normalize="clip_mean")(clips)
    log_mel = LogMelSpectrogram(**settings, normalize="none")(clips)
    torch.testing.assert_close(centred + log_mel.mean((1, 2), keepdim=True), log_mel)
    torch.testing.assert_close(
        LogMelSpectrogram(**settings, normalize="clip_mean")(clips / 7), centred, atol=1e-3, rtol=0
    )


def test_band_normalisation_gives_each_band_zero_mean_and_unit_deviation():
    bands = LogMelSpectrogram(n_mels=16, normalize="band")(noise(2, 20000))
    torch.testing.assert_close(bands.mean(2), torch.zeros(2, 16), atol=1e-4, rtol=0)
    torch.testing.assert_close(bands.std(2, unbiased=False), torch.ones(2, 16), atol=1e-3, rtol=0)


def test_band_mean_takes_each_bands_own_mean_away_whatever_the_batch():
    clips = noise(3, 20000) * torch.tensor([[1e-3], [0.3], [1.0]])
    frontend = LogMelSpectrogram(n_mels=16, log_offset=1e-6, normalize="band_mean")
    log_mel = LogMelSpectrogram(n_mels=16, log_offset=1e-6, normalize="none")(clips)
    torch.testing.assert_close(frontend(clips) + log_mel.mean(2, keepdim=True), log_mel)
    torch.testing.assert_close(frontend(clips)[:1], frontend(clips[:1]))


@pytest.mark.parametrize("normalize", ["clip_max", "clip_mean", "band", "band_mean", "none"])
def test_silence_gives_finite_features_and_gradients(normalize):
    clips = torch.zeros(1, 5000, requires_grad=True)
    features = LogMelSpectrogram(n_mels=16, normalize=normalize)(clips)
    features.sum().backward()
    assert features.isfinite().all() and clips.grad.isfinite().all()


def test_decibels_follow_librosas_definition():
    """10 log10(max(S, 1e-10) / max of the clip), not below -80, mapped to [0, 1]."""
    clips = noise(2, 9000) * torch.tensor([[1.0], [1e-3]])
    power = MelSpectrogram(n_mels=32)(clips).numpy().astype(np.float64)
    expected = 10 * np.log10(np.maximum(power, 1e-10))
    expected = np.stack([np.maximum(clip - clip.max(), -80) for clip in expected])
    plain = DecibelMelSpectrogram(n_mels=32, scale=False)(clips).numpy()
    np.testing.assert_allclose(plain, expected, atol=1e-3)
    scaled = DecibelMelSpectrogram(n_mels=32)(clips).numpy()
    np.testing.assert_allclose(scaled, expected / 80 + 1, atol=1e-4)
    assert scaled.min() >= 0 and np.allclose(scaled.max(axis=(1, 2)), 1)


def test_stays_float32_under_autocast():
    mel, clips = MelSpectrogram(n_mels=32), noise(2, 8000)
    with torch.autocast("cpu", torch.bfloat16):
        inside = mel(clips)
        half = mel(clips.bfloat16())
    assert inside.dtype == half.dtype == torch.float32
    assert torch.equal(inside, mel(clips))


@pytest.mark.parametrize(
    "frontend", [LogMelSpectrogram(n_fft=512, normalize="band"), DecibelMelSpectrogram(), Waveform()]
)
def test_nothing_of_it_needs_saving(frontend):
    assert not frontend.state_dict()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"normalize": "batch"}, "normalize is 'batch'.*clip_max, clip_mean, band, band_mean, none"),
        ({"n_fft": 511}, "n_fft is 511"),
        ({"f_min": 8000.0, "f_max": 4000.0}, "f_min 8000.0 Hz must be below"),
        ({"hop_length": 0}, "hop_length 0"),
        ({"log_offset": 0.0}, "log_offset"),
    ],
)
def test_impossible_settings_are_named(arguments, words):
    with pytest.raises(InputError, match=words):
        LogMelSpectrogram(**arguments)
