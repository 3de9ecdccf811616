"""Provenance of a result: versions of packages, the git state of the code, and the fingerprint of a model."""

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
from ssl_audio.level import level_name, level_of
from ssl_audio.version import __version__

PACKAGES = ("torch", "numpy", "soundfile", "soxr", "nnAudio")


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str | None]:
    """Versions of Python, of this package and of packages that can change a result.

    Args:
        packages: names of packages.

    Returns:
        {name: version}; None for a package that is not installed.
    """
    found: dict[str, str | None] = {"python": platform.python_version(), "ssl-audio": __version__}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def git_state() -> dict[str, Any] | None:
    """{"commit", "changed_files"} of the running code; None if it is not in a git clone."""
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
    """SHA-256 of the names, shapes, types and values of all weights and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def fingerprint(model: nn.Module) -> str:
    """Sixteen hex digits that identify a model by its description, sample rate and weights.

    Args:
        model: a module with `sample_rate` that `config.describe` can describe or that contains a TorchScript module.

    Raises:
        InputError: a part does not store its arguments, so that two different models could have one fingerprint.
    """
    parts = list(model.modules())
    outside = any(getattr(part, "outside", None) is not None for part in parts)
    scripted = not outside and any(isinstance(part, torch.jit.ScriptModule) for part in parts)
    description = str(model) if scripted else identity(describe(model, outside=True))
    level = [level_name(level_of(model))] if scripted and level_of(model) != "none" else []
    return _digest([description, *level, model.sample_rate, weights_digest(model)])


def made_by(model: nn.Module, recorded: str) -> bool:
    """Whether a recorded fingerprint is that of the model, as computed by this release or by 0.1.0."""
    return recorded in (fingerprint(model), fingerprint_in_0_1(model))


def fingerprint_in_0_1(model: nn.Module) -> str:
    """The fingerprint of a model as computed by 0.1.0, which used only the frontend, encoder and head.

    Returns:
        The fingerprint; "" for models that 0.1.0 could not distinguish (statistics of mel bands, wrappers) or not make.
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
    """The description of a module as `config.describe` of 0.1.0 gave it: private class paths, no newer arguments."""
    description = describe(module)
    description["init_args"] = {
        name: value for name, value in description["init_args"].items() if name not in ("level", "level_in_forward")
    }
    return _with_old_paths(identity(description))


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
