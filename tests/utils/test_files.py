"""Where a written file ends up: links are followed, pipes and devices get what is complete, names have a limit."""

import os
import pickle
import threading

import pytest

from ssl_audio.utils.files import WriteError, write_atomically, write_text


def test_a_link_stays_a_link_and_its_target_is_replaced(tmp_path):
    (tmp_path / "target.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to("target.txt")
    (tmp_path / "dangling.txt").symlink_to("made.txt")
    for name in ("link.txt", "dangling.txt"):
        write_text(tmp_path / name, "new")
        assert (tmp_path / name).is_symlink() and (tmp_path / name).read_text() == "new"
    assert (tmp_path / "target.txt").read_text() == (tmp_path / "made.txt").read_text() == "new"


def test_the_reader_of_a_pipe_gets_the_content(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe.csv").read_text()))
    reader.start()
    write_text(tmp_path / "pipe.csv", "a,b\n")
    reader.join(10)
    assert got == ["a,b\n"] and not (tmp_path / "pipe.csv").is_file() and os.listdir(tmp_path) == ["pipe.csv"]


def test_a_device_is_written_and_stays_a_device():
    write_text("/dev/null", "x")
    assert not os.path.isfile("/dev/null")


@pytest.mark.parametrize(
    "message", ["Error while serializing: I/O error: No space left on device (os error 28)", "write failed, errno: 28"]
)
def test_a_full_disk_is_known_by_the_message_of_a_library(tmp_path, message):
    with (
        pytest.raises(WriteError, match="No space left on device; make room") as raised,
        write_atomically(tmp_path / "a.bin"),
    ):
        raise RuntimeError(message)
    assert raised.value.errno == 28 and isinstance(raised.value, OSError) and not os.listdir(tmp_path)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


def test_a_name_that_is_too_long_is_one_line(tmp_path):
    with pytest.raises(WriteError, match="File name too long; choose a shorter name"):
        write_text(tmp_path / ("x" * 300), "")
