"""The resampler in front of a frontend: against soxr, and what a lower rate cannot hold."""

import numpy as np
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio.resampling import Resample


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
