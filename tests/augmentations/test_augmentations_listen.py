"""`ssl-audio listen`: sounds to hear and figures beside them."""

import csv

import numpy as np
import pytest

from ssl_audio import audio
from ssl_audio.cli import main

RATE = 16000


@pytest.fixture
def voices(tmp_path):
    time = np.arange(RATE) / RATE
    for i, pitch in enumerate((120, 210, 300)):
        voice = sum(np.cos(2 * np.pi * k * pitch * time) / k for k in range(1, 20)) * 0.1
        audio.write(tmp_path / "voices" / f"voice, #{i} 声.wav", voice.astype(np.float32), RATE)
    return tmp_path / "voices"


def test_it_writes_what_it_measures(voices, tmp_path, capsys):
    output = tmp_path / "out"
    assert main(["listen", str(voices), "--output", str(output), "--number", "2", "--pitch", "1.25", "--formant"]) == 0
    with open(output / "measures.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 and {row["by"] for row in rows} == {"Praat", "batch"}
    assert all(float(row["pitch ratio"]) == pytest.approx(1.25, rel=0.01) for row in rows)
    assert "voicing kept" in capsys.readouterr().out
    folders = sorted(path for path in output.iterdir() if path.is_dir())
    assert len(folders) == 2
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {"input.wav", "pitch 1.25 Praat.wav", "pitch 1.25 batch.wav"}
        assert {audio.info(path).frames for path in folder.iterdir()} == {RATE}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(["--pitch", "9"], "between 0.5 and 2"), (["--number", "0"], "--number"), ([], "shorter than")],
)
def test_what_cannot_work_is_said_in_one_line(tmp_path, capsys, arguments, complaint):
    audio.write(tmp_path / "short.wav", np.zeros(100, dtype=np.float32), RATE)
    assert main(["listen", str(tmp_path), "--output", str(tmp_path / "out"), *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and complaint in error


def test_a_bad_recording_does_not_stop_the_others(voices, tmp_path, capsys):
    (voices / "broken.wav").write_text("no audio")
    command = ["listen", str(voices), "--output", str(tmp_path / "out"), "--pitch", "1.25", "--formant"]
    assert main(command) == 1
    assert f"left out: {voices / 'broken.wav'}: " in capsys.readouterr().out
    assert len([path for path in (tmp_path / "out").iterdir() if path.is_dir()]) == 3
