"""What test files of several rooms import: where things are, small recordings, small models, a small MusicNet."""

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import nn

from ssl_audio import audio
from ssl_audio.encoders import CompactCNN
from ssl_audio.frontends import Frontend, LogMelSpectrogram
from ssl_audio.model import EmbeddingModel

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent
ABSENT = "absent: "  # how the reason of a skip begins that the end of a run counts


def skip_without(what: str) -> NoReturn:
    """Skip the test for want of something that a whole installation has; the end of a run counts such skips."""
    pytest.skip(f"{ABSENT}{what}")


def needed(package: str) -> Any:
    """The package, or the test is skipped and counted."""
    return pytest.importorskip(package, reason=f"{ABSENT}{package.split('.')[0]}")


def tone(seconds: float = 1.0, sample_rate: int = 16000, frequency: float = 220.0, seed: int = 0) -> np.ndarray:
    """`(samples,)` float32: a sine with three harmonics and a little noise, peak about .5."""
    samples = round(seconds * sample_rate)
    phase = 2 * np.pi * frequency * np.arange(samples) / sample_rate
    noise = np.random.default_rng(seed).standard_normal(samples)
    return (0.3 * np.sin(phase) + 0.1 * np.sin(2 * phase) + 0.05 * np.sin(3 * phase) + 0.01 * noise).astype(np.float32)


def tiny_frontend(n_mels: int = 32, **kwargs: Any) -> LogMelSpectrogram:
    """Log-mel bands of audio at 16 kHz: 32 ms every 10 ms."""
    return LogMelSpectrogram(16000, n_fft=512, hop_length=160, n_mels=n_mels, **kwargs)


def tiny_model(
    dim: int = 16,
    channels: Sequence[int] = (8, 8),
    seed: int = 0,
    frontend: Frontend | None = None,
    sample_rate: int = 16000,
    head: nn.Module | None = None,
) -> EmbeddingModel:
    """Log-mel bands and a small CNN with random weights, in evaluation mode; its frontend at 16 kHz unless given."""
    torch.manual_seed(seed)
    encoder = CompactCNN(list(channels), embedding_dim=dim)
    return EmbeddingModel(tiny_frontend() if frontend is None else frontend, encoder, sample_rate, head).eval()


def write_voices(folder: Path, people: int = 10, files: int = 4, seconds: float = 1.5, seed: int = 0) -> Path:
    """`folder/<name>/<n>.wav`: each voice has a pitch, which its recordings miss, and noise of any strength."""
    rng = np.random.default_rng(seed)
    for person in range(people):
        for n in range(files):
            pitch = 120 * 1.2**person * 2 ** rng.normal(0, 0.2)
            noise = 10 ** rng.uniform(-3, -1.5) * rng.standard_normal(round(16000 * seconds))
            path = folder / f"voice {seed}-{person}" / f"{n}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            audio.write(path, tone(seconds, frequency=pitch, seed=int(rng.integers(1 << 30))) + noise, 16000)
    return folder


def write_labels(path: Path, rows: Iterable[tuple[float, float, int, int]]) -> None:
    """MusicNet's labels of one recording, of rows (start, end in seconds, instrument, pitch)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("start_time", "end_time", "instrument", "note", "start_beat", "end_beat", "note_value"))
        writer.writerows([round(a * 44100), round(b * 44100), i, p, 0.0, 1.0, "Quarter"] for a, b, i, p in rows)


def write_musicnet(
    root: Path,
    seconds: Sequence[float] = (4.0, 5.0, 4.0, 6.5),
    test_seconds: Sequence[float] = (4.0,),
    pitches: Sequence[int] = range(50, 80),
) -> dict[str, list[tuple[float, float, int, int]]]:
    """A small MusicNet: bursts of tone at the labelled times, silence (nearly) between. Returns the rows by id."""
    rng = np.random.default_rng(0)
    rows, table = {}, [("id", "composer", "composition", "movement", "ensemble", "seconds")]
    for split, lengths in (("train", seconds), ("test", test_seconds)):
        for n, length in enumerate(lengths):
            name = f"{1700 + n if split == 'train' else 2500 + n}"
            time, notes = 0.1, []
            clip = 1e-3 * rng.standard_normal(round(length * 44100))
            while time < length - 0.6:
                end, pitch = time + rng.uniform(0.15, 0.4), int(rng.choice(pitches))
                notes.append((time, end, (41, 43)[n % 2], pitch))
                a, b = round(time * 44100), round(end * 44100)
                clip[a:b] += tone((b - a) / 44100, 44100, 440 * 2 ** ((pitch - 69) / 12))[: b - a]
                time = end + rng.uniform(0.1, 0.3)
            audio.write(root / f"{split}_data" / f"{name}.wav", clip, 44100)
            write_labels(root / f"{split}_labels" / f"{name}.csv", notes)
            rows[name] = notes
            table.append((name, ("Bach", "Ravel")[n // 2 % 2], f"Work {n}", "1", ("Duo", "Trio")[n % 2], f"{length}"))
    with open(root / "musicnet_metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows(table)
    return rows
