import os
import pickle
import re
import resource
import struct

import numpy as np
import pytest
import soundfile
from helpers import tone
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import resample_poly

from ssl_audio import audio, media
from ssl_audio.audio import AudioError, AudioFile
from ssl_audio.errors import InputError

FORMATS = ["a.wav", "a.flac", "a.ogg", "a.mp3", "a.aiff", "a.aif", "a.opus", "a.au", "a.caf", "a.w64"]


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_written_and_read_back(tmp_path, name):
    rate = 48000
    clip = tone(2.0, rate)
    audio.write(tmp_path / name, clip, rate)
    back = audio.read(tmp_path / name)
    lossless = name not in ("a.ogg", "a.mp3", "a.opus")
    assert audio.info(tmp_path / name).sample_rate == rate
    assert back.dtype == np.float32
    assert len(back) == len(clip)
    assert np.abs(back - clip).max() < (1e-4 if lossless else 0.15)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("target", [48000, 44100])
def test_a_part_equals_the_same_part_of_the_whole(tmp_path, name, target):
    audio.write(tmp_path / name, np.stack([tone(4.0, 48000), tone(4.0, 48000, 330.0)], axis=1), 48000)
    whole = audio.read(tmp_path / name, target)
    with AudioFile(tmp_path / name) as file:
        for start in (0, 1, 17777, 2 * target, 4 * target - 30):  # any order, from one opened file
            part = file.read(start, 20000, target)
            np.testing.assert_allclose(part, whole[start : start + 20000], atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    rates=st.tuples(*[st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 48000, 96000])] * 2),
    start=st.integers(0, 60000),
    samples=st.integers(0, 30000),
)
def test_any_part_at_any_rate_has_the_samples_of_the_whole(tmp_path_factory, rates, start, samples):
    source, target = rates
    path = tmp_path_factory.getbasetemp() / f"noise-{source}.wav"
    if not path.exists():
        audio.write(path, np.random.default_rng(source).uniform(-0.5, 0.5, source), source, "FLOAT")
    whole = audio.read(path, target)
    assert len(whole) == target  # one second
    with AudioFile(path) as file:
        part = file.read(start, samples, target)
    np.testing.assert_allclose(part, whole[start : start + samples], atol=1e-5)


def test_resampling_agrees_with_scipy_and_keeps_the_pitch():
    clip = tone(1.0, 48000)
    ours, theirs = audio.resample(clip, 48000, 16000), resample_poly(clip, 1, 3)
    middle = slice(1000, -1000)
    assert len(ours) == len(theirs) == 16000
    assert np.sqrt(np.mean((ours - theirs)[middle] ** 2)) < 5e-3
    assert np.argmax(np.abs(np.fft.rfft(ours))) == 220


def test_all_channels_are_averaged(tmp_path):
    clip = np.random.default_rng(0).uniform(-1, 1, (1000, 5)).astype(np.float32)
    audio.write(tmp_path / "five.wav", clip, 8000, "FLOAT")
    np.testing.assert_allclose(audio.read(tmp_path / "five.wav"), clip.mean(1), atol=1e-6)


def test_only_the_part_is_decoded(tmp_path, monkeypatch):
    audio.write(tmp_path / "long.flac", tone(60.0), 16000)
    decoded = []
    original = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *a, **k: decoded.append(r := original(*a, **k)) or r)
    assert len(audio.read(tmp_path / "long.flac", 44100, start=44100 * 30, samples=44100)) == 44100
    assert sum(len(part) for part in decoded) < 16000 * 1.2


def test_reading_past_the_end_gives_what_is_there(tmp_path, write_tone):
    path = write_tone(tmp_path / "a.wav")
    with AudioFile(path) as file:
        assert len(file.read(15000, 4000)) == 1000
        assert len(file.read(16000, 4000)) == len(file.read(99999, 10, 44100)) == 0
    with pytest.raises(AudioError, match="no audio from sample 16000"):
        audio.read(path, start=16000)


def declares(table_line):
    """(frames, rate, channels) that an independent reading of the fixture gave, or None where it gave an error."""
    found = re.search(r"(\d+) Hz, (\d+) ch, (\d+) frames", table_line)
    return (int(found[3]), int(found[1]), int(found[2])) if found else None


