"""The two preparation scripts as a user calls them, against a plain reference of the published naming rules."""

import csv
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import REPOSITORY, tone

from ssl_audio import audio
from ssl_audio.cli import run_command

ROOT = REPOSITORY


def preprocess(root, name, *more, seconds=2, rate=8000):
    arguments = ["--dataset_root_dir", root, "--dataset_name", name, "--segment_length", seconds, "--sample_rate", rate]
    return run_command("preprocess", [str(a) for a in (*arguments, *more)], "preprocess_dataset.py")


def pairs(*arguments):
    return run_command("pairs", [str(argument) for argument in arguments], "create_speaker_pairs.py")


def written(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.wav"))


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        ("singers", "Ana/take, one.wav", "Ana/Ana-takeone"),
        ("singers", "Ana/low notes/1.flac", "Ana/Ana-lownotes-1"),
        ("singers", "Ana/a/b/1.wav", "Ana/Ana-a-b-1"),
        ("singers", "A, B #1/歌.ogg", "AB#1/AB#1-歌"),
        ("my_m4singer", "Alto-7#美错/0005.wav", "Alto-7/Alto-7#美错-0005"),
        ("m4singer", "Tenor-1#Hello, World/0000.wav", "Tenor-1/Tenor-1#HelloWorld-0000"),
        ("vocalset", "female8/scales/lip_trill/f8_scales_lip_trill_e.wav", "female8/f8_scales_lip_trill_e"),
    ],
)
def test_names_are_the_published_ones(tmp_path, write_tone, name, source, expected):
    write_tone(tmp_path / name / source, seconds=5.5)
    assert preprocess(tmp_path, name) == 0
    assert written(tmp_path / f"{name}_renamed_split_2s") == [f"{expected}_0_2_2s.wav", f"{expected}_2_4_2s.wav"]


def test_segments_are_the_recording_resampled_and_nothing_is_lost_between_them(tmp_path):
    recording = np.stack([tone(9.3, 44100), tone(9.3, 44100, 500.0)], axis=1)
    (tmp_path / "d" / "s").mkdir(parents=True)
    soundfile.write(tmp_path / "d" / "s" / "x.wav", recording, 44100)
    assert preprocess(tmp_path, "d", seconds=3, rate=16000) == 0
    folder = tmp_path / "d_renamed_split_3s" / "s"
    parts = [soundfile.read(folder / f"s-x_{n}_{n + 3}_3s.wav", dtype="float32") for n in (0, 3, 6)]
    assert {rate for _, rate in parts} == {16000} and {part.shape for part, _ in parts} == {(48000,)}
    together = np.concatenate([part for part, _ in parts])
    whole = audio.resample(recording.mean(1).astype(np.float32), 44100, 16000)
    np.testing.assert_allclose(together, whole[: len(together)], atol=2e-4)


def test_a_long_recording_is_read_in_parts_that_fit_together(tmp_path, monkeypatch, write_tone):
    write_tone(tmp_path / "d" / "s" / "x.flac", seconds=20)
    preprocess(tmp_path, "d")
    one = {path.name: path.read_bytes() for path in (tmp_path / "d_renamed_split_2s").rglob("*.wav")}
    monkeypatch.setattr("ssl_audio.commands.preprocess._MAX_SECONDS_IN_MEMORY", 4)
    for path in (tmp_path / "d_renamed_split_2s").rglob("*.wav"):
        path.unlink()
    preprocess(tmp_path, "d")
    assert len(one) == 10 and sorted(one) == sorted(p.name for p in (tmp_path / "d_renamed_split_2s").rglob("*.wav"))
    for path in (tmp_path / "d_renamed_split_2s").rglob("*.wav"):
        a, b = (np.frombuffer(content[44:], np.int16).astype(int) for content in (one[path.name], path.read_bytes()))
        assert np.abs(a - b).max() <= 1


def test_finished_recordings_are_skipped_and_changed_ones_are_not(tmp_path, write_tone, capsys):
    for name in ("a", "b"):
        write_tone(tmp_path / "d" / "s" / f"{name}.wav", seconds=4)
    preprocess(tmp_path, "d")
    folder = tmp_path / "d_renamed_split_2s" / "s"
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    (folder / "s-b_2_4_2s.wav").unlink()
    preprocess(tmp_path, "d")
    again = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name for name in times if times[name] == again[name]} == {"s-a_0_2_2s.wav", "s-a_2_4_2s.wav"}
    assert "4 segments of 2 recordings" in capsys.readouterr().out
    preprocess(tmp_path, "d", rate=16000)  # the folder's name does not say the rate, the files do
    assert {audio.info(path).sample_rate for path in folder.iterdir()} == {16000}


