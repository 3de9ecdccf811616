"""The resampler in front of a frontend: against soxr, and what a lower rate cannot hold."""

import numpy as np
import soxr
import torch
from helpers import TESTS
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.embedding.recordings import EvalProtocol
from ssl_audio.resampling import PUBLISHED_FILTER, Resample


@settings(max_examples=15, deadline=None)
@given(
    rates=st.sampled_from(
        [(16000, 44100), (44100, 16000), (48000, 44100), (22050, 44100), (8000, 16000), (44100, 44100)]
    ),
    samples=st.integers(3000, 9000),
)
def test_resampling_agrees_with_soxr(rates, samples):
    """On tones in the pass band, away from the edges, to a thousandth."""
    old, new = rates
    time = torch.arange(samples, dtype=torch.float64) / old
    clip = (sum(torch.sin(2 * np.pi * share * min(rates) * time) for share in (0.02, 0.17, 0.41)) / 3).float()
    ours = Resample(old, new)(clip[None])[0]
    theirs = torch.from_numpy(soxr.resample(clip.numpy(), old, new, quality="VHQ"))
    assert len(ours) == -(-samples * new // old)
    edge, least = 200 * new // min(rates), min(len(ours), len(theirs))
    assert (ours[edge : least - edge] - theirs[edge : least - edge]).abs().max() < 1e-3


def test_resampling_removes_what_the_lower_rate_cannot_hold():
    clip = torch.sin(2 * np.pi * 12000 * torch.arange(44100, dtype=torch.float64) / 44100).float()[None]
    assert Resample(44100, 16000)(clip)[:, 500:-500].abs().max() < 1e-3


class Samples(torch.nn.Module):
    """A model whose embedding is the clip."""

    sample_rate, minimum_samples, dim = 44100, 1, 8820

    def forward(self, waveforms):
        return waveforms


def test_the_published_filter_is_torchaudios():
    """torchaudio's own output, for `input_sr` and for the round trip of `eval -du`."""
    with np.load(TESTS / "data" / "others" / "torchaudio_resample.npz") as file:
        theirs = {name: torch.from_numpy(values) for name, values in file.items()}
    up, down = Resample(16000, 44100, **PUBLISHED_FILTER), Resample(44100, 16000, **PUBLISHED_FILTER)
    for ours, name in (
        (up(theirs["x16"][None])[0], "x16_to_44100"),
        (down(theirs["x44"][None])[0], "x44_to_16000"),
        (up(down(theirs["x44"][None]))[0], "x44_round_trip"),
    ):
        torch.testing.assert_close(ours, theirs[name], rtol=0, atol=1e-5)
    clip = (theirs["x44"] / theirs["x44"].abs().max())[None]
    through = EvalProtocol(Samples(), round_trip=True)(clip)
    torch.testing.assert_close(through, up(down(clip))[:, : clip.shape[1]])
