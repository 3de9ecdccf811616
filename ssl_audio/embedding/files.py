"""The loop that embeds files; all commands use it. Threads read headers and samples while the model runs.

The loop has four stages:

1. plan: read the header of a file and divide it into segments.
2. read: read a segment and cut it into clips.
3. batch: collect clips of exactly equal length.
4. forward: embed a batch.

Each stage is a generator that runs ahead of the next stage by a bounded amount, so memory does not grow with the number
of files. No clip is padded, so the embedding of a clip does not depend on the other clips of its batch.
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from ssl_audio import audio
from ssl_audio.embedding.look_up import FileEmbedding, looked_up, path_encoder, window_starts
from ssl_audio.errors import InputError
from ssl_audio.level import leveled
from ssl_audio.utils.cpu import available_cores
from ssl_audio.utils.device import best_device
from ssl_audio.utils.modes import evaluating

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

CHUNK_SECONDS = 60.0  # length of the segments of a long file, about
BATCH_SECONDS = 320.0  # audio in a batch, at most: 32 clips of 10 s
WHOLE_SECONDS = 1800.0  # longest file that is embedded as one clip: memory grows with the length of a clip
AHEAD_SAMPLES = 2**25  # audio that waits between two stages, at most: 128 MiB of float32


def embed_files(
    model: "EmbeddingModel",
    paths: Iterable[str | PathLike],
    *,
    batch_size: int | None = None,
    window_seconds: float | None = None,
    hop_seconds: float | None = None,
    aggregate: Literal["mean"] | None = None,
    device: str | torch.device | None = None,
    workers: int | None = None,
    on_error: Literal["raise", "report"] = "raise",
    change: Callable[[np.ndarray, int], np.ndarray] | None = None,
) -> Iterator[FileEmbedding]:
    """Embed audio files of any length, sample rate and format. The level of each clip is set by the model's rule.

    Args:
        model: an `EmbeddingModel`. It is in evaluation mode while the iterator is in use, and afterwards in the mode
            that it was in before. A model that looks embeddings up by path (`table:`) gets these paths, and no audio
            is read.
        paths: audio files.
        batch_size: clips of one length in a forward pass; default: 4 on a CPU (larger batches miss its caches), 64 on
            other devices.
        window_seconds: length of the windows to embed; None embeds each file whole, as one clip, up to half an hour.
            The last window is moved back to end at the end of the file. A file shorter than a window is one clip of
            its own length.
        hop_seconds: from the start of one window to the start of the next; default: the length of a window.
        aggregate: "mean" gives one embedding per file, the mean over its windows.
        device: where to move the model; None leaves it where it is.
        workers: threads that read files (libsndfile and soxr release the GIL); default: the number of cores, at most 8.
        on_error: what to do with a file that is unreadable, shorter than the model accepts, or not finite: "raise" its
            AudioError when it is the file's turn, or "report" it as a result with `error` and without `embedding`.
        change: function `((samples,), sample rate) -> (samples,)` that every decoded file goes through, at its own
            rate; only without windows.

    Returns:
        Results in the order of `paths`; the windows of a file in the order of time.

    Raises:
        InputError: a setting is invalid or a table lacks files (raised by the call itself); or a file is bad and
            `on_error` is "raise" (AudioError, raised by the iterator).
    """
    settings = _Settings.checked(
        model, batch_size, window_seconds, hop_seconds, aggregate, device, workers, on_error, change
    )
    table = path_encoder(model)
    if table is not None:
        files = [Path(path) for path in paths]
        found = looked_up(table, files, window_seconds, hop_seconds, aggregate is not None)
        return (result for result in found)  # a generator, which has a close() as `_embed` does
    if device is not None:
        model.to(settings.device)
    return _embed(model, paths, settings)


@dataclass(frozen=True)
class _Settings:
    """The checked settings of `embed_files`, in samples at the sample rate of the model."""

    sample_rate: int
    minimum_samples: int
    batch_size: int
    window: int | None  # None: each file is one clip
    hop: int
    aggregate: bool
    device: torch.device
    workers: int
    report: bool
    change: Callable[[np.ndarray, int], np.ndarray] | None = None

    @classmethod
    def checked(
        cls,
        model: "EmbeddingModel",
        batch_size: int | None,
        window_seconds: float | None,
        hop_seconds: float | None,
        aggregate: str | None,
        device: str | torch.device | None,
        workers: int | None,
        on_error: str,
        change: Callable[[np.ndarray, int], np.ndarray] | None,
    ) -> "_Settings":
        if change is not None and window_seconds is not None:
            raise InputError("change takes whole files; leave window_seconds out")
        if hop_seconds is not None and window_seconds is None:
            raise InputError("hop_seconds needs window_seconds; give both")
        numbers = {"batch_size": batch_size, "workers": workers, "window_seconds": window_seconds}
        for name, value in {**numbers, "hop_seconds": hop_seconds}.items():
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} must be above 0, not {value}")
        if aggregate not in (None, "mean"):
            raise InputError(f"aggregate must be 'mean' or None, not {aggregate!r}")
        if on_error not in ("raise", "report"):
            raise InputError(f"on_error must be 'raise' or 'report', not {on_error!r}")
        rate = model.sample_rate
        window = None if window_seconds is None else round(window_seconds * rate)
        if window is not None and window < model.minimum_samples:
            needed = model.minimum_samples / rate
            raise InputError(f"window_seconds {window_seconds} is too short; this model needs {needed:.3f} s or more")
        if device is None:
            device = next((parameter.device for parameter in model.parameters()), "cpu")
        device = best_device(device)
        return cls(
            sample_rate=rate,
            minimum_samples=model.minimum_samples,
            batch_size=int(batch_size or (4 if device.type == "cpu" else 64)),
            window=window,
            hop=max(1, round(hop_seconds * rate)) if hop_seconds is not None else window or 0,
            aggregate=aggregate is not None,
            device=device,
            workers=int(workers or min(8, available_cores())),
            report=on_error == "report",
            change=change,
        )


def _embed(model: "EmbeddingModel", paths: Iterable[str | PathLike], settings: _Settings) -> Iterator[FileEmbedding]:
    readers = ThreadPoolExecutor(settings.workers, "read")
    runner = _Runner(model, settings, paths)
    try:
        ahead = 2 * (settings.workers + settings.batch_size)
        plans = _map_ahead(readers, lambda item: _plan(item[0], item[1], settings), enumerate(map(Path, paths)), ahead)
        segments = (segment for plan in plans for segment in plan)
        reads = _map_ahead(readers, lambda item: _read(item, settings), segments, ahead, cost=lambda item: item.samples)
        batches = _batches((clip for clips in reads for clip in clips), settings)
        with evaluating(model):
            yield from _per_file(_in_order(runner.run(batches)), settings)
    finally:
        readers.shutdown(wait=False, cancel_futures=True)
        runner.close()


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable, items: Iterable, ahead: int, cost: Callable[[Any], int] | None = None
) -> Iterator:
    """An ordered `map` with at most `ahead` pending calls, or fewer if the sum of their costs exceeds AHEAD_SAMPLES."""
    waiting: deque[tuple[Future, int]] = deque()
    load = 0
    for item in items:
        price = cost(item) if cost else 0
        while waiting and (len(waiting) >= ahead or load + price > AHEAD_SAMPLES):
            future, paid = waiting.popleft()
            load -= paid
            yield future.result()
        waiting.append((pool.submit(function, item), price))
        load += price
    while waiting:
        yield waiting.popleft()[0].result()


# --- plan and read, in the reading threads


@dataclass(frozen=True)
class _Segment:
    """A part of one file that is read at once. All times are in samples at the sample rate of the model."""

    index: int
    path: Path
    samples: int  # expected length; 0 if the plan failed
    starts: Sequence[int] = (0,)  # of the windows
    window: int | None = None  # None: the whole file is one clip
    error: InputError | None = None


@dataclass(eq=False)
class _Clip:
    """A clip to embed, and later its embedding."""

    index: int
    path: Path
    start: int  # samples
    audio: np.ndarray | None  # (samples,) float32; None after the forward pass, or with an error
    error: InputError | None = None
    samples: int = 0
    silent: bool = False
    order: int = -1  # position among all clips
    embedding: np.ndarray | None = None


def _plan(index: int, path: Path, settings: _Settings) -> list[_Segment]:
    """Read the header of a file and divide the file into segments of about CHUNK_SECONDS."""
    try:
        info = audio.info(path)
    except InputError as error:
        return [_Segment(index, path, 0, error=error)]
    total = info.frames * settings.sample_rate // info.sample_rate
    if settings.window is None and info.seconds > WHOLE_SECONDS:
        problem = f"is {info.seconds / 60:.0f} minutes long, too long for one clip; embed windows (--window 10)"
        return [_Segment(index, path, 0, error=audio.AudioError(path, problem))]
    if settings.window is None or total <= settings.window:
        return [_Segment(index, path, total)]
    starts = window_starts(total, settings.window, settings.hop)
    at_once = max(1, int(CHUNK_SECONDS * settings.sample_rate) // settings.hop)
    groups = [starts[i : i + at_once] for i in range(0, len(starts), at_once)]
    return [_Segment(index, path, group[-1] + settings.window - group[0], group, settings.window) for group in groups]


def _read(segment: _Segment, settings: _Settings) -> list[_Clip]:
    """The clips of a segment. An error is returned as a clip with `error`, so that it is raised in the file's turn."""
    rate, window, index, path = settings.sample_rate, segment.window, segment.index, segment.path
    try:
        if segment.error is not None:
            raise segment.error
        if window is None:
            cut = [(0, _changed(path, settings) if settings.change else audio.read(path, rate))]
        else:
            cut = _windows(path, segment.starts, segment.samples, window, rate)
        shortest = min((len(waveform) for _, waveform in cut), default=settings.minimum_samples)
        if shortest < settings.minimum_samples:
            needed = settings.minimum_samples / rate
            raise audio.AudioError(path, f"{shortest / rate:.3f} s is too short; the model needs {needed:.3f} s")
    except InputError as error:
        return [_Clip(index, path, 0, None, error)]
    return [
        _Clip(index, path, start, waveform, samples=len(waveform), silent=audio.is_silent(waveform))
        for start, waveform in cut
    ]


