"""The files that come with the package but are no code: `train_configs/` and `metadata/`.

A wheel carries both folders inside the package; in a clone they lie beside it.
"""

from importlib.resources import files
from pathlib import Path

from ssl_audio.errors import InputError


def packaged(name: str) -> Path:
    """The file or folder of this name: `packaged("train_configs")`, `packaged("metadata/labels/gtzan.txt")`.

    Raises:
        InputError: the installation is incomplete.
    """
    package = Path(str(files("ssl_audio")))
    for folder in (package, package.parent):
        if (folder / name).exists():
            return folder / name
    raise InputError(f"{name} is missing beside {package}; install ssl-audio again, from a wheel or a whole clone")


def packaged_names(name: str) -> tuple[str, ...]:
    """The lines of a packaged text file in their order, without empty ones and comments (`# ...`)."""
    lines = packaged(name).read_text(encoding="utf-8").splitlines()
    return tuple(line.strip() for line in lines if line.strip() and not line.startswith("#"))
