"""Views of a clip, the nearest mean, and two embeddings side by side: against their definitions in numpy."""

import numpy as np
import pytest
import torch
from helpers import tiny_model, tone

from ssl_audio.baselines import mfcc_statistics
from ssl_audio.encoders import Joined, NearestMean, Views, Whitening
from ssl_audio.encoders.views import join, without_silence
from ssl_audio.errors import InputError


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def speech_alone(clip: np.ndarray, frame: int) -> np.ndarray:
    """The definition, frame by frame."""
    pieces = [np.pad(piece, (0, frame - len(piece))) for piece in np.split(clip, range(frame, len(clip), frame))]
    energies = [float((piece**2).sum()) for piece in pieces]
    heard = [piece for piece, energy in zip(pieces, energies, strict=True) if energy > 1e-4 * max(energies)] or pieces
    return np.concatenate([heard[i % len(heard)] for i in range(len(pieces))])[: len(clip)]


@pytest.mark.parametrize("samples", [100, 480, 4000, 4801])
def test_speech_takes_the_place_of_silence(samples):
    rng = np.random.default_rng(samples)
    clips = rng.standard_normal((3, samples)).astype(np.float32)
    clips[0, samples // 4 : samples // 2] *= 1e-4
    clips[1] = 0
    expected = np.stack([speech_alone(clip, 480) for clip in clips])
    np.testing.assert_array_equal(without_silence(torch.from_numpy(clips), 480).numpy(), expected)


def test_views_are_averaged_at_unit_length():
    model = tiny_model()
    clips = torch.from_numpy(np.stack([0.01 * tone(1.0), 0.01 * tone(1.0, frequency=300)]))
    clips[:, :6000] = 0
    raised = clips * (10 ** (-30 / 20) / clips.square().mean(dim=1, keepdim=True).sqrt())
    seen = [clips, torch.from_numpy(np.stack([speech_alone(clip, 480) for clip in clips.numpy()])), raised]
    with torch.inference_mode():
        expected = unit(np.mean([unit(model(view).numpy()) for view in seen], axis=0))
        found = Views(model, ["plain", "speech", "level"])(clips).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_nearest_of_the_means_is_subtracted():
    rng = np.random.default_rng(0)
    rows, means = rng.standard_normal((50, 6)), rng.standard_normal((3, 6))
    layer = NearestMean(6, 3)
    layer.means.copy_(torch.from_numpy(means))
    expected = [row - means[np.argmin([np.linalg.norm(row - mean) for mean in means])] for row in rows]
    np.testing.assert_allclose(layer(torch.from_numpy(rows).float()).numpy(), expected, atol=1e-6)


def test_the_cosine_of_joined_rows_is_the_weighted_mean_of_both_cosines():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 5)), rng.standard_normal((2, 9))
    both = join(torch.from_numpy(a), torch.from_numpy(b), 0.3).numpy()
    cosines = [float(unit(x)[0] @ unit(x)[1]) for x in (a, b)]
    assert unit(both)[0] @ unit(both)[1] == pytest.approx(0.7 * cosines[0] + 0.3 * cosines[1])


def test_what_cannot_work_is_refused():
    model = tiny_model()
    with pytest.raises(InputError, match=r"views are .'louder'.; name one or more of plain, speech, level"):
        Views(model, ["louder"])
    with pytest.raises(InputError, match="each once"):
        Views(model, ["plain", "plain"])
    with pytest.raises(InputError, match="weight is 1; it must lie between 0 and 1"):
        Joined(Views(model), mfcc_statistics(), Whitening(40), 1)
