"""The store of decoded recordings: equal to the recordings, rebuilt when they change, never trusted when damaged."""

import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import tone

from ssl_audio import audio
from ssl_audio.audio import AudioError
from ssl_audio.cli import main
from ssl_audio.data import AudioDataModule, store
from ssl_audio.data.dataset import TwoViewDataset
from ssl_audio.data.index import AudioIndex
from ssl_audio.data.sampler import Draw
from ssl_audio.data.store import STORE_NAME, StoredFile, attach, build, stored_path
from ssl_audio.data.windows import WindowDataModule


def copies(folder, rate=16000):
    """Stored path by the recording's path in its data set, of those that are current."""
    index, _, _ = attach(AudioIndex.scan([folder]), rate)
    return {
        Path(e.path).relative_to(folder).as_posix(): e.location.path
        for group in index.groups
        for e in group.entries
        if e.location
    }


def test_a_copy_equals_its_recording(tmp_path):
    loud = np.concatenate([tone(1.0), np.float32([1.7, -1.9])])
    stereo = np.stack([tone(2.0, 44100), 1e-3 * tone(2.0, 44100, 300.0)], 1)
    for name, clip, rate, subtype in (
        ("exact.wav", tone(2.0), 16000, "PCM_16"),
        ("loud.wav", loud, 16000, "FLOAT"),
        ("quiet.flac", 1e-2 * tone(1.0), 16000, "PCM_24"),
        ("stereo 歌, #1.flac", stereo, 44100, "PCM_16"),
    ):
        audio.write(tmp_path / "d" / "s" / name, clip, rate, subtype)
    assert build(tmp_path / "d", 16000)[:2] == (4, 4)
    for name, path in copies(tmp_path / "d").items():
        recording = audio.read(tmp_path / "d" / name, 16000)
        with StoredFile(path) as file:
            copy = file.read(0, 1 << 40, 16000)
            part = file.read(5000, 900, 16000)
            assert len(file.read(len(copy), 10, 16000)) == len(file.read(10**9, 10, 16000)) == 0
        np.testing.assert_array_equal(part, copy[5000:5900])
        error = np.abs(copy - recording).max()
        assert len(copy) == len(recording) and error <= np.abs(recording).max() / 65000, name
        assert error == 0 or name != "s/exact.wav"


def test_training_sees_the_same_fragments_with_and_without(singers):
    groups = AudioIndex.scan([singers]).groups
    before = [TwoViewDataset(groups, 4000, 16000)[Draw(0, n)] for n in range(20)]
    build(singers, 16000)
    for entry in (entry for group in groups for entry in group.entries):
        Path(entry.path).rename(entry.path + ".away")  # whoever opens a recording now fails
    index, found, missing = attach(AudioIndex(groups), 16000)
    assert (found, missing) == (20, 0)
    after = [TwoViewDataset(index.groups, 4000, 16000)[Draw(0, n)] for n in range(20)]
    for one, other in zip(before, after, strict=True):
        assert other["failures"] == [] and np.array_equal(one["clip1"], other["clip1"])


def test_another_rate_is_not_used(singers):
    build(singers, 16000)
    assert len(copies(singers)) == 20 and copies(singers, 8000) == {}


def test_only_what_changed_is_copied_again_and_what_is_gone_goes(singers, write_tone):
    assert build(singers, 16000)[:2] == (20, 20)
    assert build(singers, 16000)[:2] == (20, 0)
    write_tone(singers / "singer 1" / "song2.wav", seconds=2.0)
    (singers / "singer 0" / "song0.wav").unlink()
    _, found, missing = attach(AudioIndex.scan([singers]), 16000)
    assert (found, missing) == (18, 1)
    assert build(singers, 16000)[:2] == (19, 1)
    assert len(list((singers / STORE_NAME).rglob("*.int16"))) == 19
    with StoredFile(stored_path(singers, singers / "singer 1" / "song2.wav", 16000)) as file:
        assert file.header.samples == 32000


@pytest.mark.parametrize("damage", ["cut", "grown", "empty", "version", "words"])
def test_a_damaged_copy_is_not_used_and_is_made_again(singers, damage):
    build(singers, 16000)
    path = Path(stored_path(singers, singers / "singer 2" / "song1.wav", 16000))
    content = path.read_bytes()
    version = b"sslaudio0\n" + content[10:]
    changed = {"cut": content[:-1], "grown": content + b"\0", "empty": b"", "version": version, "words": b"x"}
    path.write_bytes(changed[damage])
    with pytest.raises(AudioError, match="run ssl-audio cache again"):
        StoredFile(path)
    assert len(copies(singers)) == 19
    assert build(singers, 16000)[:2] == (20, 1)
    assert path.read_bytes() == content


def test_a_flipped_bit_is_found_by_check(singers):
    build(singers, 16000)
    path = Path(stored_path(singers, singers / "singer 2" / "song1.wav", 16000))
    content = bytearray(path.read_bytes())
    content[5000] ^= 1
    path.write_bytes(content)
    assert build(singers, 16000)[1] == 0
    assert build(singers, 16000, check=True)[1] == 1
    assert build(singers, 16000, check=True)[1] == 0


def test_long_recordings_are_copied_in_parts(tmp_path, monkeypatch):
    audio.write(tmp_path / "d" / "s" / "a.flac", tone(9.5, 44100), 44100)
    build(tmp_path / "d", 16000)
    path = Path(stored_path(tmp_path / "d", tmp_path / "d" / "s" / "a.flac", 16000))
    with StoredFile(path) as file:
        whole = file.read(0, 1 << 40, 16000)
    path.unlink()
    monkeypatch.setattr(store, "_SECONDS_AT_ONCE", 2)
    build(tmp_path / "d", 16000)
    with StoredFile(path) as file:
        np.testing.assert_allclose(file.read(0, 1 << 40, 16000), whole, atol=5e-5)
        assert file.check()


