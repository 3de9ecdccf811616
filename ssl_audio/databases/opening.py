"""How an address finds its kind: the scheme is the name of a module in `kinds/`."""

import pkgutil
import re
from importlib import import_module

from ssl_audio.databases import kinds
from ssl_audio.databases.collection import Collection
from ssl_audio.errors import InputError, suggest


def open_collection(address: str, name: str, dim: int) -> Collection:
    """Open the collection `name` of the database at `address`; make it if it is not there.

    Args:
        address: `<scheme>://...`; the scheme is the name of a module in `ssl_audio.databases.kinds`.
        name: of the collection (table): letters, digits and underscores.
        dim: values in a vector.

    Raises:
        InputError: unknown scheme, a database that cannot be reached, or a collection with vectors of another length.
        ModuleNotFoundError: the library of this kind is not installed; the command names the extra.
    """
    scheme, separator, _ = address.partition("://")
    known = sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))
    if not separator:
        raise InputError(f"{address!r} is no address of a database; give one of {', '.join(f'{k}://' for k in known)}")
    if scheme not in known:
        raise InputError(f"no kind of database is called {scheme!r}{suggest(scheme, known)}")
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,62}", name):
        raise InputError(f"the collection {name!r} must be made of letters, digits and underscores, 63 at most")
    return import_module(f"{kinds.__name__}.{scheme}").open_collection(address, name, dim)
