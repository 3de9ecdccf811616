"""Reading TensorFlow's checkpoints of version 2 without TensorFlow.

`<prefix>.index` is an uncompressed table of LevelDB (names -> where a tensor lies), `<prefix>.data-00000-of-00001`
holds the values, little-endian. Both formats are described in TensorFlow's `tensor_bundle.proto` and LevelDB's
`table_format.md`.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.errors import InputError

_FOOTER, _MAGIC = 48, 0xDB4775248B80FB57
_FLOAT = 1  # DT_FLOAT
_VARINT, _LENGTH, _FIXED32 = 0, 2, 5  # wire types of protocol buffers


def read_checkpoint(prefix: str | os.PathLike) -> dict[str, np.ndarray]:
    """{name: float32 array} of a checkpoint of one data file; tensors of other types are left out.

    Args:
        prefix: the path without `.index`.

    Raises:
        InputError: a file is missing, truncated or another.
    """
    index, data = Path(f"{prefix}.index"), Path(f"{prefix}.data-00000-of-00001")
    try:
        table, values = index.read_bytes(), data.read_bytes()
    except OSError as error:
        raise InputError(f"{prefix}: {error.strerror or error} ({error.filename})") from error
    if len(table) < _FOOTER or struct.unpack("<Q", table[-8:])[0] != _MAGIC:
        raise InputError(f"{index}: no index of a TensorFlow checkpoint, or truncated")
    try:
        return dict(_tensors(table, values))
    except (IndexError, struct.error, ValueError) as error:
        raise InputError(f"{prefix}: damaged checkpoint of TensorFlow ({error})") from error


def _tensors(table: bytes, values: bytes) -> Iterator[tuple[str, np.ndarray]]:
    position = len(table) - _FOOTER
    for _ in range(2):  # the handle of an index of other things
        _, position = _varint(table, position)
    start, position = _varint(table, position)
    size, _ = _varint(table, position)
    for _, handle in _entries(table[start : start + size]):
        first, after = _varint(handle, 0)
        length, _ = _varint(handle, after)
        for name, entry in _entries(table[first : first + length]):
            if not name:  # the header
                continue
            fields = dict(_fields(entry))
            if fields.get(1) != _FLOAT:
                continue
            sizes = [dict(_fields(size)).get(1, 0) for number, size in _fields(fields.get(2, b"")) if number == 2]
            offset, count = fields.get(4, 0), int(np.prod(sizes, dtype=np.int64))
            yield name.decode(), np.frombuffer(values, "<f4", count, offset).reshape(sizes).copy()


def _entries(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of a block; a key is written without what it shares with the one before."""
    restarts = struct.unpack("<I", block[-4:])[0]
    position, end, key = 0, len(block) - 4 * (restarts + 1), b""
    while position < end:
        shared, position = _varint(block, position)
        fresh, position = _varint(block, position)
        length, position = _varint(block, position)
        key = key[:shared] + block[position : position + fresh]
        position += fresh + length
        yield key, block[position - length : position]


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """(field number, value) of a protocol buffer's message."""
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value: Any
            value, position = _varint(message, position)
        elif kind == _LENGTH:
            length, position = _varint(message, position)
            value, position = message[position : position + length], position + length
        elif kind == _FIXED32:
            value, position = message[position : position + 4], position + 4
        else:
            raise ValueError(f"wire type {kind}")
        yield number, value


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