# libsndfile cannot read these; PyAV can, where it is installed.
OF_PYAV = {
    "audiomentations/testing.m4a",
    "mutagen/no-tags.m4a",
    "mutagen/alac.m4a",
    "mutagen/silence-1.wma",
    "flac-testbench/uncommon_10_file_starting_at_frame_header.flac",
}


def test_every_odd_file_is_what_its_table_says_or_a_clean_error(shared):
    """No crash, no silence in place of audio, and no memory on the word of a header."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    folder = shared / "data" / "fixtures"
    lines = [line for line in (folder / "TABLE.md").read_text().splitlines() if line.startswith("| `")]
    assert len(lines) > 50
    for line in lines:
        name = line.split("`")[1]
        expected = declares(line)
        if name in OF_PYAV and media.AVAILABLE:
            declared = audio.info(folder / name).frames  # with the padding of the codec, which is not always there
            assert 16000 < declared - 1024 < len(audio.read(folder / name)) <= declared, name
        elif expected is None or expected[0] == 0 or "nonfinite" in line:
            with pytest.raises(AudioError) as caught:
                audio.read(folder / name)
            assert caught.value.reason and "\n" not in str(caught.value) and str(folder / name) in str(caught.value)
        else:
            clip = audio.read(folder / name)
            assert (len(clip), audio.info(folder / name).sample_rate) == expected[:2], name
            peak = float(re.search(r"peak ([\d.]+)", line)[1])
            assert np.isfinite(clip).all() and np.abs(clip).max() <= peak + 1e-4
            if expected[2] == 1:  # the mean of channels may be smaller, one channel may not
                assert np.abs(clip).max() == pytest.approx(peak, abs=1e-4), name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kilobytes"


def test_a_part_of_every_odd_file_equals_the_whole(shared):
    for path in audio.find_audio_files(shared / "data" / "fixtures"):
        try:
            whole = audio.read(path, 44100)
        except AudioError:
            continue
        start = len(whole) // 3
        with AudioFile(path) as file:
            part = file.read(start, 5000, 44100)
        np.testing.assert_allclose(part, whole[start : start + 5000], atol=2e-4 * max(1, np.abs(whole).max()))


def test_a_stream_of_undeclared_length_is_refused(tmp_path):
    audio.write(tmp_path / "a.flac", tone(3.0), 16000)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0  # STREAMINFO: 36 bits of total samples; 0 = unknown
    content[22:26] = bytes(4)
    (tmp_path / "stream.flac").write_bytes(content)
    with pytest.raises(AudioError, match="unknown length"):
        audio.info(tmp_path / "stream.flac")


def test_a_header_that_promises_more_than_the_file_holds(tmp_path, write_tone):
    content = bytearray(write_tone(tmp_path / "a.wav").read_bytes())
    content[40:44] = struct.pack("<I", 2**31)
    (tmp_path / "liar.wav").write_bytes(content)
    assert len(audio.read(tmp_path / "liar.wav")) == 16000


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), (b"", "empty"), (b"words\n", "cannot be opened")]
)
@pytest.mark.parametrize("name", ["x.wav", "x.mp3"])
def test_what_is_not_audio_says_so_in_one_line(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AudioError, match=reason) as caught:
        audio.info(path)
    assert "does not exist" not in caught.value.reason
    assert caught.value.path == str(path) and isinstance(caught.value, InputError)
    copy = pickle.loads(pickle.dumps(caught.value))  # comes back from a worker process
    assert (copy.path, copy.reason) == (caught.value.path, caught.value.reason)


def test_peak_normalize():
    assert np.abs(audio.peak_normalize(np.float32([0.1, -0.25]))).max() == 1
    assert not audio.peak_normalize(np.zeros(3, np.float32)).any()
    assert audio.peak_normalize(np.float32([0.1])).dtype == np.float32


def test_finding_files_is_sorted_and_survives_loops(tmp_path, write_tone):
    names = ["b/2.WAV", "b/10.flac", "a, b #1/歌.wav", "a, b #1/deep/er/x.mp3", ".hidden/x.wav", "b/.x.wav", "b/x.txt"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.symlink(tmp_path, tmp_path / "b" / "loop")
    found = [path.relative_to(tmp_path).as_posix() for path in audio.find_audio_files(tmp_path)]
    assert found == ["a, b #1/deep/er/x.mp3", "a, b #1/歌.wav", "b/10.flac", "b/2.WAV"]


def test_each_file_is_found_once_however_many_links_lead_to_it(tmp_path):
    home, elsewhere = tmp_path / "set", tmp_path / "elsewhere"
    for path in (home / "anna/1.wav", home / ".store/key", elsewhere / "2.wav", elsewhere / "deep/3.wav"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    os.symlink("anna", home / "zoe")  # what the folder itself has
    os.symlink("1.wav", home / "anna" / "same.wav")
    os.symlink("../.store/key", home / "anna" / "stored.wav")  # as git-annex keeps content
    os.symlink(elsewhere, home / "link")
    os.symlink(elsewhere, home / "link2")
    os.symlink(elsewhere / "2.wav", home / "anna" / "b.wav")
    found = [path.relative_to(home).as_posix() for path in audio.find_audio_files(home)]
    assert found == ["anna/1.wav", "anna/b.wav", "anna/stored.wav", "link/deep/3.wav"]


def test_a_missing_folder_and_a_file_in_its_place_are_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no such folder"):
        audio.find_audio_files(tmp_path / "nowhere")
    with pytest.raises(InputError, match="is a file"):
        audio.find_audio_files(tmp_path / "file")


def test_writing_refuses_what_it_cannot_write(tmp_path):
    with pytest.raises(InputError, match=r"use \.wav"):
        audio.write(tmp_path / "a.m4a", np.zeros(10, np.float32), 8000)
    with pytest.raises(InputError, match=r"a\.wav: cannot be written"):
        audio.write(tmp_path / "a.wav", np.zeros(10, np.float32), 8000, "VORBIS")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["a.ogg", "a.mp3", "a.opus", "a.flac"])
def test_seeking_never_gives_wrong_samples(tmp_path, name):
    """libsndfile's own Vorbis seek gives a wrong first block about one time in ten."""
    rng = np.random.default_rng(0)
    audio.write(tmp_path / name, rng.uniform(-0.5, 0.5, 48000 * 10).astype(np.float32), 48000)
    whole = audio.read(tmp_path / name)
    with AudioFile(tmp_path / name) as file:
        for start in rng.integers(0, 470000, 100):
            np.testing.assert_allclose(file.read(start, 3000), whole[start : start + 3000], atol=1e-5)


