"""Augmentation, clip by clip and in batches, on one core each (both scale over cores by processes)."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import audiomentations
import numpy as np
import torch
import yaml

from ssl_audio import audio
from ssl_audio.augmentations import batch, clip
from ssl_audio.config import build

Row = tuple[str, float, float, str]
CONFIGS = Path(__file__).resolve().parents[1] / "train_configs" / "augmentation"
CLIPS = 32


def rows() -> Iterator[Row]:
    """(what, seconds of the plain way, our seconds, note); a batch of 32 clips."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from singer()
        yield from presets()
    finally:
        torch.set_num_threads(threads)


def seconds(call: Callable[[], object], times: int = 3) -> float:
    """The median of so many calls after one that warms up."""
    taken = []
    for _ in range(times + 1):
        start = time.process_time()  # of one thread: what else the machine does must not count
        call()
        taken.append(time.process_time() - start)
    return float(np.median(taken[1:]))


def voices(samples: int, rate: int) -> np.ndarray:
    """(CLIPS, samples): pulses with vibrato through three resonances, each at its own pitch, with pauses of breath."""
    time_axis = np.arange(samples) / rate
    rng = np.random.default_rng(0)
    clips = np.zeros((CLIPS, samples), dtype=np.float32)
    for i in range(CLIPS):
        pitch = rng.uniform(100, 400) * (1 + 0.03 * np.sin(2 * np.pi * 5.5 * time_axis))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        for k in range(1, int(4000 / pitch.max())):
            formants = sum(np.exp(-(((k * pitch.mean() - f) / 200) ** 2)) for f in (600, 1300, 2700))
            clips[i] += (0.02 + formants) / k * np.cos(k * phase)
        clips[i] *= np.sin(2 * np.pi * time_axis) > -0.7
    clips *= 0.5 / np.abs(clips).max(1, keepdims=True)
    return clips + 0.003 * rng.standard_normal(clips.shape).astype(np.float32)


def chain(name: str) -> batch.BatchTransform:
    config = yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())
    return build(config["model"]["init_args"]["augmentation"])


def singer(rate: int = 44100, samples: int = 176000) -> Iterator[Row]:
    clips = voices(samples, rate)
    tensor, rng, generator = torch.from_numpy(clips), np.random.default_rng(0), torch.Generator().manual_seed(0)

    def one_by_one(transform: clip.ClipTransform) -> Callable[[], object]:
        return lambda: [transform(row, rate, rng) for row in clips]

    per_clip = yaml.safe_load((CONFIGS / "clip.yaml").read_text())["data"]["init_args"]["augmentation"]
    plain = seconds(one_by_one(build(per_clip, trusted=True)), 1)
    device = chain("device")
    note = f"{CLIPS} clips of 4 s at 44.1 kHz; plain: audiomentations and Praat"
    yield "published chain", plain, seconds(lambda: device(tensor, rate, generator)), note
    for name in ("PitchShift", "FormantShift", "TimeStretch", "SevenBandEQ", "TanhDistortion", "GaussianNoise"):
        plain = seconds(one_by_one(getattr(clip, name)(p=1.0)), 1)
        transform = getattr(batch, name)(p=1.0)
        yield name, plain, seconds(lambda t=transform: t(tensor, rate, generator)), note  # type: ignore[misc]


def presets(rate: int = 22050) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for i in range(8):
            room = rng.standard_normal(rate) * np.exp(-6.9 * np.arange(rate) / rate / rng.uniform(0.1, 1))
            audio.write(Path(folder) / f"{i}.wav", (room / np.abs(room).max()).astype(np.float32), rate)
        clmr = [
            audiomentations.PolarityInversion(p=0.8),
            audiomentations.AddGaussianSNR(min_snr_db=40, max_snr_db=80, p=0.01),
            audiomentations.Gain(min_gain_db=-20, max_gain_db=-1, p=0.3),
            audiomentations.OneOf(
                [
                    audiomentations.HighPassFilter(200, 1200, p=1.0),
                    audiomentations.LowPassFilter(2200, 4000, p=1.0),
                ],
                p=0.8,
            ),
            audiomentations.PitchShift(-7, 7, p=0.6),
            audiomentations.ApplyImpulseResponse(folder, p=0.6),
        ]
        yield row(
            "CLMR's chain", audiomentations.Compose(clmr), chain("clmr"), 59049, rate, "no delay in the plain one"
        )
        wavebyol = [
            audiomentations.TimeMask(0, 0.39, fade_duration=0.0, p=1.0),
            audiomentations.ApplyImpulseResponse(folder, p=1.0),
            audiomentations.PitchShift(-5, 5, p=1.0),
            audiomentations.ClippingDistortion(p=1.0),
            audiomentations.TimeStretch(0.5, 0.95, p=1.0),
        ]
        plain = audiomentations.SomeOf((2, 5), wavebyol)
        note = "time stretch for speed in the plain one"
        yield row("WaveBYOL's chain", plain, chain("wavebyol"), 20480, 16000, note)


def row(what: str, plain: Callable, ours: batch.BatchTransform, samples: int, rate: int, note: str) -> Row:
    clips = voices(samples, rate)
    tensor, generator = torch.from_numpy(clips), torch.Generator().manual_seed(0)
    note = f"{CLIPS} clips of {samples} samples; plain: audiomentations clip by clip, {note}"
    slow = seconds(lambda: [plain(clip, rate) for clip in clips])
    return what, slow, seconds(lambda: ours(tensor, rate, generator)), note
