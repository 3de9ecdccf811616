"""What CPC's data cost: labels of a window, windows from the cache beside memory, and the memory that they hold."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from ssl_audio import audio
from ssl_audio.data.index import AudioIndex
from ssl_audio.data.notes import Notes
from ssl_audio.data.sampler import Draw
from ssl_audio.data.store import attach, build
from ssl_audio.data.windows import WindowDataset, collate

Row = tuple[str, float | None, float | None, str]
SIZE, RATE, BATCH = 20480, 16000, 8


def rows() -> Iterator[Row]:
    yield from labels()
    with tempfile.TemporaryDirectory() as folder:
        yield from windows(Path(folder))


def labels(count: int = 3000, seconds: float = 600.0) -> Iterator[Row]:
    """A note roll of 128 frames of a long piece: two searches against a mask over all notes a frame (as pandas did)."""
    rng = np.random.default_rng(0)
    onset = rng.uniform(0, seconds - 2, count)
    offset, pitch = onset + rng.uniform(0.05, 2, count), rng.integers(21, 109, count)
    notes = Notes(onset, offset, pitch, rng.choice([1, 41, 42, 43], count))

    def scan(start: float) -> np.ndarray:
        roll = np.zeros((128, 128), bool)
        for frame in range(128):
            middle = start + (frame + 0.5) / 100
            roll[frame, pitch[(onset <= middle) & (middle < offset)]] = True
        return roll

    starts = rng.uniform(0, seconds - 2, 200).tolist()
    for start in starts[:20]:
        np.testing.assert_array_equal(notes.roll(start, 128, 100), scan(start))
    plain = each(lambda: over(starts[:20], scan)) / 20
    ours = each(lambda: over(starts, lambda start: notes.roll(start, 128, 100))) / len(starts)
    yield "note roll of 128 frames", plain, ours, f"of {count:,} notes; plain: a mask over all of them a frame"
    instruments = [1, 41, 42, 43, 61, 69, 71, 72, 74, 7, 44]
    ours = each(lambda: over(starts, lambda start: notes.instrument_roll(start, 128, 100, instruments))) / len(starts)
    yield "roll of 128 frames x 11 instruments", None, ours, "and of any instrument"


def windows(folder: Path, recordings: int = 32, seconds: float = 62.5) -> Iterator[Row]:
    """Batches of 8 windows in random order: arrays in memory, the cache with room for all, with room for a quarter."""
    rng = np.random.default_rng(0)
    for n in range(recordings):
        noise = (0.1 * rng.standard_normal(int(seconds * RATE))).astype(np.float32)
        audio.write(folder / "corpus" / f"{n:02}.wav", noise, RATE)
    build(folder / "corpus", RATE, progress=False)
    groups = attach(AudioIndex.scan([folder / "corpus"], group_by_artist=False, progress=False), RATE)[0].groups
    total = sum(2 * group.entries[0].frames for group in groups)
    yield from resident(groups, total)
    arrays = [audio.read(group.entries[0].path) for group in groups]
    made = WindowDataset(groups, SIZE, RATE, moving=False)
    draws = [Draw(0, int(item)) for item in rng.permutation(len(made))]

    class InMemory(WindowDataset):
        def __getitem__(self, draw: Draw) -> dict:
            index = int(self.sequences[draw.item])
            start = (draw.item - int(self.first[index])) * SIZE
            clip = torch.from_numpy(arrays[index][start : start + SIZE].copy())
            return {"clip1": clip, "group_name": self.names[index], "index": index, "start": start, "failures": []}

    def epoch(dataset: WindowDataset) -> Callable[[], None]:
        def play() -> None:
            for first in range(0, len(draws), BATCH):
                collate([dataset[draw] for draw in draws[first : first + BATCH]])

        return play

    batches = -(-len(draws) // BATCH)
    in_memory = epoch(InMemory(groups, SIZE, RATE, moving=False))
    for share, name in ((1.0, "all"), (0.25, "a quarter")):
        dataset = WindowDataset(groups, SIZE, RATE, moving=False, room=int(total * share) + 1000 * recordings)
        cached = epoch(dataset)
        cached()
        turns = [(each(in_memory, 1), each(cached, 1)) for _ in range(8)]  # in turns, so that a busy machine meets both
        plain, ours = (min(times) / batches for times in zip(*turns, strict=True))
        yield f"batch of {BATCH} windows of 1.28 s, room for {name}", plain, ours, "plain: float32 arrays in memory"


def resident(groups: list, total: int) -> Iterator[Row]:
    """Memory that an epoch adds to the process, against a budget of a quarter of the corpus."""
    budget = total // 4
    dataset = WindowDataset(groups, SIZE, RATE, room=budget)
    order = np.random.default_rng(1).permutation(len(dataset)).tolist()
    collate([dataset[Draw(0, item)] for item in order[:BATCH]])
    before, most = _resident_bytes(), 0
    for first in range(0, len(order), BATCH):
        collate([dataset[Draw(0, item)] for item in order[first : first + BATCH]])
        most = max(most, _resident_bytes() - before)
    note = (
        f"{most / 1e6:.1f} MB, where max_audio_in_memory allows {budget / 1e6:.1f} of a corpus of {total / 1e6:.0f} MB"
    )
    yield "memory that an epoch adds", None, None, note


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def over(starts: list[float], look_up: Callable[[float], object]) -> None:
    for start in starts:
        look_up(start)


def each(run: Callable[[], object], repeats: int = 5) -> float:
    """The quickest of some runs, in seconds."""
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - started)
    return best
