"""Files as they come from other machines: any name, any suffix, macOS's companions, channels that cancel."""

import os
import struct

import numpy as np
import pytest
import soundfile
from helpers import tone

from ssl_audio import audio
from ssl_audio.data.scan import inspect
from ssl_audio.embedding import embed_files
from ssl_audio.evaluation.recordings import unreadable_files


@pytest.mark.parametrize("suffix", audio._FORMATS)
def test_every_suffix_is_written_as_its_format_found_and_read(tmp_path, suffix):
    clip = tone(0.5, 48000)
    kind = audio._FORMATS[suffix]
    try:
        audio.write(tmp_path / f"a{suffix}", clip, 48000)
    except audio.InputError as error:
        assert kind in ("SVX", "SDS", "WVE", "XI", "HTK", "MP3"), error  # formats with few rates or sample formats
        soundfile.write(tmp_path / "a.wav", clip, 48000)
        os.rename(tmp_path / "a.wav", tmp_path / f"a{suffix}")  # the content decides
    assert audio.find_audio_files(tmp_path) == [tmp_path / f"a{suffix}"]
    assert len(audio.read(tmp_path / f"a{suffix}")) >= len(clip)


def test_no_format_that_libsndfile_reads_by_its_header_is_overlooked():
    without = {"RAW", "MAT4", "MAT5", "SD2", "MPC2K", "WAVEX", "XI"}  # no header, other things than audio, or .wav
    assert set(soundfile.available_formats()) - without == set(audio._FORMATS.values())
    assert not set(audio.EXTENSIONS) & set(audio.UNSUPPORTED_EXTENSIONS)


def test_the_companions_of_macos_do_not_hide_the_recording(tmp_path):
    clip = tone(1.0, 44100)
    soundfile.write(tmp_path / "a.mp3", clip, 44100, format="MP3")
    fork = struct.pack(">II16sH", 0x00051607, 0x00020000, b"Mac OS X        ", 2)
    fork += struct.pack(">III", 9, 50, 32) + struct.pack(">III", 2, 82, 286)
    alone = audio.read(tmp_path / "a.mp3")
    (tmp_path / "._a.mp3").write_bytes(fork + bytes(318))
    np.testing.assert_array_equal(audio.read(tmp_path / "a.mp3"), alone)
    assert audio.find_audio_files(tmp_path) == [tmp_path / "a.mp3"]


def test_names_in_any_encoding_are_read(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    raw = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav")
    os.rename(tmp_path / "a.wav", raw)
    assert len(audio.read(raw)) == 16000


def test_no_descriptor_stays_open(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)
    (tmp_path / "b.wav").write_bytes(b"not audio")
    (tmp_path / "empty.wav").touch()
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for name in ("a.wav", "b.wav", "empty.wav", "gone.wav", ".") * 3:
        inspect(tmp_path / name)
    after = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert after == before


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(audio.AudioError, match="is not a regular file"):
        audio.read(tmp_path / "a.wav")


@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_channels_that_cancel_are_said_and_not_taken_for_silence(tmp_path, suffix):
    clip = tone(1.0, 44100)
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, np.stack([clip, -clip], 1), 44100)
    with pytest.raises(audio.AudioError, match="its channels cancel each other out"):
        audio.read(path, 16000)
    assert "cancel" in inspect(path)[2] and "cancel" in unreadable_files([path])[path]
    soundfile.write(path, np.stack([clip, 0.5 * clip], 1), 44100)
    assert inspect(path)[2] == ""


@pytest.mark.parametrize("windows", [{}, {"window_seconds": 0.5}, {"window_seconds": 0.5, "aggregate": "mean"}])
def test_one_rule_says_which_files_are_not_embedded(tmp_path, model, windows):
    """With and without windows: the same files, each either embedded or reported."""
    clip = tone(3.0)
    soundfile.write(tmp_path / "good.wav", clip, 16000)
    soundfile.write(tmp_path / "silent.wav", np.zeros(48000), 16000)
    soundfile.write(tmp_path / "partly.wav", np.concatenate([clip, np.zeros(48000)]), 16000)
    soundfile.write(tmp_path / "cancels.wav", np.stack([clip, -clip], 1), 16000)
    soundfile.write(tmp_path / "cut.wav", clip, 16000)
    with open(tmp_path / "cut.wav", "r+b") as file:
        file.truncate(44 + 2 * 20100)  # the header says 48,000 samples
    soundfile.write(tmp_path / "broken.flac", clip, 16000)
    content = bytearray((tmp_path / "broken.flac").read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = bytes(4000)
    (tmp_path / "broken.flac").write_bytes(content)
    names = ("good.wav", "silent.wav", "partly.wav", "cancels.wav", "cut.wav", "broken.flac")
    results = list(embed_files(model, [tmp_path / name for name in names], on_error="report", **windows))
    failed = {names[result.index] for result in results if result.error}
    embedded = {names[result.index] for result in results if not result.error}
    assert embedded == {"good.wav", "partly.wav", "cut.wav"} and not failed & embedded
    assert failed == {"silent.wav", "cancels.wav", "broken.flac"}
    last = [result for result in results if names[result.index] == "cut.wav"][-1]
    assert last.end == pytest.approx(20100 / 16000)


@pytest.fixture(scope="module")
def model():
    from helpers import tiny_model

    return tiny_model()
