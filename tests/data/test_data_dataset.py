"""Items: where fragments come from, what makes them, and what happens when a file does not play along."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ssl_audio import audio
from ssl_audio.audio import AudioFile
from ssl_audio.data.dataset import TwoViewDataset, collate
from ssl_audio.data.index import AudioIndex
from ssl_audio.data.sampler import Draw, EpochSampler
from ssl_audio.errors import InputError


@pytest.fixture
def ramps(tmp_path):
    """Two singers with two files whose sample n is n / 32768, so that a fragment tells where it began."""
    for singer in "ab":
        for song in "12":
            ramp = np.arange(1, 20001, dtype=np.float32) / 32768
            audio.write(tmp_path / "ramps" / singer / f"{song}.wav", ramp, 16000)
    return AudioIndex.scan([tmp_path / "ramps"]).groups


def start_of(clip):
    """Of a normalised fragment of a ramp: x / (start + len - 1) at its first sample."""
    first, length = float(clip[0]), len(clip)
    return first * (length - 1) / (1 - first)


def test_two_independent_uniform_fragments_of_the_same_file(ramps):
    dataset = TwoViewDataset(ramps, 4000, 16000, seed=3, multi_epoch=100)
    items = [dataset[Draw(0, n)] for n in range(400)]
    starts = np.array([[start_of(item["clip1"]), start_of(item["clip2"])] for item in items])
    assert all(item["clip1"].max() == 1 for item in items)
    assert starts.min() >= 0 and starts.max() <= 16001
    assert abs(np.corrcoef(starts.T)[0, 1]) < 0.2
    assert np.histogram(starts, 4, (0, 16001))[0].min() > 150  # of 800 in quarters
    assert np.bincount([item["index"] for item in items]).tolist() == [100] * 4
    assert [items[0]["group_name"], items[399]["group_name"]] == ["a", "b"]


def test_crops_of_two_lengths_come_from_the_whole_recording_and_are_repeatable(ramps):
    def make(**options):
        return TwoViewDataset(ramps, 8000, 16000, seed=3, multi_epoch=50, **options)

    dataset = make(views=3, local_views=4, local_samples=3000)
    items = [dataset[Draw(0, n)] for n in range(200)]
    assert [len(items[0][f"clip{n}"]) for n in (1, 2, 3)] == [8000] * 3 and len(items[0]["local4"]) == 3000
    starts = np.array([[start_of(item[f"local{n}"]) for n in (1, 2, 3, 4)] for item in items])
    assert np.histogram(starts, 4, (0, 17001))[0].min() > 150  # of 800 in quarters
    assert abs(np.corrcoef(starts.T) - np.eye(4)).max() < 0.25
    again, two = dataset[Draw(0, 7)], make()[Draw(0, 7)]
    assert all(torch.equal(items[7][key], again[key]) for key in again if key.startswith(("clip", "local")))
    assert torch.equal(two["clip2"], again["clip2"]) and "clip3" not in two  # two views are as they were


def test_positives_of_the_same_group_are_another_recording_of_it(tmp_path):
    for singer, songs in (("a", 3), ("b", 2), ("c", 1)):
        for song in range(songs):
            level = 0.1 * (1 + song) + 0.01 * "abc".index(singer)  # a constant tells the recording
            audio.write(tmp_path / "d" / singer / f"{song}.wav", np.full(20000, level, np.float32), 16000)
    groups = AudioIndex.scan([tmp_path / "d"]).groups
    options = {"seed": 1, "multi_epoch": 30, "normalize": False, "positives": "same_group"}
    dataset = TwoViewDataset(groups, 4000, 16000, views=3, local_views=2, local_samples=100, **options)
    level_of = [audio.read(entry.path, 16000, 0, 10)[0] for entry in dataset.entries]
    pairs = set()
    for number in range(len(dataset)):
        item = dataset[Draw(0, number)]
        first, second = item["index"], item["index2"]
        pairs.add((first, second))
        for name in ("clip1", "clip3", "local1"):
            assert torch.all(item[name] == level_of[first])
        for name in ("clip2", "local2"):
            assert torch.all(item[name] == level_of[second])
        assert item["group_name"] == "abc"[item["group"]]
    expected = {(i, j) for group in ({0, 1, 2}, {3, 4}) for i in group for j in group if i != j}
    assert pairs == expected | {(5, 5)}  # the only recording of its group
    batch = collate([dataset[Draw(0, n)] for n in (0, 100)])
    assert batch["group"].dtype == batch["index2"].dtype == torch.int64


def test_where_the_other_recording_cannot_be_read_both_clips_are_of_the_first(ramps):
    broken = ramps[0].entries[1].path
    Path(broken).write_bytes(b"no audio")
    dataset = TwoViewDataset(ramps, 4000, 16000, positives="same_group")
    item = dataset[Draw(0, 0)]
    assert item["index"] == item["index2"] == 0 and [failure.path for failure in item["failures"]] == [broken]
    assert not dataset[Draw(0, 2)]["failures"]


def test_a_repeated_epoch_visits_all_groups_before_it_visits_one_again(ramps):
    dataset = TwoViewDataset(ramps, 4000, 16000, batch_sampling_mode="sample_groups", multi_epoch=20)
    groups = [dataset[draw]["group_name"] for draw in EpochSampler(dataset, 2, seed=0)]
    assert all(set(pair) == {"a", "b"} for pair in zip(groups[::2], groups[1::2], strict=True))
    assert len(groups) == 40 and len(set(zip(groups[::2], groups[1::2], strict=True))) == 2


def test_one_opened_file_an_item(ramps, monkeypatch):
    opened = []
    original = AudioFile.__init__
    monkeypatch.setattr(AudioFile, "__init__", lambda self, path: opened.append(path) or original(self, path))
    TwoViewDataset(ramps, 4000, 44100)[Draw(0, 0)]
    assert len(opened) == 1


def test_an_item_depends_on_seed_epoch_and_number_alone(ramps):
    def clip(seed, draw):
        return TwoViewDataset(ramps, 4000, 16000, seed=seed, multi_epoch=2)[draw]["clip1"]

    assert torch.equal(clip(1, Draw(2, 3)), clip(1, Draw(2, 3)))
    for seed, draw in ((2, Draw(2, 3)), (1, Draw(3, 3)), (1, Draw(2, 2))):
        assert not torch.equal(clip(1, Draw(2, 3)), clip(seed, draw))


def test_groups_are_visited_once_with_a_random_file(ramps):
    dataset = TwoViewDataset(ramps, 4000, 16000, batch_sampling_mode="sample_groups")
    assert len(dataset) == 2
    drawn = {
        (item["group_name"], item["index"]) for e in range(40) for item in (dataset[Draw(e, 0)], dataset[Draw(e, 1)])
    }
    assert drawn == {("a", 0), ("a", 1), ("b", 2), ("b", 3)}


def test_a_shared_crop_differs_by_its_augmentation_alone(ramps):
    def noisy(clip, sample_rate, rng):
        assert sample_rate == 16000 and clip.dtype == np.float32
        return clip + rng.uniform(0, 1e-3)

    plain = TwoViewDataset(ramps, 4000, 16000, shared_crop=True)[Draw(0, 0)]
    assert torch.equal(plain["clip1"], plain["clip2"])
    item = TwoViewDataset(ramps, 4000, 16000, shared_crop=True, augmentation=noisy)[Draw(0, 0)]
    difference = item["clip1"] - item["clip2"]
    assert difference.abs().max() > 1e-5 and difference.std() < 1e-6


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_fragments_have_their_length_at_any_rate_up_to_the_last_sample(ramps, rate):
    longest = ramps[0].entries[0].samples(rate)
    for samples in (rate // 3, longest):
        item = TwoViewDataset(ramps, samples, rate)[Draw(0, 1)]
        assert item["clip1"].shape == item["clip2"].shape == (samples,) and item["failures"] == []
    assert longest == len(audio.read(ramps[0].entries[0].path, rate))


def test_a_short_file_is_repeated_not_padded(tmp_path):
    clip = np.linspace(0.1, 0.9, 3000, dtype=np.float32)
    audio.write(tmp_path / "d" / "s" / "a.wav", clip, 16000)
    groups = AudioIndex.scan([tmp_path / "d"]).groups
    item = TwoViewDataset(groups, 7000, 16000)[Draw(0, 0)]["clip1"].numpy()
    np.testing.assert_allclose(item, np.resize(clip / clip.max(), 7000), atol=1e-3)


def test_silent_places_are_drawn_again(tmp_path):
    clip = np.zeros(160000, np.float32)
    clip[60000:100000] = np.random.default_rng(0).uniform(-0.5, 0.5, 40000)
    audio.write(tmp_path / "d" / "s" / "a.wav", clip, 16000)
    dataset = TwoViewDataset(AudioIndex.scan([tmp_path / "d"]).groups, 4000, 16000, multi_epoch=50)
    for n in range(50):
        item = dataset[Draw(0, n)]
        assert item["clip1"].abs().max() == item["clip2"].abs().max() == 1 or item["failures"]


def test_a_file_that_fails_is_replaced_by_one_of_its_group_and_named(ramps):
    Path(ramps[0].entries[0].path).unlink()
    dataset = TwoViewDataset(ramps, 4000, 16000)
    item = dataset[Draw(0, 0)]
    assert item["index"] == 1 and item["group_name"] == "a"
    assert [(failure.path, failure.reason) for failure in item["failures"]] == [
        (ramps[0].entries[0].path, "no such file")
    ]
    assert item["clip1"].abs().max() == 1
    batch = collate([item, dataset[Draw(0, 2)]])
    assert batch["clip1"].shape == (2, 4000) and len(batch["failures"]) == 1
    assert batch["index"].tolist() == [1, 2] and batch["group_name"] == ["a", "b"]


def test_a_file_that_became_shorter_is_a_failure_not_silence(ramps):
    audio.write(ramps[0].entries[0].path, np.ones(9000, np.float32), 16000)
    dataset = TwoViewDataset(ramps, 8500, 16000)
    failures = [failure for e in range(10) for failure in dataset[Draw(e, 0)]["failures"]]
    assert failures and "ends before the 20000 samples" in failures[0].reason


def test_nan_from_an_augmentation_never_reaches_a_batch(ramps):
    def sometimes_nan(clip, sample_rate, rng):
        return clip * np.float32(np.nan) if rng.random() < 0.3 else clip

    dataset = TwoViewDataset(ramps, 4000, 16000, augmentation=sometimes_nan, multi_epoch=20)
    items = [dataset[Draw(0, n)] for n in range(80)]
    assert all(item["clip1"].isfinite().all() and item["clip2"].isfinite().all() for item in items)
    assert any("NaN" in failure.reason for item in items for failure in item["failures"])


@pytest.mark.parametrize("workers", [0, 1])
def test_when_nothing_can_be_read_training_stops_with_one_line(ramps, workers):
    for group in ramps:
        for entry in group.entries:
            Path(entry.path).unlink()
    dataset = TwoViewDataset(ramps, 4000, 16000)
    sampler = EpochSampler(dataset, 2, seed=0)
    with pytest.raises(InputError, match=r"^16 files in a row could not be read") as caught:
        list(DataLoader(dataset, 2, sampler=sampler, num_workers=workers, collate_fn=collate))
    assert "\n" not in str(caught.value) and "no such file" in str(caught.value)


def test_an_augmentation_must_keep_the_length(ramps):
    with pytest.raises(InputError, match=r"made \(3999,\) samples of 4000"):
        TwoViewDataset(ramps, 4000, 16000, augmentation=lambda clip, rate, rng: clip[1:])[Draw(0, 0)]
