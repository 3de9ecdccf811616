"""Training steps of the raw-waveform encoders in bf16, the CPC loss, and the memory of NT-Xent."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_audio.encoders import SampleCNN, WaveBYOL
from ssl_audio.losses import cpc_loss, nt_xent_loss, sample_negatives

Row = tuple[str, float | None, float | None, str]

PAIRS = 2048
MEASURE_NT_XENT = f"""
import re, torch
from pathlib import Path
from ssl_audio.losses import nt_xent_loss
z1, z2 = torch.randn(2, {PAIRS}, 64).unbind()
z1.requires_grad_()
def status(key):
    return int(re.search(key + ":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
nt_xent_loss(z1[:4], z2[:4]).backward()
before = status("VmRSS")
nt_xent_loss(z1, z2).backward()
print(status("VmHWM") - before)
"""


def rows() -> Iterator[Row]:
    torch.manual_seed(0)
    for name, encoder, shape in (("SampleCNN", SampleCNN(), (8, 59049)), ("WaveBYOL h2", WaveBYOL(), (4, 20480))):
        clips = torch.randn(shape)
        # In turns, so that what else the machine does meets both.
        times = [[best_of(1, training_step(encoder, clips, bf16)) for bf16 in (False, True)] for _ in range(4)]
        plain, ours = (min(column) for column in zip(*times[1:], strict=True))
        yield f"{name}, training step of {shape[0]} clips", plain, ours, "float32 beside the bf16 config"

    predictions = torch.randn(12, 8, 116, 512, requires_grad=True)
    latents = torch.randn(8, 128, 512, requires_grad=True)
    negatives = sample_negatives(8, 128, 116, 128)
    plain = best_of(1, lambda: cpc_loop(predictions, latents, negatives).backward())
    ours = best_of(3, lambda: cpc_loss(predictions, latents, negatives)[0].sum().backward())
    yield "CPC loss, 8 clips, 128 frames, 12 steps, 128 negatives", plain, ours, "loop over steps and negatives"

    z1, z2 = torch.randn(2, PAIRS, 64)
    seconds = best_of(3, lambda: nt_xent_loss(z1, z2))
    peak = subprocess.run([sys.executable, "-c", MEASURE_NT_XENT], capture_output=True, text=True, check=True).stdout
    broadcast = (2 * PAIRS) ** 2 * 64 * 4 / 2**20
    note = f"peak {float(peak):.0f} MB with its gradient; by broadcasting at least {broadcast:.0f} MB"
    yield f"NT-Xent, {PAIRS} pairs of 64", None, seconds, note


def best_of(count: int, run: Callable[[], object]) -> float:
    """Seconds of the fastest of `count` runs after one that warms up (none before a single run)."""
    times = []
    for _ in range(count + (count > 1)):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[count > 1 :])


def training_step(encoder: nn.Module, clips: Tensor, bf16: bool) -> Callable[[], None]:
    optimizer = torch.optim.Adam(encoder.parameters(), 1e-4)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            embeddings = encoder(clips)
        nt_xent_loss(*embeddings.float().chunk(2)).backward()
        optimizer.step()

    return step


def cpc_loop(predictions: Tensor, latents: Tensor, negatives: Tensor) -> Tensor:
    """The objective as it is written down: every step, every negative, a product of vectors."""
    steps, _, positions, dim = predictions.shape
    frames = latents.flatten(0, 1)
    total = predictions.new_zeros(())
    for k in range(1, steps + 1):
        prediction = predictions[k - 1].flatten(0, 1)
        scores = [(prediction * latents[:, k : k + positions].flatten(0, 1)).sum(1) / dim]
        for n in range(negatives.shape[2]):
            scores.append((prediction * frames[negatives[..., n].flatten()]).sum(1) / dim)
        total = total + cross_entropy(torch.stack(scores, 1), prediction.new_zeros(len(prediction), dtype=torch.long))
    return total
