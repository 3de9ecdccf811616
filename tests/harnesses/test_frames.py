"""Frames of any model: their times against bursts that are heard, long clips in chunks, clips that are too short."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ssl_audio import encoders
from ssl_audio.encoders import CPC, CompactCNN, EfficientNet, SampleCNN
from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram, Waveform
from ssl_audio.harnesses.frames import Frames, embed_clips, frame_times, frame_timing, lengthened
from ssl_audio.model import EmbeddingModel

RATE = 16000


def mel(**options):
    return LogMelSpectrogram(RATE, n_fft=512, hop_length=160, n_mels=32, normalize="none", **options)


MODELS = {
    "CompactCNN": lambda: EmbeddingModel(mel(), CompactCNN([8, 8], embedding_dim=16), RATE),
    "CompactCNN of three blocks": lambda: EmbeddingModel(mel(), CompactCNN([8, 8, 8], embedding_dim=16), RATE),
    "CPC": lambda: EmbeddingModel(Waveform(), CPC(channels=16, context="gru"), RATE),
    "EfficientNet": lambda: EmbeddingModel(mel(), EfficientNet(embedding_dim=16), RATE),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_frame_at_a_burst_is_the_one_that_hears_it(name):
    """The centre of what a frame hears: where a burst that moves through the clip changes it most, on average."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    frames = Frames(model)
    count = 12
    samples = round(2 * frames.start + (count - 1) * frames.hop) + 1
    clip = 0.01 * torch.randn(1, samples)
    middle = count // 2
    step = max(1, round(frames.hop / 4))
    places = np.arange(step, samples - step, step)
    with torch.inference_mode():
        quiet = frames(clip)[0, middle]
        heard = []
        for place in places:
            loud = clip.clone()
            loud[:, place - step // 2 : place + step // 2 + 1] += 0.5
            heard.append(float((frames(loud)[0, middle] - quiet).square().sum()))
    centre = np.average(places, weights=heard)
    expected = frames.times(count)[middle] * RATE
    # a causal context hears what came before, and pooled frames do not weigh all evenly: within a frame and a half
    assert abs(centre - expected) < 1.5 * frames.hop + 400, (centre, expected, frames.hop)


def test_timing_follows_from_strides():
    model = EmbeddingModel(Waveform(), CPC(channels=16, context="gru"), RATE).eval()
    hop, start = frame_timing(model)
    assert hop == pytest.approx(160, abs=0.5) and 0 <= start < 4 * 160
    model = EmbeddingModel(mel(), CompactCNN([8, 8], embedding_dim=16), RATE).eval()
    hop, start = frame_timing(model)
    frames = model.frames(torch.randn(1, round(20 * hop))).shape[1]
    assert abs(frames - 20) <= 1 and 0 <= start < 2 * hop
    longer = model.frames(torch.randn(1, round(200 * hop))).shape[1]
    assert abs(longer - 200) <= 1  # no drift


class Declared(Encoder):
    """Says where its frames lie, in frames of the frontend; every third of them."""

    dim = frame_dim = 32
    frame_hop, frame_start = 3.0, 1.0

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(2)

    def frames(self, features: Tensor) -> Tensor:
        return features[:, :, 1::3].transpose(1, 2)


def test_what_an_encoder_says_of_its_frames_is_taken():
    assert frame_timing(EmbeddingModel(mel(), Declared(), RATE)) == (480, 160)
    np.testing.assert_allclose(frame_times(480, 160, 3, RATE), [0.01, 0.04, 0.07])


def test_an_encoder_with_too_few_frames_is_named():
    class One(Declared):
        frame_hop = frame_start = None

        def frames(self, features: Tensor) -> Tensor:
            return features.mean(2)[:, None]

    with pytest.raises(InputError, match="has only 1 frames; set frame_hop and frame_start"):
        frame_timing(EmbeddingModel(mel(), One(), RATE))


@pytest.mark.parametrize("name", ["CompactCNN", "CPC"])
def test_long_clips_in_chunks_have_the_frames_of_the_whole(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    if name == "CPC":  # its recurrent context goes over the whole clip; the latents below it do not
        model.encoder.frames = lambda features: model.encoder.latents(features)
    whole, chunked = Frames(model, chunk_seconds=1000), Frames(model, chunk_seconds=1.0)
    clip = 0.1 * torch.randn(2, 7 * RATE + 123)
    with torch.inference_mode():
        expected, found = whole(clip), chunked(clip)
    assert found.shape == expected.shape
    apart = (found - expected).abs().amax((0, 2)) > 1e-4 * expected.abs().max()
    assert apart.float().mean() < 0.35  # those at the borders of chunks hear an edge
    assert (found - expected).abs().mean() < 0.2 * expected.abs().mean()
    assert torch.allclose(found[:, :3], expected[:, :3], atol=1e-5)
    times = chunked.times(found.shape[1])
    np.testing.assert_allclose(np.diff(times), whole.hop / RATE, rtol=1e-9)
    assert times[-1] <= clip.shape[1] / RATE


class Pooled(Encoder):
    """Has no frames."""

    dim = 32

    def forward(self, features: Tensor) -> Tensor:
        return features.mean(2)


def test_a_model_without_frames_gives_windows():
    model = EmbeddingModel(mel(), Pooled(), RATE).eval()
    frames = Frames(model)
    clip = torch.randn(2, 4 * RATE)
    found = frames(clip)
    assert found.shape == (2, 7, 32) and (frames.hop, frames.start) == (RATE / 2, RATE / 2)
    for i in range(7):
        torch.testing.assert_close(found[:, i], model(clip[:, i * 8000 : i * 8000 + RATE]))
    assert frames(clip[:, :1000]).shape == (2, 1, 32)


def test_short_clips_are_repeated_and_long_ones_are_means_over_windows(tmp_path):
    from ssl_audio import audio
    from ssl_audio.embedding import embed_files

    assert lengthened(torch.arange(3.0)[None], 7).tolist() == [[0, 1, 2, 0, 1, 2, 0]]
    with pytest.raises(InputError, match="has no samples"):
        lengthened(torch.zeros(1, 0), 5)
    model = EmbeddingModel(Waveform(), SampleCNN(channels=[4] * 11), RATE).eval()
    short = torch.randn(2, 10_000)
    torch.testing.assert_close(embed_clips(model, short), model(lengthened(short, model.minimum_samples)))
    model = MODELS["CompactCNN"]().eval()
    samples = (0.1 * np.random.default_rng(0).standard_normal(7 * RATE + 77)).astype(np.float32)
    audio.write(tmp_path / "clip.wav", samples, RATE, subtype="FLOAT")
    (row,) = embed_files(model, [tmp_path / "clip.wav"], window_seconds=2.0, aggregate="mean")
    found = embed_clips(model, torch.from_numpy(samples)[None], window_seconds=2.0)[0]
    np.testing.assert_allclose(found, row.embedding, atol=1e-5)


# encoder, and samples from one of its frames to the next; a frame of the frontend is 160 samples
HOPS = {
    "CompactCNN": (lambda: encoders.CompactCNN([4, 4, 4], embedding_dim=8), 8 * 160),
    "EfficientNet": (lambda: encoders.EfficientNet(embedding_dim=8), 32 * 160),
    "ResNet50": (lambda: encoders.ResNet50([1, 1, 1, 1], width=4), 32 * 160),
    "ShortChunkCNN": (lambda: encoders.ShortChunkCNN([4, 4, 8], embedding_dim=6), 8 * 160),
    "ECAPATDNN": (lambda: encoders.ECAPATDNN(16, 6, 32, mfa_channels=12), 160),
    "ResNet34": (lambda: encoders.ResNet34([1, 1, 1, 1], 4, 6, 32), 8 * 160),
    "FastResNet34": (lambda: encoders.FastResNet34([1, 1, 1, 1], 8, 6), 4 * 160),
    "CAMPlusPlus": (lambda: encoders.CAMPlusPlus([1, 1], 4, 8, 2, 6, 32), 2 * 160),
    "VisionTransformer": (lambda: encoders.VisionTransformer(64, 16, 32, 2, 2, 8, 64), 16 * 160),
    "SampleCNN": (lambda: encoders.SampleCNN([4] * 5), 3**5),
    "SincNet": (lambda: encoders.SincNet([6, 4], [33, 5], [3, 3], embedding_dim=10), 9),
    "CPC": (lambda: encoders.CPC(channels=16, context="gru"), 160),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOPS)
def test_the_frames_of_every_encoder_have_a_time(name):
    make, hop = HOPS[name]
    encoder = make()
    waveform = name in ("SampleCNN", "SincNet", "CPC")
    model = EmbeddingModel(Waveform() if waveform else mel(), encoder, RATE).eval()
    measured, start = frame_timing(model)
    assert measured == pytest.approx(hop, rel=0.02) and 0 <= start < 6 * max(hop, 400)
    frames = Frames(model)
    clip = 0.1 * torch.randn(1, round(2 * start + 4 * hop))
    with torch.inference_mode():
        count = frames(clip).shape[1]
    times = frames.times(count)
    assert times[0] >= 0 and times[-1] <= clip.shape[1] / RATE
    np.testing.assert_allclose(np.diff(times), measured / RATE)
