"""Everything that identifies a machine and the code that ran on it."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import torch

from ssl_audio.provenance import git_state

_QUERY = (
    "name,uuid,driver_version,vbios_version,memory.total,power.limit,clocks.max.sm,clocks.max.mem,pcie.link.gen.max,"
    "ecc.mode.current,mig.mode.current"
)
PACKAGES = ("torch", "numpy", "scipy", "soundfile", "soxr", "pytorch-lightning", "audiomentations", "praat-parselmouth")


def describe(device: str) -> dict[str, Any]:
    """Of this process's machine: device, processor, memory, versions, state of the repository, date."""
    installed = {found.metadata["Name"]: found.version for found in distributions()}
    about: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "device": {"kind": device},
        "processor": {"name": _processor(), "cores": len(os.sched_getaffinity(0)), "machine": platform.machine()},
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: installed.get(name) for name in PACKAGES},
        "torch": {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version() if device == "cuda" else None,
            "threads": torch.get_num_threads(),
            "matmul_precision": torch.get_float32_matmul_precision(),
            "cudnn_allow_tf32": torch.backends.cudnn.allow_tf32,
        },
        "code": git_state(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about["device"] |= {
            "name": properties.name,
            "memory_gb": round(properties.total_memory / 1e9, 1),
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "count": torch.cuda.device_count(),
            "nvidia_smi": _nvidia_smi(),
        }
    return about


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether figures of both may stand in one table: same device, processor and torch, same commit."""
    return _key(one) == _key(other)


def _key(about: dict[str, Any]) -> tuple:
    code = about["code"] or {}
    device = {name: about["device"].get(name) for name in ("kind", "name", "memory_gb")}
    return device, about["processor"], about["packages"]["torch"], code.get("commit")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def _nvidia_smi() -> dict[str, str] | None:
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader", "--id=0"]
    try:
        line = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(_QUERY.split(","), (value.strip() for value in line.split(",")), strict=False))
