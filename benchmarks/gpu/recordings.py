"""The folder of recordings that rows share: synthetic voices in FLAC or MP3, one folder per singer."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.gpu.figures import Figure, Setting
from ssl_audio import audio

RATE = 44100


def recordings(setting: Setting, kind: str) -> Path:
    """Their folder, written if it is not there: 280 recordings of 12 s of 140 singers (5 of 1.5 s in a smoke test)."""
    from benchmarks.bench_augmentations import voices

    root = setting.folder / kind
    if root.is_dir():
        return root
    count, seconds = (8, 1.5) if setting.smoke else (280, 12.0)
    sounds = voices(round(seconds * RATE), RATE, min(count, 16))  # noise added below makes the others differ
    partial = setting.folder / f"{kind}.partial"

    def write(i: int) -> None:
        audio.write(
            partial / f"singer{i // 2:03}" / f"{i % 2}.{kind}", sounds[i % len(sounds)] * (1 - i / (2 * count)), RATE
        )

    with ThreadPoolExecutor(setting.cores) as pool:
        list(pool.map(write, range(count)))
    partial.rename(root)
    return root


def write(setting: Setting) -> list[Figure]:
    """Write both folders; a row of its own, so that those that read them are not cut short by it."""
    import time

    started = time.perf_counter()
    files = [path for kind in ("flac", "mp3") for path in recordings(setting, kind).rglob(f"*.{kind}")]
    return [
        Figure(
            "recordings written for the rows below", len(files), "files", note=f"{time.perf_counter() - started:.0f} s"
        )
    ]
