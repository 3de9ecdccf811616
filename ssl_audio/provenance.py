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

from ssl_audio.config import MOVED, describe, find, identity
from ssl_audio.errors import InputError
from ssl_audio.version import __version__

PACKAGES = ("torch", "numpy", "soundfile", "soxr", "nnAudio")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Of Python, of this package and of those whose change can change a result; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version(), "ssl-audio": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the code that runs and which files differ from it; None outside a clone."""
    root = Path(__file__).resolve().parents[1]
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
    """Sixteen hex digits that follow from a model's description, rate and weights.

    Args:
        model: described by `config.describe`, or with a TorchScript module in it; has `sample_rate`.

    Raises:
        InputError: a part does not store its arguments, so that two different models could look alike.
    """
    parts = list(model.modules())
    outside = any(getattr(part, "outside", None) is not None for part in parts)
    scripted = not outside and any(isinstance(part, torch.jit.ScriptModule) for part in parts)
    description = str(model) if scripted else identity(describe(model, outside=True))
    return _digest([description, model.sample_rate, weights_digest(model)])


def made_by(model: nn.Module, recorded: str) -> bool:
    """Whether the fingerprint in a file is this model's, as this release computes it or as 0.1.0 did."""
    return recorded in (fingerprint(model), fingerprint_in_0_1(model))


def fingerprint_in_0_1(model: nn.Module) -> str:
    """What `fingerprint` of 0.1.0 gave: it saw the frontend, encoder and head alone.

    "" for models that it could not tell apart (the statistics of mel bands, wrappers), and for those that 0.1.0 could
    not have made.
    """
    if not {"frontend", "encoder", "head"} <= {*dict(model.named_children()), *vars(model)}:
        return ""
    parts: list[Any] = [part for part in (model.frontend, model.encoder, model.head) if part is not None]
    try:
        built: Any = [description_in_0_1(part) for part in parts]
    except InputError:
        built = str(model)
    return _digest([built, model.sample_rate, weights_digest(model)])


def description_in_0_1(module: nn.Module) -> Any:
    """What `config.describe` of 0.1.0 gave: with the modules' private paths, and without the arguments of today."""
    return _with_old_paths(identity(describe(module)))


def _with_old_paths(description: Any) -> Any:
    if isinstance(description, list):
        return [_with_old_paths(item) for item in description]
    if not isinstance(description, dict):
        return description
    changed = {key: _with_old_paths(value) for key, value in description.items()}
    if "class_path" in changed:
        kind = find(changed["class_path"])
        old = [old for old, new in MOVED.items() if find(new) is kind]
        changed["class_path"] = old[0] if old else f"{kind.__module__}.{kind.__qualname__}"
    return changed


def short_digest(content: bytes) -> int:
    """The first 63 bits of SHA-256: enough to tell recordings, or names that are not to be given away, apart."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big") >> 1


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()[:16]