def _windows(path: Path, starts: Sequence[int], samples: int, window: int, rate: int) -> list[tuple[int, np.ndarray]]:
    """(start, samples) of the windows of a stretch. In a file that ends before its header says, the last one ends with
    the audio, and a stretch behind that has none."""
    first = starts[0]
    with audio.AudioFile(path) as file:
        waveform = file.read(first, samples, rate)
        end = first + len(waveform)
        found = [(at, waveform[at - first : at - first + window]) for at in starts if at + window <= end]
        if len(found) < len(starts) and len(waveform):
            last = max(0, end - window)
            if not found or found[-1][0] < last:
                found.append((last, file.read(last, window, rate)))
    if not found and first == 0:
        raise audio.AudioError(path, "holds no audio from sample 0 on")
    return found


def _changed(path: Path, settings: _Settings) -> np.ndarray:
    """A whole file after `settings.change`, at the rate of the model."""
    assert settings.change is not None
    with audio.AudioFile(path) as file:
        decoded, rate = file.read(), file.info.sample_rate
    return audio.resample(settings.change(decoded, rate), rate, settings.sample_rate)


# --- batch and forward


def _batches(clips: Iterable[_Clip], settings: _Settings) -> Iterator[list[_Clip]]:
    """Group clips of exactly equal length. A clip waits for a bounded number of other clips."""
    waiting: dict[int, list[_Clip]] = {}  # {length: clips}; the first bucket holds the oldest clip
    patience = max(64, 4 * settings.batch_size)
    held = 0
    for order, clip in enumerate(clips):
        clip.order = order
        if clip.audio is None:
            yield [clip]
        else:
            bucket = waiting.setdefault(clip.samples, [])
            bucket.append(clip)
            held += clip.samples
            full_seconds = (len(bucket) + 1) * clip.samples > BATCH_SECONDS * settings.sample_rate
            if len(bucket) >= settings.batch_size or full_seconds:
                held -= len(bucket) * clip.samples
                yield waiting.pop(clip.samples)
        while waiting and (held > AHEAD_SAMPLES or order - next(iter(waiting.values()))[0].order > patience):
            bucket = waiting.pop(next(iter(waiting)))
            held -= len(bucket) * bucket[0].samples
            yield bucket
    yield from waiting.values()


