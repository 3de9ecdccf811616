"""Formant-preserving pitch shift in batches: measured by Praat, beside Praat's own, on real singing and speech."""

import math
from typing import NamedTuple

import numpy as np
import pytest
import soundfile
import torch

from ssl_audio.augmentations import batch
from ssl_audio.augmentations.batch.pitch import track_pitch
from ssl_audio.augmentations.batch.psola import LATER, analysis_phase, overlap_add
from ssl_audio.augmentations.measure import Change, compare, listen_to
from ssl_audio.augmentations.praat import change_gender

RATE = 16000
# One or two clips of each source: men and women, sung and spoken, 16, 44.1 and 48 kHz.
PER_SET = {
    "singing_dev/gtsinger": 3,
    "singing_dev/pesnq": 2,
    "singing_dev/vocadito": 1,
    "voices_dev/librispeech": 4,
    "voices_dev/arabic_commands": 3,
    "voices_dev/audiomnist_az": 4,
}


class Row(NamedTuple):
    ratio: float
    praat: Change
    ours: Change
    frames: int
    median: float


def glide(first: float, last: float, seconds: float = 1.0, rate: int = RATE) -> torch.Tensor:
    """(1, samples): band-limited pulses whose pitch moves from first to last Hz."""
    time = torch.arange(int(seconds * rate), dtype=torch.float64) / rate
    phase = first * time + (last - first) * time.square() / (2 * seconds)
    harmonics = [k for k in range(1, 40) if k * max(first, last) < rate / 2]
    return sum(torch.cos(2 * math.pi * k * phase) / k for k in harmonics)[None].float() * 0.1


def shift(clips: torch.Tensor, rate: int, ratio: float, range_ratio: float = 1.0) -> torch.Tensor:
    one = torch.ones(len(clips), 1)
    return overlap_add(clips, rate, ratio * one, range_ratio * one)


