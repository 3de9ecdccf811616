"""From disk: preparing, scanning, reading a part. Synthetic recordings in a temporary folder."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import soundfile
import soxr

from ssl_audio import audio
from ssl_audio.cli import run_command
from ssl_audio.data.index import AudioEntry, AudioIndex
from ssl_audio.data.scan import cache_path, scan_folder
from ssl_audio.data.store import attach, build, open_recording

Row = tuple[str, float, float, str]


def rows() -> Iterator[Row]:
    """(what, seconds of the plain way, our seconds, note)."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SSL_AUDIO_CACHE"] = os.path.join(folder, "cache")
        yield from preparation(Path(folder))
        yield from scanning(Path(folder))
        yield from parts(Path(folder))
        yield from views(Path(folder))


def seconds(call: Callable[[], object], times: int = 1) -> float:
    """The quickest of so many calls."""
    best = float("inf")
    for _ in range(times):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best


def song(length: float, rate: int, channels: int = 1) -> np.ndarray:
    noise = np.random.default_rng(0).standard_normal((round(length * rate), channels)).cumsum(0)
    return (noise / np.abs(noise).max() * 0.9).astype(np.float32)


def preparation(folder: Path, recordings: int = 12, length: float = 30.0) -> Iterator[Row]:
    clip = song(length, 48000)
    for n in range(recordings):
        (folder / "set" / f"s{n % 3}").mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "set" / f"s{n % 3}" / f"{n}.wav", clip, 48000)

    def ours() -> None:
        shutil.rmtree(folder / "set_renamed_split_4s", ignore_errors=True)
        with contextlib.redirect_stdout(io.StringIO()):
            arguments = ["--dataset_root_dir", str(folder), "--dataset_name", "set", "--segment_length", "4"]
            assert run_command("preprocess", [*arguments, "--sample_rate", "44100"]) == 0

    our_seconds = seconds(ours, 2)
    segments = len(list((folder / "set_renamed_split_4s").rglob("*.wav")))
    programs: dict[str, Callable[[str], object]] = {
        "a process a segment (Python with the same libraries)": lambda code: subprocess.run(
            [sys.executable, "-c", code], check=True
        ),
        "a process a segment (an empty one: no program starts quicker)": lambda code: (
            exec(code, {}),
            subprocess.run(["true"], check=True),
        ),
    }
    for name, run in programs.items():
        plain = seconds(lambda run=run: one_process_a_segment(folder, run))  # type: ignore[misc]
        yield f"preparing {segments} segments of 4 s", plain, our_seconds, f"plain: {name}"


def one_process_a_segment(folder: Path, run: Callable[[str], object]) -> None:
    """The specification step by step: convert each file, ask for its length, cut each segment, each by a program."""
    target = folder / "plain"
    for path in sorted((folder / "set").rglob("*.wav")):
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        whole = target / path.parent.name / path.name
        run(
            f"import soundfile, soxr; x, r = soundfile.read({str(path)!r}, dtype='float32'); "
            f"soundfile.write({str(whole)!r}, soxr.resample(x, r, 44100), 44100)"
        )
        run(f"import soundfile; soundfile.info({str(whole)!r})")
        for start in range(0, int(soundfile.info(whole).duration) // 4 * 4, 4):
            cut = target / path.parent.name / f"{path.stem}_{start}_{start + 4}_4s.wav"
            run(
                f"import soundfile; x, r = soundfile.read({str(whole)!r}, start={start * 44100}, frames={4 * 44100}, "
                f"dtype='float32'); soundfile.write({str(cut)!r}, x, r)"
            )
        whole.unlink()
    shutil.rmtree(target)


def scanning(folder: Path, files: int = 10_000) -> Iterator[Row]:
    many = folder / "many"
    clip = song(1.0, 16000)
    for n in range(files):
        path = many / f"singer{n % 100}" / f"{n}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, clip, 16000) if n == 0 else shutil.copyfile(many / "singer0" / "0.wav", path)

    def first() -> None:
        cache_path(many).unlink(missing_ok=True)
        scan_folder(many, progress=False)

    plain = seconds(lambda: [soundfile.info(os.path.join(at, n)) for at, _, names in os.walk(many) for n in names])
    first_start, second_start = seconds(first), seconds(lambda: scan_folder(many, progress=False), 3)
    yield f"second start on {files:,} files", first_start, second_start, "plain: our first start, which decodes all"
    yield f"second start on {files:,} files", plain, second_start, "plain: opening each file for its length"


def parts(folder: Path, length: float = 180.0) -> Iterator[Row]:
    clip = song(length, 44100, 2)
    for suffix in ("wav", "flac"):
        path = folder / f"track.{suffix}"
        audio.write(path, clip, 44100)
        rng = np.random.default_rng(0)

        def part(path: Path = path, rng: np.random.Generator = rng) -> None:
            audio.read(path, 44100, start=int(rng.integers(0, 44100 * 170)), samples=119_070)

        def whole(path: Path = path) -> None:
            samples, _ = soundfile.read(path, dtype="float32")
            samples.mean(1)

        ours = seconds(lambda part=part: [part() for _ in range(20)], 3) / 20  # type: ignore[misc]
        yield (
            f"random 2.7 s of a 3-minute stereo {suffix}",
            seconds(whole, 2),
            ours,
            "plain: decode the track, then cut",
        )

    def resampled_whole() -> None:
        samples, rate = soundfile.read(folder / "track.flac", dtype="float32")
        soxr.resample(samples.mean(1), rate, 16000)

    ours = seconds(lambda: [audio.read(folder / "track.flac", 16000, 16000 * n, 64000) for n in range(0, 160, 8)]) / 20
    yield "4 s at 16 kHz of a 3-minute stereo flac", seconds(resampled_whole), ours, "plain: decode and resample all"


def views(folder: Path, length: float = 20.0, samples: int = 176_000) -> Iterator[Row]:
    """Two views of 4 s at 44.1 kHz from the store, against opening the recording for each of them."""
    clip = song(length, 44100)[:, 0]
    for suffix in ("wav", "flac"):
        for n in range(20):
            audio.write(folder / f"set-{suffix}" / "s" / f"{n}.{suffix}", clip, 44100)
        build(folder / f"set-{suffix}", 44100, progress=False)
        index, found, _ = attach(AudioIndex.scan([folder / f"set-{suffix}"], progress=False), 44100)
        entries = index.groups[0].entries
        assert found == len(entries) == 20
        starts = np.random.default_rng(0).integers(0, len(clip) - samples, (len(entries), 2)).tolist()

        def plain(entries: tuple[AudioEntry, ...] = entries, starts: list[list[int]] = starts) -> None:
            for entry, pair in zip(entries, starts, strict=True):
                for start in pair:
                    soundfile.read(entry.path, samples, start, dtype="float32")

        def ours(entries: tuple[AudioEntry, ...] = entries, starts: list[list[int]] = starts) -> None:
            for entry, pair in zip(entries, starts, strict=True):
                with open_recording(entry) as file:
                    for start in pair:
                        file.read(start, samples, 44100)

        yield (
            f"two 4 s views of a {suffix}",
            seconds(plain, 5) / len(entries),
            seconds(ours, 5) / len(entries),
            "ours: from the cache; plain: two soundfile reads of float32",
        )
