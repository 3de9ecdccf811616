"""Kaldi's filterbank against kaldi-native-fbank, and what every frontend promises."""

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from helpers import TESTS
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.config import build, describe
from ssl_audio.errors import InputError
from ssl_audio.frontends import KaldiFilterbank


def noise(*shape, seed=0):
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def native(clip, rate, settings):
    """(frames, bands) of one clip in [-1, 1] by kaldi-native-fbank."""
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0
    options.frame_opts.samp_freq = rate
    options.frame_opts.frame_length_ms = settings["frame_length"]
    options.frame_opts.frame_shift_ms = settings["frame_shift"]
    options.frame_opts.window_type = settings["window"]
    options.frame_opts.preemph_coeff = settings["preemphasis"]
    options.frame_opts.snip_edges = settings["snip_edges"]
    options.mel_opts.num_bins = settings["n_mels"]
    options.mel_opts.low_freq = settings["f_min"]
    options.mel_opts.high_freq = settings["f_max"] or 0
    extractor = kaldi_native_fbank.OnlineFbank(options)
    extractor.accept_waveform(rate, (clip * settings["scale"]).tolist())
    extractor.input_finished()
    return np.array([extractor.get_frame(i) for i in range(extractor.num_frames_ready)])


@pytest.mark.parametrize(("window", "tolerance"), [("hamming", 5e-4), ("povey", 3e-3)])
def test_equals_the_stored_reference(window, tolerance):
    stored = np.load(TESTS / "data" / "kaldi_fbank_reference.npz")
    clip = torch.from_numpy(stored["wave_int16"] / np.float32(32768))
    features = KaldiFilterbank(window=window)(clip[None])[0].T
    assert features.shape == (1 + (len(clip) - 400) // 160, 80)
    assert np.abs(features[:120].numpy() - stored[f"{window}_80"]).max() < tolerance


@settings(max_examples=25, deadline=None)
@given(
    rate=st.sampled_from([8000, 16000, 22050, 44100]),
    n_mels=st.sampled_from([20, 23]),
    frame_length=st.sampled_from([20.0, 25.0, 32.0]),
    frame_shift=st.sampled_from([5.0, 7.5, 10.0]),
    window=st.sampled_from(["povey", "hamming", "hanning"]),
    preemphasis=st.sampled_from([0.0, 0.97]),
    f_min=st.sampled_from([0.0, 20.0, 100.0]),
    f_max=st.sampled_from([None, 3700.0]),
    snip_edges=st.booleans(),
    scale=st.sampled_from([1.0, 32768.0]),
    samples=st.integers(1500, 6000),
)
def test_equals_kaldi_native_fbank(rate, samples, **settings):
    clip = noise(1, samples, seed=samples)
    expected = native(clip[0].numpy(), rate, settings)
    features = KaldiFilterbank(rate, **settings)(clip)[0].T.numpy()
    assert features.shape == expected.shape
    assert np.abs(features - expected).max() < 3e-3


def test_a_soft_clip_meets_the_floor_and_the_scale_moves_everything_else():
    loud, silent = noise(1, 8000), torch.zeros(1, 8000)
    plain, scaled = KaldiFilterbank(scale=1.0), KaldiFilterbank()
    torch.testing.assert_close(
        scaled(loud) - plain(loud), torch.full((1, 80, 48), 2 * np.log(32768)), atol=1e-3, rtol=0
    )
    assert (scaled(silent) == np.float32(np.log(np.float32(1.1920929e-07)))).all()


def test_mean_normalisation_takes_each_bands_mean_over_the_clip_away():
    clips = noise(3, 16000) * torch.tensor([[1e-3], [0.3], [1.0]])
    plain, centred = KaldiFilterbank(window="hamming")(clips), KaldiFilterbank(window="hamming", cmn=True)
    torch.testing.assert_close(centred(clips), plain - plain.mean(2, keepdim=True))
    torch.testing.assert_close(centred(clips)[:1], centred(clips[:1]))
    torch.testing.assert_close(centred(clips / 9), centred(clips), atol=1e-3, rtol=0)


@pytest.mark.parametrize("snip_edges", [True, False])
def test_number_of_frames_and_the_shortest_clip(snip_edges):
    frontend = KaldiFilterbank(n_mels=20, snip_edges=snip_edges)
    least = frontend.minimum_samples
    assert frontend(noise(1, least)).isfinite().all()
    with pytest.raises(InputError, match=rf"{least - 1} samples is too short.*{least}"):
        frontend(noise(1, least - 1))
    for frames in (1, 2, 3, 10):
        needed = frontend.samples_for(frames)
        assert frontend(noise(1, needed)).shape[2] >= frames
        assert needed == least or frontend(noise(1, needed - 1)).shape[2] < frames
    if snip_edges:
        assert [frontend(noise(1, n)).shape[2] for n in (64000, 48000, 32000)] == [398, 298, 198]


def test_gradients_reach_the_samples_even_of_silence():
    clips = noise(2, 3000)
    clips[1] = 0
    clips.requires_grad_()
    KaldiFilterbank(cmn=True)(clips).square().sum().backward()
    assert clips.grad.isfinite().all() and clips.grad[0].abs().sum() > 0


def test_stays_float32_under_autocast_and_is_rebuilt_from_its_description():
    frontend, clips = KaldiFilterbank(n_mels=32, window="hamming", snip_edges=False, cmn=True), noise(2, 8000)
    with torch.autocast("cpu", torch.bfloat16):
        inside = frontend(clips)
    assert inside.dtype == torch.float32 and torch.equal(inside, frontend(clips))
    assert torch.equal(build(describe(frontend))(clips), frontend(clips)) and not frontend.state_dict()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"window": "hann"}, "window is 'hann'.*povey, hamming, hanning"),
        ({"frame_shift": 30.0}, "frame_shift 30.0 ms and frame_length 25.0 ms are 480 and 400 samples"),
        ({"frame_shift": 0.01}, "are 0 and 400 samples"),
        ({"f_min": 4000.0, "f_max": 3000.0}, "f_min 4000.0 Hz"),
        ({"f_max": 9000.0}, "f_max 9000.0"),
        ({"preemphasis": 1.5}, "preemphasis 1.5"),
        ({"scale": 0.0}, "scale 0.0"),
    ],
)
def test_impossible_settings_are_named(arguments, words):
    with pytest.raises(InputError, match=words):
        KaldiFilterbank(**arguments)
