"""The recordings with which `make.sh` made the files of this folder: whole numbers alone, so equal on every machine.

python recordings.py FOLDER          # FOLDER/singer0/song0.wav ...
"""

import sys
import wave
from pathlib import Path

import numpy as np

RATE = 8000
SINGERS, SONGS, SAMPLES = 6, 3, 4800


def write_recordings(folder: Path) -> None:
    """Six singers with three songs of .6 s each: a triangle wave of the singer's pitch, and noise."""
    for singer in range(SINGERS):
        for song in range(SONGS):
            phase = np.arange(SAMPLES, dtype=np.int64) * (900 * (singer + 2) + 37 * song) % 65536
            noise = np.random.default_rng([singer, song]).integers(-2000, 2000, SAMPLES)
            samples = (np.abs(phase - 32768) - 16384) // (1 + singer % 2) + noise
            path = folder / f"singer{singer}" / f"song{song}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            with wave.open(str(path), "wb") as file:
                file.setparams((1, 2, RATE, SAMPLES, "NONE", ""))
                file.writeframes(samples.astype("<i2").tobytes())


if __name__ == "__main__":
    write_recordings(Path(sys.argv[1]))
