"""An index on disk: one safetensors file with checksums, written to a temporary name and then renamed.

A reader sees either the old file or the new one. A reader that has mapped the old file keeps it. If a writer is killed,
the old file stays in place with a `.partial-*` file beside it, which a later writer removes.
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
_STALE_AFTER = 3600  # seconds; an older partial file was left by a killed writer


def write_arrays(path: str | os.PathLike, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
    """Write arrays and settings with their checksums, atomically.

    Args:
        path: the index file.
        arrays: {name: array} of float32, int64 or uint8.
        settings: can be written as JSON.

    Raises:
        InputError: the path is a folder.
    """
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
            if time.time() - partial.stat().st_mtime > _STALE_AFTER:
                partial.unlink()
        except OSError:
            pass  # another writer has removed it meanwhile


def read_arrays(path: str | os.PathLike, verify: bool = True) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Open an index file.

    Args:
        path: the index file.
        verify: compare the checksums, which reads the whole file once (about 2 GB/s). False checks only the size and
            the format.

    Returns:
        (arrays, memory-mapped and read-only; settings).

    Raises:
        InputError: the file is missing, damaged, incomplete, not an index, or of a newer version.
    """
    path = Path(path)
    damaged = f"{path}: the index is damaged or incomplete; restore it or build it again with: ssl-audio index"
    try:
        with open(path, "rb") as file:  # opened once, so that a rename by a writer does not change what is read
            header, start = _read_header(file)
            metadata = header.pop("__metadata__", {})
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path}: is not an index of ssl-audio")
            if int(metadata["version"]) > VERSION:
                raise InputError(f"{path}: has format {metadata['version']}, newer than {VERSION}; update ssl-audio")
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
    """Read the header of a safetensors file: its length in 8 little-endian bytes, then JSON, then the arrays.

    Returns:
        (header, position of the arrays in the file).
    """
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
