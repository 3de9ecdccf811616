"""A SQLite file: `sqlite:///vectors.db` (relative) or `sqlite:////data/vectors.db` (absolute), as in SQLAlchemy.

Vectors are BLOBs of little-endian float32, the format of sqlite-vec. Writing needs no extension.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from ssl_audio.databases.collection import other_length, unreachable
from ssl_audio.errors import InputError

_AT_ONCE = 500  # ids in one query; old releases of SQLite take 999 at most


class SQLiteCollection:
    """A table with the columns of a row. The vector is stored as the bytes of its float32 values."""

    batch_rows = 5000
    errors = (sqlite3.Error,)

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self.connection, self.name = connection, name

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        for first in range(0, len(ids), _AT_ONCE):
            part = ids[first : first + _AT_ONCE]
            marks = ", ".join("?" * len(part))
            found.update(self.connection.execute(f'SELECT id, digest FROM "{self.name}" WHERE id IN ({marks})', part))
        return found

    def upsert(self, rows: pa.RecordBatch) -> None:
        content = rows.to_pydict() | {"vector": _blobs(rows["vector"])}
        columns = ", ".join(f'"{name}"' for name in content)
        marks = ", ".join("?" * len(content))
        statement = f'INSERT OR REPLACE INTO "{self.name}" ({columns}) VALUES ({marks})'
        with self.connection:  # one transaction
            self.connection.executemany(statement, zip(*content.values(), strict=True))

    def __len__(self) -> int:
        return self.connection.execute(f'SELECT count(*) FROM "{self.name}"').fetchone()[0]

    def close(self) -> None:
        self.connection.close()


def open_collection(address: str, name: str, dim: int) -> SQLiteCollection:
    path = address.removeprefix("sqlite:///")
    if path in (address, ""):
        raise InputError(f"{address}: write sqlite:///file.db, or sqlite:////folder/file.db for an absolute path")
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, timeout=30)
        with connection:
            connection.execute(
                f'CREATE TABLE IF NOT EXISTS "{name}" (id TEXT PRIMARY KEY, vector BLOB NOT NULL, path TEXT NOT NULL, '
                'start REAL, "end" REAL, "group" TEXT, fingerprint TEXT NOT NULL, digest TEXT NOT NULL)'
            )
            first = connection.execute(f'SELECT length(vector) / 4 FROM "{name}" LIMIT 1').fetchone()
    except (sqlite3.Error, OSError) as error:
        raise unreachable(address, error, "give the path of a SQLite database, or of a new file") from error
    if first is not None and first[0] != dim:
        raise other_length(address, name, first[0], dim)
    return SQLiteCollection(connection, name)


def _blobs(vectors: pa.FixedSizeListArray) -> list[bytes]:
    matrix = vectors.flatten().to_numpy().astype("<f4").reshape(len(vectors), -1)
    return [np.ascontiguousarray(row).tobytes() for row in matrix]