class _Runner:
    """Runs forward passes: on a CPU one per torch thread in parallel, each on one thread; elsewhere one at a time.

    On a CPU, several small passes in parallel use the cores better than one pass that splits every operation (measured
    with EfficientNet-B0 on two cores: 1.5 to 2.5 times faster), and they can have different lengths.
    """

    def __init__(self, model: "EmbeddingModel", settings: _Settings, paths: Iterable) -> None:
        self.model, self.device = model, settings.device
        self.all_threads = torch.get_num_threads()
        self.parallel = self.all_threads if self.device.type == "cpu" else 1
        if settings.window is None and isinstance(paths, Sequence):
            self.parallel = max(1, min(self.parallel, len(paths)))
        threads = self.all_threads // self.parallel if self.device.type == "cpu" else self.all_threads
        self.pool = ThreadPoolExecutor(self.parallel, "forward", torch.set_num_threads, (threads,))

    def run(self, batches: Iterable[list[_Clip]]) -> Iterator[list[_Clip]]:
        return _map_ahead(self.pool, self._forward, batches, self.parallel + 1)

    @torch.inference_mode()
    def _forward(self, batch: list[_Clip]) -> list[_Clip]:
        clips = [clip.audio for clip in batch if clip.audio is not None]
        if clips:
            waveforms = torch.from_numpy(np.stack(clips))  # (batch, samples)
            if self.device.type == "cuda":
                waveforms = waveforms.pin_memory().to(self.device, non_blocking=True)
            try:
                waveforms = leveled(self.model, waveforms.to(self.device))
                embeddings = self.model(waveforms).float().cpu().numpy()
            except (MemoryError, RuntimeError) as error:
                if not _out_of_memory(error):
                    raise
                if len(batch) > 1:
                    return [clip for single in batch for clip in self._forward([single])]
                seconds = batch[0].samples / self.model.sample_rate
                problem = f"there is not enough memory for a clip of {seconds:.0f} s; embed windows (--window 10)"
                batch[0].audio, batch[0].error = None, audio.AudioError(batch[0].path, problem)
                return batch
            for clip, embedding in zip(batch, embeddings, strict=True):
                clip.audio, clip.embedding = None, embedding
        return batch

    def close(self) -> None:
        self.pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(self.all_threads)  # a thread's setting is also the default of threads that start later


