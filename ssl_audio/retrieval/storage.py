"""An index on disk: one safetensors file that checks itself, written aside and renamed.

A reader sees the old file or the new one, never a mixture; readers that have the old one mapped keep it. A kill during
writing leaves the old file in place and a `.partial-*` file beside it, which the next writer removes.
"""

import json
import os
import time
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_atomically

FORMAT = "ssl_audio.retrieval.Index"
VERSION = 1
_STALE_SECONDS = 3600  # a partial file this old has no living writer


def write_arrays(path: str | os.PathLike, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
    """Write named arrays and JSON settings, with a checksum of each array, atomically."""
    from safetensors.numpy import save_file

    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; an index is one file, give its name (library.index)")
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "settings": json.dumps(settings),
        "checksums": json.dumps({name: _checksum(array) for name, array in arrays.items()}),
        "settings_checksum": str(zlib.crc32(json.dumps(settings).encode())),
    }
    with write_atomically(path) as temporary:
        save_file(arrays, temporary, metadata)
    for partial in path.parent.glob(f".partial-*{path.suffix}"):
        try:
            if time.time() - partial.stat().st_mtime > _STALE_SECONDS:
                partial.unlink()
        except OSError:
            pass  # another writer's, and gone meanwhile


def read_arrays(path: str | os.PathLike, verify: bool = True) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays, mapped into memory read-only, and the settings.

    Args:
        verify: compare every checksum, which reads the file once (about 2 GB/s). False checks only that the file is
            whole in size and of the right kind.

    Raises:
        InputError: missing, cut short, damaged, not an index, or written by a newer version.
    """
    path = Path(path)
    damaged = f"{path}: the index is damaged or half written; restore it or build it again with: ssl-audio index"
    try:
        with open(path, "rb") as file:  # opened once: a writer's rename cannot change what is read below
            header, start = _read_header(file)
            metadata = header.pop("__metadata__", {})
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path}: is not an index of ssl-audio")
            if int(metadata["version"]) > VERSION:
                raise InputError(f"{path}: is of format {metadata['version']}, newer than {VERSION}; update ssl-audio")
            arrays = _map(file, header, start)
        checksums = json.loads(metadata["checksums"])
        whole = zlib.crc32(metadata["settings"].encode()) == int(metadata["settings_checksum"])
        if whole and verify:
            whole = all(_checksum(arrays[name]) == checksum for name, checksum in checksums.items())
        if not whole:
            raise InputError(damaged)
        return arrays, json.loads(metadata["settings"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such index; make one with: ssl-audio index FOLDER --output {path}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except InputError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(damaged) from error


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """The safetensors layout: 8 bytes of little-endian length, a JSON header, then the arrays from `start` on."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= size - 8:
        raise ValueError("no header")
    return json.loads(file.read(length)), 8 + length


_TYPES = {"F32": np.float32, "I64": np.int64, "U8": np.uint8}


def _map(file: BinaryIO, header: dict[str, Any], start: int) -> dict[str, np.ndarray]:
    size = os.fstat(file.fileno()).st_size
    if size != start + max(entry["data_offsets"][1] for entry in header.values()):
        raise ValueError("cut short")
    whole = np.asarray(np.memmap(file, np.uint8, mode="r"))
    arrays = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        arrays[name] = whole[start + begin : start + end].view(_TYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data)
