import json
import random
import shutil
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_audio import audio, media
from ssl_audio.audio import AudioFile
from ssl_audio.data import scan
from ssl_audio.data.index import AudioEntry, AudioIndex, Group
from ssl_audio.data.sampler import EpochSampler
from ssl_audio.data.scan import cache_path, inspect, scan_folder
from ssl_audio.errors import InputError


@pytest.fixture
def opened(monkeypatch):
    """Names of the files that are opened from now on."""
    names = []
    original = AudioFile.__init__
    monkeypatch.setattr(AudioFile, "__init__", lambda self, path: names.append(str(path)) or original(self, path))
    return names


def test_a_second_start_opens_nothing_and_a_change_opens_one_file(singers, opened, write_tone):
    first = scan_folder(singers)
    assert len(opened) == len(first) == 20
    opened.clear()
    assert scan_folder(singers) == first and opened == []
    changed = write_tone(singers / "singer 1" / "song2.wav", seconds=2.0)
    (singers / "singer 0" / "song0.wav").unlink()
    facts = {fact.path: fact for fact in scan_folder(singers)}
    assert opened == [str(changed)] and len(facts) == 19 and facts["singer 1/song2.wav"].frames == 32000
    opened.clear()
    assert len(scan_folder(singers)) == 19 and opened == []


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 1}', '{"version": 1, "files": [["a"]]}', '{"version": 0}']
)
def test_a_broken_cache_is_made_anew(singers, content):
    first = scan_folder(singers)
    cache_path(singers).write_text(content)
    assert scan_folder(singers) == first
    assert len(json.loads(cache_path(singers).read_text())["files"]) == 20


def test_nothing_is_written_among_the_recordings(singers, opened, caplog):
    before = sorted(singers.rglob("*"))
    first = scan_folder(singers)
    assert sorted(singers.rglob("*")) == before
    cache_path(singers).unlink()
    cache_path(singers).mkdir()  # cannot be replaced by a file: as a cache folder that may not be written
    assert scan_folder(singers) == first and "could not be kept" in caplog.text


def test_an_interrupted_scan_keeps_what_it_has_seen(singers, monkeypatch, opened):
    original = scan.inspect
    monkeypatch.setattr(scan, "inspect", lambda path: 1 / 0 if path.endswith("singer 3/song0.wav") else original(path))
    with pytest.raises(ZeroDivisionError):
        scan_folder(singers, workers=1)
    monkeypatch.undo()
    assert len(json.loads(cache_path(singers).read_text())["files"]) == 12


def test_second_microphones_json_and_hidden_files_are_no_recordings(singers, write_tone):
    for name in ("p225_mic2.flac", "a.json.wav", ".hidden.wav", "notes.txt"):
        write_tone(singers / "singer 0" / name) if name != "notes.txt" else (singers / name).touch()
    assert len(scan_folder(singers)) == 20


def test_every_odd_file_has_facts_or_a_reason(shared, tmp_path):
    shutil.copytree(shared / "data" / "fixtures", tmp_path / "odd")
    facts = scan_folder(tmp_path / "odd")
    assert len(facts) > 50
    for fact in facts:
        if fact.problem:
            assert fact.frames == 0 and "\n" not in fact.problem
        else:
            missing = fact.frames - len(audio.read(tmp_path / "odd" / fact.path))
            assert missing == 0 or (fact.path.endswith((".m4a", ".wma")) and 0 < missing < 1024), fact.path
    problems = {fact.path: fact.problem for fact in facts}
    assert problems["audiomentations/testing.m4a"] == ("" if media.AVAILABLE else audio.UNDECODABLE)
    assert "silent" in problems["audiomentations/digital_silence.wav"]
    assert "NaN" in problems["derived/float_nan_inf.wav"]
    assert problems["derived/truncated_half.wav"].startswith("is cut off: 15999 bytes")
    assert problems["derived/data_size_ffffffff.wav"] == ""  # what a pipe leaves, no promise


@pytest.mark.parametrize("loud_at", [None, 5, 61, 119])
def test_a_long_file_is_silent_only_if_all_of_it_is(tmp_path, loud_at):
    clip = np.zeros(8000 * 120, np.float32)
    if loud_at:
        clip[8000 * loud_at : 8000 * loud_at + 100] = 0.5
    audio.write(tmp_path / "a.flac", clip, 8000)
    frames, rate, problem = inspect(tmp_path / "a.flac")
    assert (frames, rate, problem) == (len(clip), 8000, "") if loud_at else problem.startswith("is silent")


