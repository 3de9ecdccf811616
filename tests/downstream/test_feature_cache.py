"""Features in the cache: damaged files are made anew, and a cache that cannot be written names its variable."""

import numpy as np
import pytest
from helpers import tiny_model

from ssl_audio.downstream.features import extract
from ssl_audio.errors import InputError


@pytest.mark.parametrize("damage", [lambda content: content[:600], lambda content: b"", lambda content: b"words" * 99])
def test_a_damaged_file_in_the_cache_is_made_anew(tmp_path, write_tone, caplog, damage):
    paths = [write_tone(tmp_path / f"{i}.wav", seconds=0.3, seed=i) for i in range(2)]
    first = extract(tiny_model(6), paths, 0.2, cache=tmp_path / "cache", device="cpu")
    (file,) = (tmp_path / "cache").glob("*.parquet")
    file.write_bytes(damage(file.read_bytes()))
    again = extract(tiny_model(6), paths, 0.2, cache=tmp_path / "cache", device="cpu")
    assert np.array_equal(first.values, again.values) and "is damaged and is made anew" in caplog.text


def test_a_cache_that_cannot_be_written_names_its_variable(tmp_path, write_tone):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="SSL_AUDIO_CACHE"):
        extract(tiny_model(6), [write_tone(tmp_path / "a.wav")], 0.2, cache=tmp_path / "file" / "cache")
