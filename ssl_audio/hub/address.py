"""Addresses of models that are not ours: `scheme:rest?option=value&option=value`.

`ssl_audio/hub/foreign/<scheme>.py` reads a scheme. It is found by its name, and has

    OPTIONS                           name of an option -> `Option`
    load(address, options, trusted)   the model, as an `EmbeddingModel`

A further kind of address is one such file. Files whose name begins with an underscore are none.
"""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any
from urllib.parse import unquote

from ssl_audio.errors import InputError, suggest
from ssl_audio.model import EmbeddingModel

_FOREIGN = "ssl_audio.hub.foreign"
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9_-]+):(.*)", re.DOTALL)  # one letter is a drive of Windows


@dataclass(frozen=True)
class Option:
    """An option of an address.

    Attributes:
        parse: its text -> its value; raises ValueError or InputError for a wrong one.
        meaning: what it may be, for the message about a wrong one and for the documentation.
    """

    parse: Callable[[str], Any]
    meaning: str


@dataclass(frozen=True)
class Address:
    """An address in its parts.

    Attributes:
        text: as it was given.
        scheme: in front of the colon.
        rest: between the colon and the question mark.
        options: after the question mark, as text.
        hub: revision, token, cache_dir and local_files_only of `load_model`, for addresses of the Hub.
    """

    text: str
    scheme: str
    rest: str
    options: Mapping[str, str] = field(default_factory=dict)
    hub: Mapping[str, Any] = field(default_factory=dict)


def schemes() -> list[str]:
    """The kinds of address that there are."""
    package = import_module(_FOREIGN)
    return sorted(module.name for module in iter_modules(package.__path__) if not module.name.startswith("_"))


def parse_address(text: str, **hub: Any) -> Address | None:
    """The parts of an address; None for anything else. A path that exists is never an address.

    Raises:
        InputError: a scheme that there is not, an empty rest, an option without a value or given twice.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or Path(text).exists():
        return None
    scheme, rest = match.groups()
    if scheme not in schemes():
        raise InputError(f"{text}: no such file, and no kind of address {scheme!r}{suggest(scheme, schemes())}")
    before, mark, query = rest.rpartition("?")
    if not mark or Path(rest).exists():  # a file's own name may hold a question mark
        before, query = rest, ""
    if not before:
        raise InputError(f"{text}: nothing stands after {scheme}:; give a name or a path")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{text}: {part!r} is no option; write name=value, and & between two")
        if name in options:
            raise InputError(f"{text}: gives {name} twice")
        options[name] = unquote(value)
    return Address(text, scheme, before, options, hub)


def load_address(address: Address, trusted: bool) -> EmbeddingModel:
    """The model of an address, in evaluation mode.

    Raises:
        InputError: an option that the scheme does not have or a wrong value, and whatever is wrong with the model.
    """
    reader = import_module(f"{_FOREIGN}.{address.scheme}")
    values = {}
    for name, text in address.options.items():
        if name not in reader.OPTIONS:
            raise InputError(f"{address.text}: {address.scheme}: has no option {name!r}{suggest(name, reader.OPTIONS)}")
        option = reader.OPTIONS[name]
        try:
            values[name] = option.parse(text)
        except ValueError as error:
            raise InputError(f"{address.text}: {name}={text} is wrong; it must be {option.meaning}") from error
    return reader.load(address, values, trusted).eval()


def expanded(text: str) -> list[str]:
    """The addresses that one stands for: with `layer=sweep` one a layer, else itself, as any other name is.

    Raises:
        InputError: the model cannot be asked how many layers it has.
    """
    address = parse_address(text)
    if address is None or address.options.get("layer") != "sweep":
        return [text]
    sweep = getattr(import_module(f"{_FOREIGN}.{address.scheme}"), "sweep", None)
    return [text] if sweep is None else sweep(address)


def lasting(name: str) -> str:
    """A name, path or address that means the same in every working directory."""
    if os.path.exists(name):
        return os.path.abspath(name)
    address = parse_address(name)
    if address is None:
        return name
    path, colon, after = address.rest, "", ""
    if not os.path.exists(path):
        path, colon, after = path.rpartition(":")
    if not path or not os.path.exists(path):
        return name
    query = address.text.partition(address.rest)[2]
    return f"{address.scheme}:{os.path.abspath(path)}{colon}{after}{query}"