def test_a_long_file_cut_short_is_noticed(tmp_path):
    audio.write(tmp_path / "a.flac", np.random.default_rng(0).uniform(-1, 1, 8000 * 100).astype(np.float32), 8000)
    content = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(content[: len(content) // 2])
    assert "cannot be decoded" in inspect(tmp_path / "a.flac")[2]


def test_groups_are_first_level_folders_at_any_depth_of_files(tmp_path, write_tone):
    for name in ("A/1.wav", "A/x/2.flac", "A/x/y/3.wav", "B b, #/歌.ogg", "C/x/4.aiff", "loose.wav"):
        write_tone(tmp_path / "set" / name)
    index = AudioIndex.scan([tmp_path / "set"])
    assert {group.name: len(group.entries) for group in index.groups} == {"A": 3, "B b, #": 1, "C": 1}
    assert [item.path for item in index.left_out] == [str(tmp_path / "set" / "loose.wav")]
    alone = AudioIndex.scan([tmp_path / "set"], group_by_artist=False)
    assert [len(group.entries) for group in alone.groups] == [1] * 6
    unnamed = AudioIndex.scan([tmp_path / "set"], group_name_is_folder=False)
    assert [group.name for group in unnamed.groups] == ["unknown"] * 3


def test_singers_of_the_same_name_in_two_data_sets_are_two(tmp_path, write_tone):
    for name in ("one/S1", "one/S2", "two/S1"):
        write_tone(tmp_path / name / "a.wav")
    index = AudioIndex.scan([tmp_path / "one", tmp_path / "two"])
    assert [group.name for group in index.groups] == ["one/S1", "S2", "two/S1"]
    with pytest.raises(InputError, match="twice"):
        AudioIndex.scan([tmp_path / "one", tmp_path / "two" / ".." / "one"])


def make(counts):
    """An index of data sets with so many groups of one file each."""
    return [
        Group(f"s{n}", f"set{d}/s{n}", d, (AudioEntry(f"{d}/{n}", 16000, 16000),))
        for d, count in enumerate(counts)
        for n in range(count)
    ]


@given(st.lists(st.integers(1, 30), min_size=1, max_size=3), st.floats(0, 0.99), st.integers(0, 50))
def test_the_split_takes_a_share_of_each_data_set_in_any_order(counts, eval_frac, seed):
    groups = make(counts)
    train, val = AudioIndex(groups).split(eval_frac, seed)
    assert sorted(train + val) == sorted(groups)
    for d, count in enumerate(counts):
        held_out = sum(group.dataset == d for group in val)
        assert abs(held_out - eval_frac * count) <= 1
        assert count == 1 or eval_frac == 0 or 0 < held_out < count
    random.Random(seed).shuffle(groups)
    assert set(AudioIndex(groups).split(eval_frac, seed)[1]) == set(val)


def test_the_split_is_the_one_it_always_was():
    """Pinned: another split would put singers of an old run's validation set into training."""
    assert [group.name for group in AudioIndex(make([10])).split(0.3, seed=123)[1]] == ["s5", "s6", "s7"]
    assert AudioIndex(make([10])).split(0.3, seed=124)[1] != AudioIndex(make([10])).split(0.3, seed=123)[1]


def test_accents_are_the_same_however_a_file_system_stores_them(tmp_path, write_tone):
    splits = []
    for form in ("NFC", "NFD"):
        for name in ("Zoë", "André", "Jürgen", "Ana", "Bo", "Éva"):
            write_tone(tmp_path / form / "set" / unicodedata.normalize(form, name) / "a.wav", seconds=0.2)
        train, val = AudioIndex.scan([tmp_path / form / "set"]).split(0.5, 3)
        splits.append([[unicodedata.normalize("NFC", group.name) for group in side] for side in (train, val)])
    assert splits[0] == splits[1]


@given(st.integers(1, 60), st.integers(1, 8), st.integers(1, 4), st.integers(0, 3))
def test_processes_share_every_epoch_equally(items, batch_size, world, epoch):
    for drop_last in (True, False):
        seen = []
        for rank in range(world):
            sampler = EpochSampler(range(items), batch_size, 5, True, drop_last, num_replicas=world, rank=rank)
            sampler.set_epoch(epoch)
            draws = list(sampler)
            assert len(draws) == len(sampler) and {draw.epoch for draw in draws} <= {epoch}
            assert not drop_last or len(draws) % batch_size == 0
            seen.append([draw.item for draw in draws])
        together = [item for part in seen for item in part]
        assert len(set(together)) == len(together) and len({len(part) for part in seen}) == 1
        assert items - len(together) < (world * batch_size if drop_last else world)
        middle = len(seen[0]) // 2 // batch_size * batch_size
        for rank in range(world):
            sampler = EpochSampler(range(items), batch_size, 5, True, drop_last, num_replicas=world, rank=rank)
            sampler.resume(epoch, middle * world)
            assert [draw.item for draw in sampler] == seen[rank][middle:]
            sampler.set_epoch(epoch + 1)
            assert len(list(sampler)) == len(sampler)


def test_a_folder_inside_another_is_refused_so_that_no_file_counts_twice(singers):
    inner = next(path for path in singers.iterdir() if path.is_dir())
    with pytest.raises(InputError, match=r"lies in .* its files would count twice"):
        AudioIndex.scan([singers, inner], progress=False)
