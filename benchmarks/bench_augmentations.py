"""Augmentation, clip by clip and in batches, on one core each (both scale over cores by processes)."""

import random
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import audiomentations
import numpy as np
import torch
import yaml
from tqdm import tqdm

from ssl_audio import audio
from ssl_audio.augmentations import batch, clip
from ssl_audio.config import build

Row = tuple[str, float | None, float, str]
CONFIGS = Path(__file__).resolve().parents[1] / "train_configs" / "augmentation"
CLIPS, BATCH = 32, 48


def rows() -> Iterator[Row]:
    """(what, seconds of the plain way, our seconds, note); a batch of 32 clips."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield from singer()
        yield from presets(threads)
        yield memory()
    finally:
        torch.set_num_threads(threads)


Clock = Callable[[], float]


def seconds(call: Callable[[], object], times: int = 3, warm: bool = True, clock: Clock = time.process_time) -> float:
    """The median of so many calls, after one that warms up if asked for. What else runs does not count."""
    taken = []
    for _ in range(times + warm):
        start = clock()
        call()
        taken.append(clock() - start)
    return float(np.median(taken[warm:]))


def voices(samples: int, rate: int, count: int = CLIPS) -> np.ndarray:
    """(count, samples): pulses with vibrato through three resonances, each at its own pitch, with pauses of breath."""
    time_axis = np.arange(samples) / rate
    rng = np.random.default_rng(0)
    clips = np.zeros((count, samples), dtype=np.float32)
    for i in range(count):
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


def presets(threads: int) -> Iterator[Row]:
    """CLMR's and WaveBYOL's chains: processor time of one thread, then wall time with all threads for the batch."""
    for what, name, samples, rate, make in (
        ("CLMR's chain", "clmr", 59049, 22050, plain_clmr),
        ("WaveBYOL's chain", "wavebyol", 20480, 16000, plain_wavebyol),
    ):
        clips = voices(samples, rate, BATCH)
        tensor, generator = torch.from_numpy(clips), torch.Generator().manual_seed(0)
        with tempfile.TemporaryDirectory() as folder:
            write_rooms(Path(folder), rate)
            plain = make(folder)
            ours = partial(chain(name), tensor, rate, generator)

            def clip_by_clip(plain: Callable = plain, clips: np.ndarray = clips, rate: int = rate) -> None:
                for clip in clips:
                    plain(clip, rate)

            one = interleaved(clip_by_clip, ours)
            torch.set_num_threads(threads)
            every = interleaved(clip_by_clip, ours, clock=time.perf_counter)
            torch.set_num_threads(1)
        note = f"{BATCH} clips of {samples} samples; plain: audiomentations clip by clip, impulse responses as reverb"
        yield what, *one, note
        yield f"{what}, wall time", *every, f"the same; {threads} threads for the batch, one for the plain chain"


def memory(steps: int = 1000, rate: int = 16000) -> Row:
    """Resident memory over steps of the published chain, each with its own number and length of clips."""
    clips, rng, ours = torch.from_numpy(voices(3 * rate, rate, 8)), np.random.default_rng(0), chain("device")
    generator, resident = torch.Generator().manual_seed(0), []
    start = time.process_time()
    for _ in tqdm(range(steps), "memory", unit="step", leave=False):
        ours(clips[: rng.integers(1, 9), : rng.integers(rate // 2, 3 * rate + 1)], rate, generator)
        resident.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20)
    first, last = max(resident[100:200]), max(resident[-100:])
    note = (
        f"published chain, 1 to 8 clips of .5 to 3 s a step; most of steps 100 to 200 resident {first:.0f} MB, "
        f"of the last 100 {last:.0f} MB"
    )
    return f"memory over {steps} steps", None, time.process_time() - start, note


def interleaved(
    plain: Callable[[], object], ours: Callable[[], object], times: int = 15, clock: Clock = time.process_time
) -> tuple[float, float]:
    """Medians of so many calls of each in turn, so that both meet the same machine; ours more often, as it is short."""
    taken: tuple[list[float], list[float]] = ([], [])
    seconds(ours, 1)
    for _ in range(times):
        taken[0].append(seconds(plain, 1, False, clock))
        taken[1].append(seconds(ours, 5, False, clock))
    return float(np.median(taken[0])), float(np.median(taken[1]))


def write_rooms(folder: Path, rate: int) -> None:
    """Eight impulse responses of a second at most."""
    rng = np.random.default_rng(0)
    for i in range(8):
        room = rng.standard_normal(rate) * np.exp(-6.9 * np.arange(rate) / rate / rng.uniform(0.1, 1))
        audio.write(folder / f"{i}.wav", (room / np.abs(room).max()).astype(np.float32), rate)


def plain_clmr(rooms: str) -> Callable:
    """The list of `augmentation/clmr` with its probabilities and ranges."""

    def delay(samples: np.ndarray, sample_rate: int) -> np.ndarray:
        shift = sample_rate * random.randrange(200, 451, 50) // 1000
        return (samples + 0.5 * np.pad(samples, (shift, 0))[: len(samples)]).astype(np.float32) / 2

    return audiomentations.Compose(
        [
            audiomentations.PolarityInversion(p=0.8),
            audiomentations.AddGaussianSNR(min_snr_db=40, max_snr_db=80, p=0.01),
            audiomentations.Gain(min_gain_db=-20, max_gain_db=-1, p=0.3),
            audiomentations.OneOf(
                [
                    audiomentations.HighPassFilter(200, 1200, min_rolloff=24, max_rolloff=24, p=1.0),
                    audiomentations.LowPassFilter(2200, 4000, min_rolloff=24, max_rolloff=24, p=1.0),
                ],
                p=0.8,
            ),
            audiomentations.Lambda(delay, p=0.3),
            audiomentations.PitchShift(-7, 7, p=0.6),
            audiomentations.ApplyImpulseResponse(rooms, p=0.6),
        ]
    )


def plain_wavebyol(rooms: str, rate: int = 16000, window: int = 20480) -> Callable:
    """The list of `augmentation/wavebyol`; slower is resampled, and a random part kept."""

    def part(samples: np.ndarray, sample_rate: int) -> np.ndarray:
        first = random.randint(0, max(0, len(samples) - window))
        return samples[first : first + window]

    slower = [
        audiomentations.Compose(
            [audiomentations.Resample(round(rate / r), round(rate / r), p=1.0), audiomentations.Lambda(part, p=1.0)]
        )
        for r in (0.95, 0.93, 0.9, 0.85, 0.83, 0.8, 0.75, 0.6, 0.5)
    ]
    return audiomentations.SomeOf(
        (2, 5),
        [
            audiomentations.TimeMask(0, 0.39, fade_duration=0.0, p=1.0),
            audiomentations.ApplyImpulseResponse(rooms, p=1.0),
            audiomentations.PitchShift(-5, 5, p=1.0),
            audiomentations.ClippingDistortion(p=1.0),
            audiomentations.OneOf(slower),
        ],
    )
