"""Read untrusted weight files safely, and load weights strictly.

A pickle can run code when it is read. The functions here unpickle only tensors and plain data.
"""

import os
import pickle
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import torch
from torch import Tensor, nn

from ssl_audio.errors import InputError, first_line


class UnsafeFileError(InputError):
    """Reading the file would run code."""


_SHOWN = 5  # keys of each kind that a message lists


def read_weights(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The content of a `.safetensors` file, or of a torch file with tensors and plain data. Tensors are on the CPU.

    Raises:
        UnsafeFileError: the file holds more than tensors and plain data.
        InputError: the file is missing, damaged, or of another format.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if not _is_torch_file(path):
        raise InputError(f"{path}: not a torch weight file, or damaged; fetch or write it again")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "WeightsUnpickler" in str(error) or "Unsupported" in str(error) or "GLOBAL" in str(error):
            raise UnsafeFileError(
                f"{path}: refused, because reading it would run code ({_refused_name(error)}); "
                "ask for a file with tensors and plain data only, such as ssl-audio convert writes"
            ) from error
        raise InputError(f"{path}: not a torch weight file, or damaged; fetch or write it again") from error
    except Exception as error:  # a damaged stream can make the unpickler raise anything
        raise InputError(f"{path}: truncated or damaged ({first_line(error)}); fetch or write it again") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors")
    return dict(content)


def read_without_code(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a torch file that names classes, such as an old Lightning checkpoint with callbacks and hyper-parameters.

    Every object of a class is replaced by an empty placeholder. No class that the file names is imported or called.

    Raises:
        InputError: the file is damaged, or cannot be read without running code.
    """
    from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

    try:
        placeholders = [
            (type("Placeholder", (_Placeholder,), {}), name)
            for name in get_unsafe_globals_in_checkpoint(os.fspath(path))
        ]
        with safe_globals(placeholders):  # type: ignore[arg-type]
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, BadZipFile, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: cannot be read without running code ({first_line(error)})") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: holds a {type(content).__name__}, not a dictionary of tensors")
    return dict(content)


class _Placeholder(dict[str, Any]):
    """Stands in for any unpickled class: accepts its arguments and its state, and runs nothing."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        pass


def load_strict(module: nn.Module, weights: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Load weights that fit the module exactly.

    A part with a method `before_loading` is first shown its own weights, so that it can take an older form of itself.

    Args:
        module: module to change in place.
        weights: {key of the module: tensor}.
        source: origin of the weights, for the message.

    Raises:
        InputError: keys are missing or unexpected, or shapes differ. The message lists the first five of each kind, and
            the module is unchanged.
    """
    foreign = [str(key) for key, value in weights.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if foreign:
        raise InputError(f"{source}: {len(foreign)} entries are not tensors with a name ({_some(foreign)})")
    for name, part in module.named_modules():
        if hasattr(part, "before_loading"):
            start = f"{name}." if name else ""
            part.before_loading({k.removeprefix(start): v for k, v in weights.items() if k.startswith(start)})
    own = module.state_dict()
    problems = []
    missing, unexpected = own.keys() - weights.keys(), weights.keys() - own.keys()
    if missing:
        problems.append(f"{len(missing)} keys missing ({_some(sorted(missing))})")
    if unexpected:
        problems.append(f"{len(unexpected)} keys that the model does not have ({_some(sorted(unexpected))})")
    shapes = [
        f"{key}: file {tuple(weights[key].shape)}, model {tuple(own[key].shape)}"
        for key in sorted(own.keys() & weights.keys())
        if weights[key].shape != own[key].shape
    ]
    if shapes:
        problems.append(f"{len(shapes)} shapes that differ ({_some(shapes, '; ')})")
    if problems:
        raise InputError(f"{source} does not fit the model that its config describes: {'; '.join(problems)}")
    module.load_state_dict(dict(weights))


def _is_torch_file(path: Path) -> bool:
    """Whether the file starts like a zip archive or a pickle of protocol 2 or later.

    Anything else, such as an HTML error page saved as .pt, would reach torch's unpickler, whose message is misleading.
    """
    with open(path, "rb") as file:
        start = file.read(2)
    return start == b"PK" or (start[:1] == b"\x80" and start[1:] in (b"\x02", b"\x03", b"\x04", b"\x05"))


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: truncated or damaged ({first_line(error)}); fetch or write it again") from error


def _refused_name(error: Exception) -> str:
    words = [word.strip("`'\"., ") for word in str(error).split()]
    named = [words[i + 1] for i, word in enumerate(words[:-1]) if word == "GLOBAL"]
    return f"it names {named[0]}" if named else "it holds objects of other classes"


def _some(items: Iterable[str], separator: str = ", ") -> str:
    items = list(items)
    return separator.join(items[:_SHOWN]) + (f"{separator}..." if len(items) > _SHOWN else "")


def first_not_finite(module: nn.Module) -> str | None:
    """The name of the first weight or buffer that holds NaN or infinity; None if all are finite."""
    return next((name for name, value in module.state_dict().items() if not value.isfinite().all()), None)


def refuse_not_finite(module: nn.Module, name: str | os.PathLike[str]) -> None:
    """Raise InputError if a weight or buffer of the module of this name holds NaN or infinity."""
    wrong = first_not_finite(module)
    if wrong is not None:
        raise InputError(
            f"{os.fspath(name)}: weights are not finite ({wrong}): training diverged; give an earlier checkpoint"
        )
