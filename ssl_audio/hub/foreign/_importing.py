"""Import foreign code by module name or path, and call its functions."""

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_audio.errors import InputError, first_line, suggest
from ssl_audio.hub.foreign._external import External, file_sha256


def import_code(origin: str, name: str) -> ModuleType:
    """Import a module by its dotted name or by the path of its file. A file may import from its own folder.

    Raises:
        InputError: there is no such module, or its import fails.
    """
    path = Path(name).expanduser()
    try:
        if not name.endswith(".py"):
            return import_module(name)
        if not path.is_file():
            raise InputError(f"{origin}: {path}: no such file")
        return _import_file(path.resolve())
    except InputError:
        raise
    except ModuleNotFoundError as error:
        if error.name and name.startswith(error.name):
            raise InputError(
                f"{origin}: there is no module {error.name!r}; install it, or give the path of a .py file"
            ) from error
        raise InputError(f"{origin} needs {error.name}; install it first") from error
    except Exception as error:  # the code of a module can raise anything
        raise InputError(f"{origin} cannot be imported: {type(error).__name__}: {first_line(error)}") from error


def _import_file(path: Path) -> ModuleType:
    name = f"ssl_audio_foreign_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # data classes and pickle look modules up there
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(path.parent))
    return module


def attribute(origin: str, module: ModuleType, name: str) -> Any:
    """`module.name`; the name may contain dots.

    Raises:
        InputError: there is no such attribute.
    """
    found: Any = module
    for part in name.split("."):
        if not hasattr(found, part):
            names = [key for key in dir(found) if not key.startswith("_")]
            raise InputError(f"{origin}: {getattr(module, '__name__', module)} has no {name!r}{suggest(part, names)}")
        found = getattr(found, part)
    return found


def code_sha256(module: ModuleType) -> str:
    """Hexadecimal SHA-256 of the file of a module; of its name if it has no file."""
    file = getattr(module, "__file__", None)
    return file_sha256(file) if file else hashlib.sha256(module.__name__.encode()).hexdigest()


def told_rate(origin: str, options: Mapping[str, Any], *holders: Any) -> int:
    """The sample rate in Hz: the attribute `sample_rate` or `sampling_rate` of a holder, else the option `rate`.

    Args:
        origin: the address, for messages.
        options: options of the address.
        holders: objects that may have the attribute.

    Raises:
        InputError: there is neither, or the two differ.
    """
    names = ("sample_rate", "sampling_rate")
    told = next((getattr(one, name) for one in holders for name in names if getattr(one, name, None)), None)
    asked = options.get("rate")
    if told is None and asked is None:
        raise InputError(f"{origin}: its sample rate is unknown; add it, such as ?rate=16000")
    if told is not None and asked is not None and asked != int(told):
        raise InputError(f"{origin} takes {told} Hz, not {asked}; leave rate out, because audio is resampled")
    return int(told or asked or 0)


class CallEncoder(External):
    """An encoder of waveforms that calls a function.

    Args:
        function: maps `(batch, samples)` float32 to `(batch, dim)` or `(batch, time, dim)`.
        rate: sample rate, passed as the second argument; None passes no second argument.
        array: pass a NumPy array instead of a tensor.
        short: see `ClipEncoder`.

    Raises:
        InputError: `function` cannot be called.
    """

    def __init__(self, function: Any, rate: int | None = None, array: bool = False, short: str = "refuse") -> None:
        super().__init__(short)
        if not callable(function):
            raise InputError(f"{function!r} cannot be called")
        self.function = function.eval() if isinstance(function, nn.Module) else function
        self.rate = rate
        self.array = array

    def call(self, clips: Tensor) -> Any:
        """`(batch, samples)` -> `(batch, dim)` or frames."""
        given: Any = np.ascontiguousarray(clips.cpu().numpy()) if self.array else clips
        found = self.function(given) if self.rate is None else self.function(given, self.rate)
        return torch.from_numpy(np.asarray(found)) if not isinstance(found, Tensor) else found