@pytest.fixture(scope="module")
def recordings(shared):
    chosen = []
    for folder, count in PER_SET.items():
        files = sorted((shared / "data" / folder).rglob("*.flac"))
        chosen += files[len(files) // (2 * count) :: max(1, len(files) // count)][:count]
    return [soundfile.read(path, dtype="float32") for path in chosen]


@pytest.fixture(scope="module")
def changes(recordings):
    """For each recording: the ratio, Praat's change, ours, the frames whose voicing Praat left, the median pitch."""
    rows = []
    for i, (audio, rate) in enumerate(recordings):
        before, ratio = listen_to(audio, rate), (1.25, 0.8)[i % 2]
        praat = listen_to(change_gender(audio, rate, pitch_ratio=ratio), rate)
        ours = listen_to(shift(torch.from_numpy(audio)[None], rate, ratio)[0].numpy(), rate)
        agree = (before.pitch > 0) == (praat.pitch > 0)
        median = np.median(before.pitch[before.pitch > 0])
        rows.append(Row(ratio, compare(before, praat, agree), compare(before, ours, agree), int(agree.sum()), median))
    return rows


def test_the_pitch_moves_by_the_ratio_asked_for(changes):
    errors = np.array([abs(row.ours.pitch / row.ratio - 1) for row in changes])
    assert np.median(errors) < 0.002
    assert np.mean(errors < 0.01) >= 0.9


def test_the_formants_stay(changes):
    """Less than 5 %. In high voices a linear-prediction F1 follows the nearest harmonic, Praat's own shift included."""
    moved = np.array([row.ours.formants for row in changes])
    low = np.array([row.median for row in changes]) < 220
    assert (np.median(moved[low], axis=0) < 0.04).all()
    assert (np.median(moved[:, 1:], axis=0) < 0.05).all()
    assert np.median(moved[:, 0]) < max(0.05, 1.2 * np.median([row.praat.formants[0] for row in changes]))


def test_marks_lie_at_the_pulses_in_every_voiced_part():
    """Pulses, silence, and pulses at another phase and pitch: each part's marks lie at one place of its periods."""
    clips = torch.cat([glide(120, 125, 0.5), torch.zeros(1, 3571), glide(178, 170, 0.5)], dim=1)
    track = track_pitch(clips, RATE)
    phase, _ = analysis_phase(track, RATE)
    marks = phase.time_of(phase.start.new_tensor([range(1, int(phase.start[0, -1]))]))[0]
    for first, glides in ((0, (120, 125)), (RATE // 2 + 3571, (178, 170))):
        time = (marks[(marks > first + 1600) & (marks < first + 6400)] - first) / RATE
        place = glides[0] * time + (glides[1] - glides[0]) * time.square()  # of the pulses, which are whole numbers
        assert len(place) > 30 and ((place - LATER + 0.5) % 1 - 0.5).abs().max() < 0.1


def test_voicing_stays_where_praat_keeps_it(changes):
    assert np.average([row.ours.voicing for row in changes], weights=[row.frames for row in changes]) >= 0.96


def test_the_envelope_moves_no_more_than_by_praat(changes):
    assert np.mean([row.ours.envelope for row in changes]) <= 1.2 * np.mean([row.praat.envelope for row in changes])


def test_the_range_is_stretched_around_the_median():
    clips = glide(150, 250)
    wider = shift(clips, RATE, 1.2, 1.4)
    pitch = [listen_to(x[0].numpy(), RATE).pitch for x in (clips, wider)]
    both = (pitch[0] > 0) & (pitch[1] > 0)
    before, after = pitch[0][both][5:-5], pitch[1][both][5:-5]
    expected = 200 * 1.2 + (before * 1.2 - 200 * 1.2) * 1.4
    assert np.median(np.abs(after / expected - 1)) < 0.01


def test_a_range_that_would_fall_below_zero_leaves_the_pitch():
    clips = torch.cat([glide(90, 90, 0.4), glide(400, 400, 1.0)], dim=1)
    after = listen_to(shift(clips, RATE, 1.3, 1.5)[0].numpy(), RATE)
    assert np.median(after.pitch[after.pitch > 0]) == pytest.approx(400, rel=0.01)


def test_formant_shift_moves_formants_and_keeps_the_pitch(recordings):
    moved, kept, level = [], [], []
    for audio, rate in recordings[6:10]:
        before = listen_to(audio, rate)
        for ratio in (1.2, 1 / 1.2):
            one = torch.ones(1, 1)
            result = overlap_add(torch.from_numpy(audio)[None], rate, one, one, ratio * one)[0].numpy()
            after = listen_to(result, rate, ceiling=5500 * ratio)  # as many formants as before below it
            voiced = (before.pitch > 0) & (after.pitch > 0)
            formants = np.nanmedian(after.formants[voiced], 0) / np.nanmedian(before.formants[voiced], 0)
            moved.append(formants[1:] / ratio)  # F2 and F3; F1 follows harmonics
            kept.append(np.median(after.pitch[voiced] / before.pitch[voiced]))
            level.append(result.std() / audio.std())
    assert np.median(np.abs(np.array(moved) - 1)) < 0.06
    np.testing.assert_allclose(kept, 1, atol=0.01)
    assert min(level) > 0.6 and max(level) < 1.3


@pytest.mark.parametrize("pitch", [80.0, 130.0, 261.6, 550.0])
@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_the_tracker_finds_the_pitch_at_any_rate(pitch, rate):
    track = track_pitch(glide(pitch, pitch * 1.05, 0.5, rate), rate)
    inner = slice(3, -4)
    assert track.voiced[0, inner].all()
    times = torch.arange(track.frequency.shape[1]) * track.hop / rate
    expected = pitch * (1 + 0.05 * times / 0.5)
    assert (track.frequency[0] / expected - 1).abs()[inner].max() < 0.01


def test_noise_silence_and_their_neighbours():
    """No pitch, no change; and a clip's result does not depend on the others in its batch."""
    torch.manual_seed(0)
    silence, noise, tone = torch.zeros(1, RATE), 0.1 * torch.randn(1, RATE), glide(200, 220)
    result = shift(torch.cat([silence, noise, tone]), RATE, 1.3)
    assert result[0].abs().max() == 0
    assert (result[1] - noise[0]).norm() < 0.35 * noise.norm()  # a stray voiced frame at most
    torch.testing.assert_close(result[2:], shift(tone, RATE, 1.3), rtol=0, atol=1e-4)
    assert result.isfinite().all()


def test_a_ratio_of_one_changes_nothing():
    clips = glide(180, 240)
    torch.testing.assert_close(shift(clips, RATE, 1.0), clips, rtol=0, atol=0.02)


@pytest.mark.parametrize("samples", [100, 171, 342, 600, 700, 5000])
def test_high_notes_shifted_far_are_as_long_as_before(samples):
    clips = glide(590, 599, 0.5)[:, :samples]
    for ratio in (3.0, 0.2):
        result = shift(clips, RATE, ratio)
        assert result.shape == clips.shape and result.isfinite().all()


def test_polyphony_comes_through_at_a_sane_level(shared):
    files = (
        sorted((shared / "data/music/note_mixes").rglob("*.flac"))[:3]
        or sorted((shared / "data/music/librosa_examples").rglob("*.*"))[:3]
    )
    for path in files:
        audio, rate = soundfile.read(path, dtype="float32", frames=4 * 44100)
        clips = torch.from_numpy(audio if audio.ndim == 1 else audio.mean(1))[None]
        for kind in (batch.PitchShift, batch.FormantShift):
            result = kind(p=1.0)(clips, rate, torch.Generator().manual_seed(0))
            assert result.isfinite().all()
            assert 0.5 < result.std() / clips.std() < 1.3
            assert result.abs().max() < 2 * clips.abs().max()


def test_memory_does_not_grow():
    import resource

    transform, generator = batch.PitchShift(p=0.5), torch.Generator().manual_seed(0)
    clips = glide(200, 220, 0.25).repeat(4, 1)
    for _ in range(20):
        transform(clips, RATE, generator)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        transform(clips, RATE, generator)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # KiB
