"""What test files of several rooms import: where things are, and small recordings made on the spot."""

from pathlib import Path

import numpy as np

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent


def tone(seconds: float = 1.0, sample_rate: int = 16000, frequency: float = 220.0, seed: int = 0) -> np.ndarray:
    """`(samples,)` float32: a sine with three harmonics and a little noise, peak about .5."""
    samples = round(seconds * sample_rate)
    phase = 2 * np.pi * frequency * np.arange(samples) / sample_rate
    noise = np.random.default_rng(seed).standard_normal(samples)
    return (0.3 * np.sin(phase) + 0.1 * np.sin(2 * phase) + 0.05 * np.sin(3 * phase) + 0.01 * noise).astype(np.float32)