def test_a_part_of_an_mp3_is_right_from_its_first_sample(tmp_path):
    """Frames of a tone leave bits to those that follow: without a lead-in one seek in 200 gave 15 ms of noise."""
    rng = np.random.default_rng(0)
    time = np.arange(16000 * 6) / 16000
    for frequency in (200, 400, 600, 800):
        tone = 0.3 * np.sin(2 * np.pi * frequency * time) + 0.03 * rng.standard_normal(len(time))
        audio.write(tmp_path / "a.mp3", tone.astype(np.float32), 16000)
        whole = audio.read(tmp_path / "a.mp3")
        with AudioFile(tmp_path / "a.mp3") as file:
            for start in rng.integers(0, 90000, 200):
                np.testing.assert_allclose(file.read(start, 500), whole[start : start + 500], atol=1e-4)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (24000, 1), (48000, 2)])
def test_a_part_of_an_mp3_of_few_bits_is_right_too(tmp_path, rate, channels):
    """The fewer bits a frame has of its own, the more frames before it hold what it needs."""
    pytest.importorskip("soundfile", "0.13", reason="no choice of a bit rate")
    rng = np.random.default_rng(0)
    tone = 0.3 * np.sin(2 * np.pi * 600 * np.arange(6 * rate) / rate) + 0.03 * rng.standard_normal(6 * rate)
    clip = np.stack([tone, tone[::-1]][:channels], axis=1).astype(np.float32)
    soundfile.write(tmp_path / "a.mp3", clip, rate, bitrate_mode="CONSTANT", compression_level=0.99)
    whole = audio.read(tmp_path / "a.mp3")
    with AudioFile(tmp_path / "a.mp3") as file:
        for start in rng.integers(0, 5 * rate, 60):
            np.testing.assert_allclose(file.read(start, 500), whole[start : start + 500], atol=1e-4)
