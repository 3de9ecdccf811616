"""Names of files as people write them down, matched with the names that the file system has."""

import os
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path


def decode(content: bytes) -> str:
    """UTF-8; bytes that are not UTF-8 are read as Windows-1252, the usual encoding of old files and of Excel."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(_CP1252[byte] for byte in content)


_CP1252 = [bytes([i]).decode("cp1252", "ignore") or chr(i) for i in range(256)]  # 5 bytes of it have no character


def plain(name: str) -> str:
    """The form in which names are compared: composed letters (NFC), and text instead of bytes that are not UTF-8.

    >>> plain("Be\\u0301la") == "B\\u00e9la"
    True
    """
    if name.isascii():
        return name
    return unicodedata.normalize("NFC", decode(name.encode("utf-8", "surrogateescape")) if _odd(name) else name)


def printable(name: str) -> str:
    """The name as text that every encoder takes: bytes that are not UTF-8 become escapes such as `\\xe9`."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _odd(name: str) -> bool:
    return any("\udc80" <= letter <= "\udcff" for letter in name)


def by_plain_name(names: Iterable[str]) -> dict[str, str]:
    """{spelling: name}: each name under its own spelling and under its plain one, unless that is another's."""
    names = list(names)
    table: dict[str, str] = {}
    for name in names:
        table.setdefault(plain(name), name)
    return table | {name: name for name in names}


def on_disk(path: str | os.PathLike[str]) -> Path:
    """The file of this name, also where accents or encoding of the name differ, or blanks around it were added.

    Returns `path` itself if there is no such file.
    """
    path = Path(path)
    if os.path.lexists(path):
        return path
    text = os.fspath(path)
    for spelling in dict.fromkeys((text, text.strip(), text.strip().replace("\\", "/"))):
        found = _find(Path(spelling).parent, Path(spelling).name)
        if found is not None:
            return found
    return path


def _find(parent: Path, name: str) -> Path | None:
    if not os.path.isdir(parent):
        if parent == parent.parent:
            return None
        above = _find(parent.parent, parent.name)
        if above is None:
            return None
        parent = above
    try:
        names = _names(os.fspath(parent), os.stat(parent).st_mtime_ns)
    except OSError:
        return None
    found = names.get(name) or names.get(plain(name))
    return None if found is None else parent / found


@lru_cache(maxsize=256)
def _names(folder: str, changed: int) -> dict[str, str]:
    return by_plain_name(os.listdir(folder))
