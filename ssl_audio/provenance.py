"""What a result depends on besides its settings: versions, the state of the code, the weights of a model."""

import hashlib
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import nn

import ssl_audio
from ssl_audio.config import describe
from ssl_audio.errors import InputError

PACKAGES = ("torch", "numpy", "soundfile", "soxr", "nnAudio")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Of Python, of this package and of those whose change can change a result; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "ssl-audio": ssl_audio.__version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the code that runs and which files differ from it; None outside a clone."""
    root = Path(ssl_audio.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commit, changes = (
            subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True).stdout
            for arguments in (["rev-parse", "HEAD"], ["status", "--porcelain"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.strip(), "changed_files": [line[3:] for line in changes.splitlines()]}


def weights_digest(model: nn.Module) -> str:
    """SHA-256 over the names and bytes of all weights: two models with the same digest give the same embeddings."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(model: nn.Module) -> str:
    """Sixteen hex digits that follow from an `EmbeddingModel`'s construction, rate and weights."""
    parts = [getattr(model, name, None) for name in ("frontend", "encoder", "head")]
    try:
        built: Any = [describe(part) for part in parts if part is not None] or str(model)
    except (InputError, ValueError):
        built = str(model)  # a scripted module
    text = json.dumps([built, model.sample_rate, weights_digest(model)], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
