"""The published augmentation chain in batches on the device, against the same chain clip by clip on one core."""

import time

import numpy as np
import torch
import yaml

from benchmarks.bench_augmentations import CONFIGS, chain, voices
from benchmarks.gpu.figures import Figure, Setting
from ssl_audio.config import build

RATE, GOAL = 44100, 50


def against_one_core(setting: Setting) -> list[Figure]:
    samples, clips, slow = (22050, 4, 1) if setting.smoke else (176_000, 280, 8)
    sounds = voices(samples, RATE, min(clips, 16))
    config = yaml.safe_load((CONFIGS / "clip.yaml").read_text())["data"]["init_args"]["augmentation"]
    per_clip, rng = build(config, trusted=True), np.random.default_rng(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    per_clip(sounds[0], RATE, rng)
    started = time.process_time()
    for i in range(slow):
        per_clip(sounds[i % len(sounds)], RATE, rng)
    one_core = (time.process_time() - started) / slow
    torch.set_num_threads(threads)

    batch = torch.from_numpy(np.resize(sounds, (clips, samples))).to(setting.device)
    device, generator = chain("device").to(setting.device), torch.Generator(setting.device).manual_seed(0)
    device(batch, RATE, generator)
    setting.reset_memory()
    setting.synchronize()
    started, calls = time.perf_counter(), 0
    while calls == 0 or time.perf_counter() - started < setting.seconds:
        device(batch, RATE, generator)
        setting.synchronize()
        calls += 1
    ours = (time.perf_counter() - started) / calls / clips
    note = f"{clips} clips of {samples / RATE:.1f} s; one core {1e3 * one_core:.1f} ms a clip (audiomentations, Praat)"
    goal = {"goal": f"{GOAL} times", "met": None if setting.smoke else one_core / ours >= GOAL}
    return [
        Figure("the published chain on the device", 1 / ours, "clips/s", setting.peak_gb(), note=note),
        Figure("the same, against one core clip by clip", one_core / ours, "times", **goal),
    ]
