"""The one reader of 16 bit samples: any part of any run of bytes, mapped or not, and never silence in their place."""

from io import FileIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_audio.audio import AudioError
from ssl_audio.data.int16 import Int16Recording

SAMPLES = np.random.default_rng(0).integers(-32768, 32768, 500).astype("<i2")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 samples from byte 7 of a file on, and 9 bytes after them."""
    path = tmp_path_factory.mktemp("int16") / "file"
    path.write_bytes(b"1234567" + SAMPLES.tobytes() + b"123456789")
    return path


def opened(path: Path, mapped: bool, samples: int = 500) -> Int16Recording:
    return Int16Recording(FileIO(path), path, 7, samples, 0.25, 8000, "write it again", mapped)


@pytest.mark.parametrize("mapped", [False, True])
@given(start=st.integers(0, 600), count=st.integers(0, 600))
def test_a_part_is_that_part_of_the_whole(path: Path, mapped: bool, start: int, count: int) -> None:
    expected = SAMPLES[start : start + count].astype(np.float32) / 4
    with opened(path, mapped) as recording:
        np.testing.assert_array_equal(recording.read(start, count, 8000), expected)
        into = np.full(count, 7, np.float32)
        assert recording.read_into(start, into) == len(expected)
    np.testing.assert_array_equal(into, np.append(expected, np.full(count - len(expected), 7)))


def test_another_rate_is_the_mistake_of_a_caller(path: Path) -> None:
    with opened(path, False) as recording, pytest.raises(ValueError, match="holds audio at 8000 Hz, not 16000"):
        recording.read(0, 10, 16000)


def test_a_file_that_is_cut_short_is_an_error_and_not_silence(path: Path) -> None:
    with opened(path, False, samples=600) as recording:
        assert len(recording.read(0, 500, 8000)) == 500
        with pytest.raises(AudioError, match="is cut short; write it again"):
            recording.read(400, 200, 8000)


def test_a_map_needs_no_open_file_and_closing_frees_both(path: Path) -> None:
    for mapped in (True, False):
        recording = opened(path, mapped)
        assert recording._file.closed == mapped
        recording.close()
        with pytest.raises(ValueError, match="closed"):
            recording.read(0, 1, 8000)
