"""Open the database at an address. The scheme of the address is the name of a module in `kinds/`."""

import pkgutil
import re
from importlib import import_module

from ssl_audio.databases import kinds
from ssl_audio.databases.collection import Collection
from ssl_audio.errors import InputError, suggest


def open_collection(address: str, name: str, dim: int) -> Collection:
    """Open a collection of a database; create it if it does not exist.

    Args:
        address: address of the database, `<scheme>://...`.
        name: name of the collection (table): letters, digits and underscores.
        dim: number of values in a vector.

    Raises:
        InputError: the scheme is unknown, the database cannot be reached, or the collection has vectors of another
            length.
        ModuleNotFoundError: the library of this kind of database is not installed.
    """
    scheme, separator, _ = address.partition("://")
    known = sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))
    if not separator:
        prefixes = ", ".join(f"{kind}://" for kind in known)
        raise InputError(f"{address!r} is not an address of a database; it must start with one of {prefixes}")
    if scheme not in known:
        raise InputError(f"the kind of database {scheme!r} is not supported{suggest(scheme, known)}")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise InputError(f"the collection name {name!r} is wrong; use up to 63 letters, digits and underscores")
    return import_module(f"{kinds.__name__}.{scheme}").open_collection(address, name, dim)
