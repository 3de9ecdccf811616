"""What a row measures, and the sizes at which it does."""

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Args:
        what: is measured.
        value, unit: of the figure.
        memory_gb: peak memory on the device; None where it was not measured.
        goal: in words; "" where there is none.
        met: whether it was reached; None without a goal, and in a smoke test.
        note: how it was measured.
    """

    what: str
    value: float
    unit: str
    memory_gb: float | None = None
    goal: str = ""
    met: bool | None = None
    note: str = ""


@dataclass(frozen=True)
class Setting:
    """Where rows run, and how large.

    Args:
        device: cuda or cpu.
        smoke: tiny sizes, so that everything runs on a CPU in under a minute; the figures then mean nothing.
        folder: for recordings and runs; rows share it.
        cores: that may read files.
    """

    device: str
    smoke: bool
    folder: Path
    cores: int

    @property
    def seconds(self) -> float:
        """How long one figure is measured."""
        return 0.05 if self.smoke else 5.0

    def synchronize(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def reset_memory(self) -> None:
        if self.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def peak_gb(self) -> float | None:
        """Of what torch held on the device since `reset_memory`, in 10^9 bytes."""
        return torch.cuda.max_memory_reserved() / 1e9 if self.device == "cuda" else None
