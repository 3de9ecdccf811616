"""Addresses of foreign models: `scheme:rest?option=value&option=value`.

The module `ssl_audio/hub/foreign/<scheme>.py` reads the addresses of a scheme. It has

    OPTIONS                           {name of an option: `Option`}
    load(address, options, trusted)   returns the model as an `EmbeddingModel`

To add a scheme, write such a module; it is found by its name. Modules whose name starts with an underscore are no
schemes.
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
        parse: function from the text to the value; raises ValueError or InputError for a wrong text.
        meaning: the allowed values, for messages and the documentation.
    """

    parse: Callable[[str], Any]
    meaning: str


@dataclass(frozen=True)
class Address:
    """The parts of an address.

    Attributes:
        text: the whole address, as given.
        scheme: the part before the colon.
        rest: the part between the colon and the question mark.
        options: options after the question mark, as text.
        hub: the arguments revision, token, cache_dir and local_files_only of `load_model`, for addresses of the Hub.
    """

    text: str
    scheme: str
    rest: str
    options: Mapping[str, str] = field(default_factory=dict)
    hub: Mapping[str, Any] = field(default_factory=dict)


def schemes() -> list[str]:
    """The names of all schemes."""
    package = import_module(_FOREIGN)
    return sorted(module.name for module in iter_modules(package.__path__) if not module.name.startswith("_"))


def parse_address(text: str, **hub: Any) -> Address | None:
    """The parts of an address; None if the text is not an address. A path that exists is never an address.

    Raises:
        InputError: the scheme is unknown, nothing follows it, or an option has no value or is given twice.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None or Path(text).exists():
        return None
    scheme, rest = match.groups()
    if scheme not in schemes():
        raise InputError(f"{text}: no such file, and no kind of address {scheme!r}{suggest(scheme, schemes())}")
    before, mark, query = rest.rpartition("?")
    if not mark or Path(rest).exists():  # the name of a file may contain a question mark
        before, query = rest, ""
    if not before:
        raise InputError(f"{text}: nothing follows {scheme}:; give a name or a path")
    options: dict[str, str] = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if not equals or not name or not value:
            raise InputError(f"{text}: {part!r} is not an option; write name=value, with & between options")
        if name in options:
            raise InputError(f"{text}: the option {name} is given twice; leave one out")
        options[name] = unquote(value)
    return Address(text, scheme, before, options, hub)


def load_address(address: Address, trusted: bool) -> EmbeddingModel:
    """The model of an address, in evaluation mode.

    Raises:
        InputError: an option or its value is wrong, or the model cannot be loaded.
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
    """The addresses that an address stands for: with `layer=sweep` one for each layer, otherwise the address itself.

    Raises:
        InputError: the number of layers is unknown.
    """
    address = parse_address(text)
    if address is None or address.options.get("layer") != "sweep":
        return [text]
    sweep = getattr(import_module(f"{_FOREIGN}.{address.scheme}"), "sweep", None)
    return [text] if sweep is None else sweep(address)


def lasting(name: str) -> str:
    """The name, path or address with absolute paths, so that it means the same in every working directory."""
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
