"""Reverberation by its decay, impulse responses against scipy, noise from recordings by its level."""

import numpy as np
import pytest
import scipy.signal
import torch

from ssl_audio import audio
from ssl_audio.augmentations import batch, clip
from ssl_audio.errors import InputError

RATE = 16000


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(rows: int = 1, samples: int = RATE) -> torch.Tensor:
    return 0.1 * torch.randn(rows, samples, generator=generator())


def impulse(samples: int) -> torch.Tensor:
    return torch.nn.functional.pad(torch.ones(1, 1), (0, samples - 1))


@pytest.mark.parametrize("decay", [0.2, 0.8])
def test_reverb_decays_as_asked(decay):
    """Schroeder's backward integral of the response falls from -5 to -35 dB in half the decay time."""
    reverb = batch.Reverb(decay, decay, 1.0, 1.0, max_damping=0.0, p=1.0)
    response = reverb(impulse(2 * RATE), RATE, generator())[0].double()
    level = 10 * response.square().flip(0).cumsum(0).flip(0).clamp_min(1e-20).log10()
    level -= level[0].clone()
    first, last = (int((level > limit).sum()) for limit in (-5, -35))
    assert 2 * (last - first) / RATE == pytest.approx(decay, rel=0.1)
    assert response.square().sum().item() == pytest.approx(1, rel=0.02)


def test_reverb_damps_high_frequencies_faster_and_mixes():
    damped = batch.Reverb(0.8, 0.8, 1.0, 1.0, max_damping=0.9, p=1.0)
    responses = damped(impulse(RATE).repeat(20, 1), RATE, generator())
    late = torch.fft.rfft(responses[:, 3200:6400]).abs().square().mean(0)
    bright = late[len(late) // 2 :].mean() / late[: len(late) // 4].mean()
    assert bright < 0.3
    dry = batch.Reverb(min_wet=0.0, max_wet=0.0, p=1.0)(noise(), RATE, generator())
    torch.testing.assert_close(dry, noise())


def test_impulse_responses_are_convolved_at_the_clip_s_loudness(tmp_path):
    room = np.zeros(800, dtype=np.float32)
    room[[0, 300, 700]] = 0.5, 0.25, -0.125
    audio.write(tmp_path / "room.wav", room, RATE)
    clips = noise(2)
    expected = np.stack([scipy.signal.fftconvolve(row, room)[:RATE] for row in clips.numpy()])
    expected *= np.sqrt((clips.numpy() ** 2).mean(1) / (expected**2).mean(1))[:, None]
    for result in (
        batch.ImpulseResponse(str(tmp_path), p=1.0)(clips, RATE, generator()).numpy(),
        np.stack(
            [clip.ImpulseResponse(str(tmp_path), p=1.0)(row, RATE, np.random.default_rng(0)) for row in clips.numpy()]
        ),
    ):
        np.testing.assert_allclose(result, expected, atol=2e-4)  # 16 bits in the file


def test_background_noise_has_the_ratio_that_was_drawn_and_is_read_once(tmp_path):
    for i in range(3):
        audio.write(tmp_path / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(3 * RATE), RATE)
    transform = batch.BackgroundNoise(str(tmp_path), 5, 19, p=1.0)
    clips = noise(200, 4000)
    ratios = []
    for seed in range(2):
        mixed = transform(clips, RATE, generator(seed))
        ratios.append(10 * torch.log10(clips.square().mean(1) / (mixed - clips).square().mean(1)))
        for path in tmp_path.glob("*.wav"):
            path.unlink()  # a second step may not want the files
    ratios = torch.cat(ratios)
    assert ratios.min() > 4.9 and ratios.max() < 19.1 and ratios.mean() == pytest.approx(12, abs=0.6)
    assert transform(torch.zeros(1, 4000), RATE, generator()).abs().max() == 0


def test_background_noise_keeps_to_its_budget_and_refuses_an_empty_folder(tmp_path):
    for i in range(4):
        audio.write(tmp_path / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(RATE), RATE)
    transform = batch.BackgroundNoise(str(tmp_path), budget=4 * 2 * RATE, p=1.0)
    transform(noise(), RATE, generator())
    assert sum(bank.numel() for bank in transform._bank.values()) == 2 * RATE
    (tmp_path / "empty").mkdir()
    for kind in (batch.BackgroundNoise, batch.ImpulseResponse):
        with pytest.raises(InputError, match="no audio"):
            kind(str(tmp_path / "empty"))