def test_a_replaced_recording_is_cut_again_and_left_over_segments_are_named(tmp_path, write_tone, capsys):
    home = tmp_path / "d" / "s"
    for name in ("a", "b", "c"):
        write_tone(home / f"{name}.wav", seconds=4)
    preprocess(tmp_path, "d")
    folder = tmp_path / "d_renamed_split_2s" / "s"
    before = (folder / "s-b_0_2_2s.wav").read_bytes()
    (home / "a.wav").unlink()
    write_tone(home / "b.wav", seconds=5, frequency=900)
    os.utime(home / "b.wav", (1577836800,) * 2)  # older than its segments
    write_tone(home / "c.wav", seconds=2)
    capsys.readouterr()
    preprocess(tmp_path, "d")
    assert (folder / "s-b_0_2_2s.wav").read_bytes() != before
    said = capsys.readouterr().out
    assert "3 segments in " in said and "gone or were longer, the first: s/s-a_0_2_2s.wav" in said


def test_what_cannot_be_used_is_listed_and_the_exit_status_says_so(tmp_path, write_tone, capsys):
    write_tone(tmp_path / "d" / "s" / "good.wav", seconds=4)
    write_tone(tmp_path / "d" / "s" / "short.wav", seconds=1)
    assert preprocess(tmp_path, "d") == 0
    (tmp_path / "d" / "s" / "text.wav").write_text("words")
    write_tone(tmp_path / "d" / "s" / "good.flac", seconds=4)
    write_tone(tmp_path / "d" / "loose.wav", seconds=4)
    assert preprocess(tmp_path, "d") == 1
    with open(tmp_path / "d_renamed_split_2s" / "data_report.csv", encoding="utf-8") as file:
        reasons = {Path(row["path"]).name: row["reason"] for row in csv.DictReader(file)}
    assert set(reasons) == {"short.wav", "text.wav", "good.wav", "loose.wav"}
    assert "4 files left out" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["nowhere", "empty", "texts", "clash"])
