"""A folder of recordings to embeddings, files decoded by all cores."""

import time

import torch

from benchmarks.gpu.figures import Figure, Setting
from benchmarks.gpu.recordings import recordings
from ssl_audio.embedding import embed_files
from ssl_audio.encoders import EfficientNet
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.model import EmbeddingModel

GOAL = 10_000  # times real time, with 16 cores


def folder(setting: Setting, kind: str) -> list[Figure]:
    """Seconds of audio a second, EfficientNet-B0 at 44.1 kHz, files of equal length."""
    paths = sorted(recordings(setting, kind).rglob(f"*.{kind}"))
    repeats = 1 if setting.smoke else 8
    torch.manual_seed(0)
    model = EmbeddingModel(LogMelSpectrogram(), EfficientNet()).eval().to(setting.device)
    list(embed_files(model, paths[: len(paths) // 2], workers=setting.cores))
    setting.reset_memory()
    started = time.perf_counter()
    results = list(embed_files(model, paths * repeats, workers=setting.cores))
    took = time.perf_counter() - started
    heard = sum(result.end - result.start for result in results)
    return [
        Figure(
            f"embedding a folder of {kind.upper()}",
            heard / took,
            "times real time",
            setting.peak_gb(),
            goal=f"{GOAL} times with 16 cores" if kind == "flac" else "",
            met=None if setting.smoke or kind != "flac" or setting.cores < 16 else heard / took >= GOAL,
            note=f"{len(results)} files, {heard / 3600:.2f} h, {setting.cores} readers, EfficientNet-B0, float32",
        )
    ]