def _out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "memory" in str(error).lower()


# --- results in the order of the files


def _in_order(batches: Iterable[list[_Clip]]) -> Iterator[_Clip]:
    """The clips of all batches, in the order in which they were read."""
    waiting: dict[int, _Clip] = {}
    turn = 0
    for batch in batches:
        waiting.update((clip.order, clip) for clip in batch)
        while turn in waiting:
            yield waiting.pop(turn)
            turn += 1


def _per_file(clips: Iterable[_Clip], settings: _Settings) -> Iterator[FileEmbedding]:
    """The results of each file once all of it is known: a file is either embedded or reported, never both."""
    for _, group in itertools.groupby(clips, key=lambda clip: clip.index):
        yield from _results(list(group), settings)


def _results(clips: list[_Clip], settings: _Settings) -> Iterator[FileEmbedding]:
    index, path, rate = clips[0].index, clips[0].path, settings.sample_rate
    error = next((clip.error for clip in clips if clip.error is not None), None)
    if error is None and all(clip.silent for clip in clips):
        error = audio.AudioError(path, audio.SILENT)
    if error is None and not all(np.isfinite(clip.embedding).all() for clip in clips if clip.embedding is not None):
        error = audio.AudioError(path, "the model gives NaN or infinite values for it")
    if error is not None:
        if not settings.report:
            raise error
        yield FileEmbedding(index, path, 0.0, 0.0, None, str(error))
        return
    embeddings = [clip.embedding for clip in clips if clip.embedding is not None]
    if settings.aggregate:
        end = (clips[-1].start + clips[-1].samples) / rate
        mean = np.stack(embeddings).mean(axis=0, dtype=np.float64).astype(np.float32)
        yield FileEmbedding(index, path, 0.0, end, mean)
        return
    for clip, embedding in zip(clips, embeddings, strict=True):
        yield FileEmbedding(index, path, clip.start / rate, (clip.start + clip.samples) / rate, embedding)