def test_the_command_says_what_it_did_and_training_uses_it(singers, capsys, monkeypatch):
    (singers / "singer 0" / "text.wav").write_text("words")
    assert main(["cache", str(singers), "--sample_rate", "16000"]) == 1
    assert "20 recordings at 16000 Hz (20 new), 1 left out" in capsys.readouterr().out
    data = AudioDataModule([str(singers)], 16000, 4000, batch_size=4, num_workers=0)
    data.setup()
    monkeypatch.setattr(soundfile, "SoundFile", None)  # no recording is opened from now on
    batch = next(iter(data.train_dataloader()))
    assert batch["clip1"].shape == (4, 4000) and batch["failures"] == []
    assert main(["cache", "nowhere"]) == 2 and capsys.readouterr().err == "error: nowhere: no such folder\n"
    assert main(["cache", __file__]) == 2 and capsys.readouterr().err.endswith("is a file where a folder is needed\n")


def test_a_full_disk_is_one_line_and_the_next_run_goes_on(tmp_path, write_tone):
    write_tone(tmp_path / "d" / "s" / "a.wav", seconds=1)
    write_tone(tmp_path / "d" / "s" / "b.wav", seconds=8)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
        "from ssl_audio.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["cache", str(tmp_path / "d"), "--sample_rate", "16000", "--workers", "1"]
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert run.returncode == 2 and run.stderr.splitlines()[-1].startswith(f"error: {tmp_path / 'd'}: ")
    assert "Traceback" not in run.stderr
    assert list(copies(tmp_path / "d")) == ["s/a.wav"] and not list((tmp_path / "d").rglob(".partial*"))
    assert main(arguments) == 0 and len(copies(tmp_path / "d")) == 2


def test_two_builds_at_once_leave_each_other_s_half_copies_alone(tmp_path, write_tone):
    write_tone(tmp_path / "d" / "s" / "a.wav")
    place = tmp_path / "d" / STORE_NAME / "16000" / "s"
    place.mkdir(parents=True)
    growing, left = place / ".partial-now.int16", place / ".partial-old.int16"
    growing.write_bytes(b"1"), left.write_bytes(b"2")
    os.utime(left, (1e9, 1e9))  # of a process that was killed
    assert build(tmp_path / "d", 16000)[:2] == (1, 1)
    assert growing.exists() and not left.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_no_encoding_has_is_read_like_any_other(tmp_path, write_tone):
    write_tone(tmp_path / "d" / "s" / "a.wav")
    shutil.copy(tmp_path / "d" / "s" / "a.wav", os.fsencode(tmp_path / "d" / "s") + b"/latin\xe9.wav")
    command = [sys.executable, "-m", "ssl_audio.cli", "cache", str(tmp_path / "d"), "--sample_rate", "16000"]
    run = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    )
    assert run.returncode == 0, run.stderr
    assert "2 recordings" in run.stdout


def test_copies_lie_elsewhere_when_the_data_may_not_be_written(singers, tmp_path, capsys, monkeypatch):
    def refuse(path, **_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    command, store_dir = ["cache", str(singers), "--sample_rate", "16000"], tmp_path / "store"
    with monkeypatch.context() as patch:
        patch.setattr(store.os, "makedirs", refuse)
        assert main(command) == 2
    told = r"error: .*16000: cannot be written \(Read-only file system\); .*--store DIR, .*--data.store DIR\n"
    assert re.fullmatch(told, capsys.readouterr().err)
    assert main([*command, "--store", str(store_dir)]) == 0 and not (singers / STORE_NAME).exists()
    shutil.copytree(singers, tmp_path / "other" / singers.name)  # of the same name, in the same store
    assert main(["cache", str(tmp_path / "other" / singers.name), *command[2:], "--store", str(store_dir)]) == 0
    capsys.readouterr()
    assert main([*command, "--store", str(store_dir), "--check"]) == 0 and " (0 new)" in capsys.readouterr().out
    next(store_dir.rglob("song0.wav.int16")).unlink()
    next(store_dir.rglob("song1.wav.int16")).unlink()
    data = AudioDataModule([str(singers)], 16000, 4000, batch_size=4, num_workers=0, store=str(tmp_path / "nowhere"))
    with pytest.warns(UserWarning, match="20 recordings have no current copy .* --store .*nowhere"):
        data.setup()
    assert main([*command, "--store", str(store_dir)]) == 0
    monkeypatch.setattr(soundfile, "SoundFile", None)  # no recording is opened from now on
    data = AudioDataModule([str(singers)], 16000, 4000, batch_size=4, num_workers=0, store=str(store_dir))
    data.setup()
    assert next(iter(data.train_dataloader()))["failures"] == []


def test_windows_train_without_a_cache_that_cannot_be_written(singers, monkeypatch):
    (singers / STORE_NAME).write_text("in the way")
    data = WindowDataModule([str(singers)], nr_samples=4000, cache=True, num_workers=0)
    with pytest.warns(UserWarning, match="cannot be written .* recordings are decoded each time"):
        data.prepare_data()


@pytest.mark.parametrize("workers", ["0", "-2"])
def test_no_workers_is_one_line(singers, capsys, workers):
    assert main(["cache", str(singers), "--workers", workers]) == 2
    assert capsys.readouterr().err == f"error: --workers is {workers}; it must be at least 1\n"
