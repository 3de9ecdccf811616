"""What CPC's data cost: labels of a window, windows from the cache beside memory, and the memory that they hold."""

import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from ssl_audio import audio, methods
from ssl_audio.data.index import AudioIndex
from ssl_audio.data.notes import Notes
from ssl_audio.data.sampler import Draw
from ssl_audio.data.store import attach, build
from ssl_audio.data.windows import WindowDataset, identity
from ssl_audio.encoders import CPC
from ssl_audio.frontends import Waveform

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
        """Float32 arrays, copied into the batch the way that ours are: only where they come from differs."""

        def _fill(self, draw: Draw, clip: np.ndarray) -> tuple:
            index = int(self.sequences[draw.item])
            start = (draw.item - int(self.first[index])) * SIZE
            clip[:] = arrays[index][start : start + SIZE]
            return self.names[index], index, start, []

    class Usual(Dataset):
        """The same arrays as anyone would write it, for torch's own collation."""

        def __getitem__(self, draw: Draw) -> dict:
            index = int(made.sequences[draw.item])
            start = (draw.item - int(made.first[index])) * SIZE
            clip = torch.from_numpy(arrays[index][start : start + SIZE].copy())
            return {"clip1": clip, "group_name": made.names[index], "index": index, "start": start}

    def loader(dataset: Dataset, collate: Callable | None = identity) -> DataLoader:
        return DataLoader(dataset, BATCH, sampler=draws, collate_fn=collate)  # type: ignore[arg-type]

    in_memory, usual = loader(InMemory(groups, SIZE, RATE, moving=False)), loader(Usual(), None)
    quarter = loader(WindowDataset(groups, SIZE, RATE, moving=False, room=total // 4))
    cached = loader(made)
    calls: list[Callable[[], object]] = [lambda of=of: play(of) for of in (usual, in_memory, cached, quarter)]  # type: ignore[misc]
    per_batch = [taken / len(cached) for taken in in_turns(calls, 12)]
    what = f"batch of {BATCH} windows of 1.28 s from the cache"
    yield f"{what}, room for all", per_batch[0], per_batch[2], "plain: arrays in memory, collated by torch; .9 asked"
    yield f"{what}, room for all", per_batch[1], per_batch[2], "plain: arrays in memory, by our loader; .9 asked"
    yield f"{what}, room for a quarter", per_batch[0], per_batch[3], "plain: all in memory, collated by torch"
    yield from step(in_memory, cached)


def play(loader: DataLoader) -> None:
    for _ in loader:
        pass


def step(in_memory: DataLoader, cached: DataLoader, count: int = 8) -> Iterator[Row]:
    """A CPC training step of a small encoder, loading included."""
    torch.manual_seed(0)
    encoder = CPC(64, context="gru")
    method = methods.CPC(frontend=Waveform(), encoder=encoder, sample_rate=RATE)
    optimizer = torch.optim.Adam(method.parameters())

    def train(loader: DataLoader) -> None:
        for batch in islice(loader, count):
            optimizer.zero_grad()
            method.batch_objective(batch).terms["loss"].backward()
            optimizer.step()

    plain, ours = in_turns([lambda: train(in_memory), lambda: train(cached)], 3)
    note = f"{BATCH * count / ours:.0f} windows a second; plain: from memory; at least .9 is asked"
    yield f"CPC step, {encoder.channels} channels and a GRU, from the cache", plain / count, ours / count, note


def in_turns(calls: list[Callable[[], object]], times: int) -> list[float]:
    """CPU seconds of the quickest of so many calls of each, in turns, so that a busy machine meets all."""
    best = [float("inf")] * len(calls)
    for repeat in range(times + 1):
        for i, call in enumerate(calls):
            started = time.process_time()
            call()
            if repeat:
                best[i] = min(best[i], time.process_time() - started)
    return best


def resident(groups: list, total: int) -> Iterator[Row]:
    """Memory that an epoch adds to the process, against a budget of a quarter of the corpus."""
    budget = total // 4
    dataset = WindowDataset(groups, SIZE, RATE, room=budget)
    order = np.random.default_rng(1).permutation(len(dataset)).tolist()
    dataset.__getitems__([Draw(0, item) for item in order[:BATCH]])
    before, most = _resident_bytes(), 0
    for first in range(0, len(order), BATCH):
        dataset.__getitems__([Draw(0, item) for item in order[first : first + BATCH]])
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