def test_nothing_to_do_is_one_line(tmp_path, write_tone, capsys, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts" / "s").mkdir(parents=True)
    (tmp_path / "texts" / "s" / "a.wav").write_text("words")
    for folder in ("A B", "A,B"):
        write_tone(tmp_path / "clash" / folder / "a.wav", seconds=4)
    assert preprocess(tmp_path, name) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1 and str(tmp_path / name) in message


def test_a_slash_at_the_end_of_the_name_changes_nothing_and_no_workers_are_refused(tmp_path, write_tone, capsys):
    write_tone(tmp_path / "d" / "s" / "a.wav", seconds=2)
    assert preprocess(tmp_path, "d/") == 0
    assert written(tmp_path) == ["d/s/a.wav", "d_renamed_split_2s/s/s-a_0_2_2s.wav"]
    assert preprocess(tmp_path, "d", "--workers", -2) == 2
    assert capsys.readouterr().err == "error: --workers is -2; it must be at least 1\n"


def test_a_full_disk_leaves_only_whole_segments(tmp_path, write_tone):
    """Files may grow to 100 kB only, as on a disk that is full; run again without the limit, all is there."""
    write_tone(tmp_path / "d" / "s" / "a.wav", seconds=2)
    write_tone(tmp_path / "d" / "s" / "b.wav", seconds=8)
    command = [sys.executable, ROOT / "preprocess_dataset.py", "--dataset_root_dir", tmp_path, "--dataset_name", "d"]

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    run = subprocess.run(
        [*map(str, command), "--segment_length", "4", "--workers", "1"],
        preexec_fn=limited,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 2 and run.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in run.stderr
    assert not [path for path in (tmp_path / "d_renamed_split_4s").rglob("*") if path.is_file()]
    assert preprocess(tmp_path, "d", seconds=4) == 0
    assert len(written(tmp_path / "d_renamed_split_4s")) == 2


def test_no_clean_keeps_the_renamed_recordings(tmp_path, write_tone):
    write_tone(tmp_path / "d" / "s s" / "a, b.wav", seconds=4)
    assert preprocess(tmp_path, "d", "--no-clean") == 0
    source = (tmp_path / "d" / "s s" / "a, b.wav").read_bytes()
    assert (tmp_path / "d_renamed" / "ss" / "ss-ab.wav").read_bytes() == source


def read_trials(path):
    rows = [line.split(",") for line in path.read_text(encoding="utf-8").splitlines()]
    assert all(len(row) == 3 for row in rows)
    return rows


def test_trials_are_half_same_half_different_and_name_files_that_exist(singers, tmp_path):
    assert pairs("-r", singers, "-o", tmp_path / "meta", "-n", 5, "-p", 2000, "-s", 1) == 0
    trials = read_trials(tmp_path / "meta" / "singers" / "speaker_pairs.txt")
    assert len(trials) == 2000 and abs(sum(label == "1" for label, _, _ in trials) - 1000) < 150
    for label, first, second in trials:
        assert first != second and (singers / first).is_file() and (singers / second).is_file()
        assert (first.split("/")[0] == second.split("/")[0]) == (label == "1")
    assert len({path for trial in trials for path in trial[1:]}) == 20


def test_trials_depend_on_the_seed_and_the_names_alone(tmp_path):
    names = [f"{singer}/{song}.wav" for singer in ("Zoë", "b c", "歌") for song in ("1", "x y", "10")]
    for folder, order in (("one", names), ("two", names[::-1])):
        for name in order:
            path = tmp_path / folder / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        assert pairs("-r", tmp_path / folder / "set", "-o", tmp_path / folder, "-p", 300, "-s", 5) == 0
    one, two = ((tmp_path / folder / "set" / "speaker_pairs.txt").read_text() for folder in ("one", "two"))
    assert one == two
    pairs("-r", tmp_path / "one" / "set", "-o", tmp_path / "one", "-p", 300, "-s", 6)
    assert (tmp_path / "one" / "set" / "speaker_pairs.txt").read_text() != one


def test_fewer_singers_are_drawn_when_asked(singers, tmp_path):
    pairs("-r", singers, "-o", tmp_path, "-n", 2, "-p", 200)
    trials = read_trials(tmp_path / "singers" / "speaker_pairs.txt")
    assert len({path.split("/")[0] for trial in trials for path in trial[1:]}) == 2


@pytest.mark.parametrize(
    ("files", "more", "message"),
    [
        (["a/1.wav", "a/2.wav"], [], "1 singers; trials of different singers need"),
        (["a/1.wav", "b/1.wav"], [], "no singer has two files"),
        (["a/1.wav", "a/2.wav", "b/1.wav"], ["-n", "3"], "has 2 singers, fewer than -n 3"),
        (["a/1,2.wav", "a/2.wav", "b/1.wav"], [], "cannot hold a comma"),
        (["a/1.wav"], ["-p", "0"], "-p is 0"),
        ([], [], "no such folder"),
    ],
)
def test_impossible_trials_are_one_line(tmp_path, capsys, files, more, message):
    for name in files:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert pairs("-r", tmp_path / "set", "-o", tmp_path / "out", *more) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_singer_with_one_file_is_only_in_trials_of_different_singers(tmp_path):
    for name in ("a/1.wav", "a/2.wav", "b/1.wav"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).touch()
    pairs("-r", tmp_path / "set", "-o", tmp_path, "-p", 50)
    same = [trial for trial in read_trials(tmp_path / "set" / "speaker_pairs.txt") if trial[0] == "1"]
    assert same and all(trial[1].startswith("a/") for trial in same)


def test_trials_go_by_the_recordings_of_the_table(tmp_path, write_tone):
    lines = ["path,recording"]
    for singer in "ab":
        for n in range(4):
            write_tone(tmp_path / "set" / singer / f"{n}.wav", seconds=0.1)
            lines.append(f"{singer}/{n}.wav,take {n // 2}")
    (tmp_path / "set" / "manifest.csv").write_text("\n".join(lines) + "\n")
    assert pairs("-r", tmp_path / "set", "-o", tmp_path / "out", "-p", 200) == 0
    listed = [line.split(",") for line in (tmp_path / "out/set/speaker_pairs.txt").read_text().splitlines()]
    takes = [{int(Path(name).stem) // 2 for name in files} for label, *files in listed if label == "1"]
    assert len(takes) > 50 and all(len(both) == 2 for both in takes)


def test_the_flags_of_the_original_are_taken_and_the_next_command_finds_the_list(tmp_path, write_tone, capsys):
    for name in ("a/1.wav", "a/2.wav", "b/1.wav"):
        write_tone(tmp_path / "my set" / name, seconds=2.5)
    assert preprocess(tmp_path, "my set", "--metadata_path_dir", tmp_path / "metadata", "--clean") == 0
    folder = tmp_path / "my set_renamed_split_2s"
    assert pairs("-r", folder, "-o", tmp_path / "meta data", "-n", 2, "-p", 10, "-s", 123) == 0
    words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert words[:3] == ["next:", "ssl-audio", "eval"]
    given = dict(zip(words[3::2], words[4::2], strict=True))
    assert Path(given["-r"], given["-d"]) == folder
    assert (Path(given["-meta"], given["-d"]) / "speaker_pairs.txt").is_file()
