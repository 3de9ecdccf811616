"""Old names that go on working, and say once where the thing is now."""

import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any


def moved(old: str, new: str, since: str) -> Callable[[str], Any]:
    """The `__getattr__` of a module whose content has moved: every name comes from its new home, with a FutureWarning.

        __getattr__ = moved(__name__, "ssl_audio.utils.malloc", since="0.2")

    Args:
        old, new: module paths.
        since: the release that moved it. The old path works for two releases more.
    """

    def __getattr__(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(f"module {old!r} has no attribute {name!r}")
        value = getattr(import_module(new), name)
        warnings.warn(f"{old}.{name} is {new}.{name} since {since}", FutureWarning, stacklevel=2)
        return value

    return __getattr__
