"""Nearest neighbours and all-pairs scores on the device, beside what the package does on the CPU."""

import time

import numpy as np
import torch

from benchmarks.gpu.figures import Figure, Setting
from ssl_audio.evaluation.scoring import all_pairs_curve
from ssl_audio.retrieval.search import ExactSearch

DIM, BINS = 256, 1 << 18


def _rows(setting: Setting, count: int) -> torch.Tensor:
    generator = torch.Generator(setting.device).manual_seed(0)
    return torch.nn.functional.normalize(torch.randn(count, DIM, generator=generator, device=setting.device), dim=1)


def nearest(setting: Setting) -> list[Figure]:
    """The ten nearest of 1,000 queries among 1,000,000 rows; the package's exact search on a tenth of them."""
    rows = _rows(setting, 2_000 if setting.smoke else 1_000_000)
    queries = rows[: min(1000, len(rows) // 10)]

    def found() -> torch.Tensor:
        return torch.cat([(block @ rows.T).topk(10).indices for block in queries.split(250)])

    indices = found()
    setting.reset_memory()
    setting.synchronize()
    started = time.perf_counter()
    found()
    setting.synchronize()
    device = time.perf_counter() - started
    few = rows[: len(rows) // 10].cpu().numpy()
    search = ExactSearch(few)
    started = time.perf_counter()
    search.nearest(queries.cpu().numpy(), 10)
    cpu = time.perf_counter() - started
    first = float((indices[:, 0].cpu() == torch.arange(len(queries))).double().mean())
    note = f"{len(rows):,} x {DIM}, 10 nearest; a query finds itself first in {100 * first:.1f} %"
    return [
        Figure("exact search on the device (torch)", len(queries) / device, "queries/s", setting.peak_gb(), note=note),
        Figure("exact search of the package on the CPU", len(queries) / cpu, "queries/s", note=f"{len(few):,} x {DIM}"),
    ]


def all_pairs(setting: Setting) -> list[Figure]:
    """Cosines of all pairs into 2^18 bins on the device, and the package's error curve on the CPU."""
    count = 500 if setting.smoke else 100_000
    rows = _rows(setting, count)
    singers = torch.arange(count, device=setting.device) % (count // 20)

    def counted() -> torch.Tensor:
        totals = torch.zeros(2 * BINS, dtype=torch.int64, device=setting.device)
        for first in range(0, count, 2000):
            block = slice(first, first + 2000)
            bins = ((rows[block] @ rows[first:].T + 1) * (BINS / 2)).long().clamp_(0, BINS - 1)
            bins += BINS * (singers[block, None] == singers[None, first:])
            later = torch.arange(first, count, device=setting.device)[None] > torch.arange(
                first, min(first + 2000, count), device=setting.device
            )[:, None]  # fmt: skip
            totals += torch.bincount(bins[later], minlength=2 * BINS)
        return totals

    pairs = int(counted().sum())
    setting.reset_memory()
    setting.synchronize()
    started = time.perf_counter()
    counted()
    setting.synchronize()
    device = time.perf_counter() - started
    few = count // 10
    started = time.perf_counter()
    all_pairs_curve(rows[:few].cpu().numpy(), np.arange(few) % max(2, few // 20))
    cpu = time.perf_counter() - started
    assert pairs == count * (count - 1) // 2, (pairs, count)
    return [
        Figure("all pairs scored and counted on the device (torch)", pairs / device, "pairs/s", setting.peak_gb(),
               note=f"{count:,} x {DIM}"),
        Figure("all pairs to an error curve on the CPU (the package)", few * (few - 1) / 2 / cpu, "pairs/s",
               note=f"{few:,} x {DIM}"),
    ]  # fmt: skip
