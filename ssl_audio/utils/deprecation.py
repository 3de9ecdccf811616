"""Old names that still work, with a warning that gives the new name."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def moved(old: str, new: str, since: str, renamed: Mapping[str, str] | None = None) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose content has moved. Every name is taken from the new module, with a warning.

        __getattr__ = moved(__name__, "ssl_audio.utils.malloc", since="0.2")

    Args:
        old, new: paths of the modules.
        since: release in which the content moved. The old path works for two more releases.
        renamed: {old name: new name} of what has another name in the new module.
    """

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        new_name = (renamed or {}).get(name, name)
        value = getattr(import_module(new), new_name)
        warnings.warn(f"{old}.{name} is {new}.{new_name} since {since}", FutureWarning, stacklevel=2)
        return value

    return __getattr__
