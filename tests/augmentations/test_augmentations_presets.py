"""The chains in train_configs/augmentation: what they hold, that they run, that the published one has two forms."""

import jsonargparse
import numpy as np
import pytest
import torch
import yaml
from helpers import REPOSITORY

from ssl_audio.augmentations import batch, clip

FOLDER = REPOSITORY / "train_configs" / "augmentation"
BATCHED = ["device", "clmr", "wav2rec", "wavebyol"]
RATE = 22050


def section(name: str, owner: str) -> dict:
    config = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    other = {"data": "model", "model": "data"}[owner]
    assert config[other]["init_args"]["augmentation"] is None  # stacked on another chain, it must switch that off
    return config[owner]["init_args"]["augmentation"]


def build(spec: dict, kind: type):
    """As the training command builds it: by jsonargparse, which checks names and types."""
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--augmentation", type=kind)
    return parser.instantiate(parser.parse_object({"augmentation": spec})).augmentation


def load(name: str):
    return build(section(name, "model"), batch.BatchTransform)


@pytest.mark.parametrize("name", BATCHED)
def test_a_batched_preset_runs_and_repeats(name):
    chain = load(name)
    clips = 0.2 * torch.randn(6, 30000, generator=torch.Generator().manual_seed(0))
    first, again, other = (chain(clips, RATE, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == clips.shape and first.isfinite().all()
    torch.testing.assert_close(first, again, rtol=0, atol=0)
    assert not torch.equal(first, other)
    assert chain(torch.empty(4, 30000, device="meta"), RATE, None).is_meta  # waits for nothing


def test_the_clip_chain_is_the_published_one_and_the_device_s_its_twin():
    per_clip = build(section("clip", "data"), clip.ClipTransform)
    published = {
        "GaussianNoise": 0.5,
        "TimeStretch": 0.0,
        "FormantShift": 0.0,
        "PitchShift": 0.5,
        "Shift": 0.0,
        "Gain": 0.5,
        "SevenBandEQ": 0.0,
        "TanhDistortion": 0.0,
        "TimeMask": 0.5,
    }
    assert {type(t).__name__: t.p for t in per_clip.transforms} == published
    assert list(published) == [type(t).__name__ for t in per_clip.transforms]

    def bare(spec):
        return [(t["class_path"].rsplit(".", 1)[1], t["init_args"]) for t in spec["init_args"]["transforms"]]

    assert bare(section("clip", "data")) == bare(section("device", "model"))


def test_a_clip_of_the_chain_is_the_same_in_any_order_of_work():
    chain = build(section("clip", "data"), clip.ClipTransform)
    clips = [0.1 * np.random.default_rng(i).standard_normal(8000).astype(np.float32) for i in range(6)]

    def work(order):
        return {i: chain(clips[i], 16000, np.random.default_rng((7, i))) for i in order}

    forwards, backwards = work(range(6)), work(reversed(range(6)))
    assert all(np.array_equal(forwards[i], backwards[i]) for i in range(6))
    assert any(not np.array_equal(forwards[i], clips[i]) for i in range(6))


def test_both_chains_have_the_same_statistics():
    """Share of clips untouched, level and masked samples, over many clips of one voice."""
    rng = np.random.default_rng(0)
    time = np.arange(6000) / 16000
    voice = sum(np.cos(2 * np.pi * 200 * k * time) / k for k in range(1, 12)).astype(np.float32) * 0.1
    per_clip = build(section("clip", "data"), clip.ClipTransform)
    alone = np.stack([per_clip(voice, 16000, rng) for _ in range(600)])
    together = load("device")(torch.from_numpy(voice).repeat(600, 1), 16000, torch.Generator().manual_seed(0)).numpy()
    for statistic in (
        lambda x: np.mean((x == voice).all(1)),  # nothing drawn: 1 in 16
        lambda x: np.mean((x == 0).mean(1)),  # masked, and no noise after it
        lambda x: np.mean(x.std(1)) / voice.std(),
        lambda x: np.std(x.std(1)) / voice.std(),
    ):
        assert statistic(together) == pytest.approx(statistic(alone), abs=0.03)


def test_clmr_is_the_sheet_s_list():
    chain = load("clmr")
    assert [(type(t).__name__, t.p) for t in chain.transforms] == [
        ("Polarity", 0.8),
        ("RelativeNoise", 0.01),
        ("Gain", 0.3),
        ("OneOf", 0.8),
        ("Delay", 0.3),
        ("PitchShiftPolyphonic", 0.6),
        ("Reverb", 0.6),
    ]
    gain, either, delay, pitch = (chain.transforms[i] for i in (2, 3, 4, 5))
    assert (gain.min_gain_db, gain.max_gain_db, gain.clamp) == (-20, -1, True)
    assert [(t.min_cutoff, t.max_cutoff) for t in either.transforms] == [(200, 1200), (2200, 4000)]
    assert (delay.min_milliseconds, delay.max_milliseconds, delay.step_milliseconds, delay.volume) == (
        200,
        450,
        50,
        0.5,
    )
    assert (pitch.min_cents, pitch.max_cents) == (-700, 700)


def test_wavebyol_draws_two_to_five_of_five():
    chain = load("wavebyol")
    assert (chain.minimum, chain.maximum, len(chain.transforms)) == (2, 5, 5)


def test_a_batched_transform_works_per_clip():
    spec = {
        "class_path": "ssl_audio.augmentations.clip.FromBatch",
        "init_args": {"transform": section("clmr", "model")},
    }
    chain = build(spec, clip.ClipTransform)
    audio = 0.1 * np.random.default_rng(0).standard_normal(30000).astype(np.float32)
    first, again = (chain(audio, RATE, np.random.default_rng(3)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert first.shape == audio.shape and not np.array_equal(first, audio)
