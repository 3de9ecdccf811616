"""The rows of a table of embeddings, with ids and digests that depend on their content only."""

import hashlib
import os
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ssl_audio.errors import InputError, first_line

_NAMESPACE = uuid.UUID(
    "0ba4dd84-8a5c-5b2a-9b5b-3f3c6f7f4d1e"
)  # of the ids; if it changes, all rows get new ids and are loaded again
_COLUMNS = ("path", "group", "start", "end", "embedding")  # columns of the tables that `ssl-audio embed` writes
_CHECK_ROWS = 4096
_MEANING = ("window_seconds", "hop_seconds", "aggregate")  # settings that change the meaning of an averaged row


def schema_of(dim: int) -> pa.Schema:
    """The columns of a row. `id` is a UUID, `start` and `end` are in seconds, `digest` shows whether a row changed."""
    return pa.schema(
        {
            "id": pa.string(),
            "vector": pa.list_(pa.float32(), dim),
            "path": pa.string(),
            "start": pa.float64(),
            "end": pa.float64(),
            "group": pa.string(),
            "fingerprint": pa.string(),
            "digest": pa.string(),
        }
    )


class EmbeddingRows:
    """The rows of a table that `ssl-audio embed` wrote.

    The id of a row is a UUID made from the fingerprint of the model, the path, the start and the end; for means over
    windows, also from the settings of the windows. A table that is loaded twice therefore has the same ids.

    Args:
        path: the table, `.parquet` or `.npz`.
        fingerprint: fingerprint of the model; needed for `.npz`, which does not contain it.
        prefix: text before each path, to distinguish two libraries with equal relative paths.

    Attributes:
        dim: number of values in a vector.
        fingerprint: fingerprint of the model that made the vectors.
        collection: default name of the collection. It contains the fingerprint.

    Raises:
        InputError: there is no such table, it has another format or no rows, embeddings are not finite or differ in
            length, or the fingerprint is missing or not that of the table.
    """

    def __init__(self, path: str | os.PathLike, fingerprint: str | None = None, prefix: str = "") -> None:
        self.path, self.prefix = Path(path), prefix
        self._table = _open(self.path)
        recorded = self._table.about.get("model")
        if fingerprint is None and recorded is None:
            raise InputError(f"{path} does not state which model made it; give --fingerprint, or the .parquet table")
        if fingerprint is not None and recorded not in (None, fingerprint):
            raise InputError(f"{path} was made by the model {recorded}, not {fingerprint}; leave --fingerprint out")
        self.fingerprint: str = fingerprint or recorded or ""
        self.collection = f"ssl_audio_{self.fingerprint}"
        settings = self._table.about
        self._meaning = repr([settings.get(name) for name in _MEANING]) if settings.get("aggregate") else ""
        self._count = 0
        self.dim = self._check()

    def __len__(self) -> int:
        return self._count

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """All rows in order, as batches of at most `rows` rows with the columns `schema_of(dim)`."""
        schema = schema_of(self.dim)
        for batch in self._table.batches(rows):
            columns = {name: batch[name].to_pylist() for name in ("path", "group", "start", "end")}
            vectors = batch["embedding"].flatten().to_numpy().astype(np.float32).reshape(-1, self.dim)
            paths = [self.prefix + path for path in columns["path"]]
            keys = zip(paths, columns["start"], columns["end"], strict=True)
            content = {
                "id": [self._id(*key) for key in keys],
                "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.dim),
                "path": paths,
                "start": columns["start"],
                "end": columns["end"],
                "group": columns["group"],
                "fingerprint": [self.fingerprint] * len(paths),
                "digest": [_digest(*row) for row in zip(vectors, columns["group"], strict=True)],
            }
            yield pa.RecordBatch.from_pydict(content, schema)

    def _id(self, path: str, start: float, end: float) -> str:
        key = [self.fingerprint, path, repr(float(start)), repr(float(end)), self._meaning]
        return str(uuid.uuid5(_NAMESPACE, "\n".join(key)))

    def _check(self) -> int:
        """Read the whole table, check every embedding, count the rows, and return the length of the vectors."""
        dim = 0
        for batch in self._table.batches(_CHECK_ROWS):
            embeddings = batch["embedding"]
            lengths = pc.list_value_length(embeddings).to_numpy(zero_copy_only=False)
            dim = dim or int(lengths[0])
            values = embeddings.flatten().to_numpy(zero_copy_only=False)
            wrong = lengths != dim
            if not wrong.any() and dim:
                wrong = ~np.isfinite(values.reshape(-1, dim)).all(1)
            if wrong.any() or not dim:
                path = batch["path"][int(wrong.argmax())].as_py()
                raise InputError(
                    f"{self.path}: the embedding of {path} is empty, not finite, or of another length than the first; "
                    "remove that file and run `ssl-audio embed` again"
                )
            self._count += len(batch)
        if not self._count:
            raise InputError(f"{self.path} has no rows; run `ssl-audio embed` on a folder with audio files")
        return dim


def _digest(vector: np.ndarray, group: str) -> str:
    return hashlib.sha256(vector.tobytes() + str(group).encode()).hexdigest()[:16]


# --- the two formats of `ssl-audio embed`


class _Parquet:
    def __init__(self, path: Path) -> None:
        self.path = path
        with pq.ParquetFile(path) as file:
            names = file.schema_arrow.names
            metadata = file.schema_arrow.metadata or {}
        _check_columns(path, names)
        self.about = {key.decode(): value.decode() for key, value in metadata.items() if not key.startswith(b"ARROW")}

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(self.path) as file:
            yield from file.iter_batches(rows, columns=list(_COLUMNS))


class _Npz:
    """Reads the embeddings in pieces. The other columns are small, so they are read whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.about: dict[str, str] = {}
        with np.load(path, allow_pickle=False) as arrays:
            _check_columns(path, arrays.files)

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        with np.load(self.path, allow_pickle=False) as arrays:
            small = {name: arrays[name].tolist() for name in _COLUMNS if name != "embedding"}
        with zipfile.ZipFile(self.path) as archive, archive.open("embedding.npy") as file:
            shape, dtype = _header(file, self.path)
            for first in range(0, shape[0], rows):
                part = slice(first, min(first + rows, shape[0]))
                count = part.stop - part.start
                data = np.frombuffer(file.read(count * shape[1] * dtype.itemsize), dtype).astype(np.float32)
                offsets = pa.array(np.arange(count + 1, dtype=np.int32) * shape[1])
                columns: dict[str, Any] = {name: values[part] for name, values in small.items()}
                yield pa.RecordBatch.from_pydict(
                    {**columns, "embedding": pa.ListArray.from_arrays(offsets, pa.array(data))}
                )


def _open(path: Path) -> "_Parquet | _Npz":
    kinds: dict[str, Any] = {".parquet": _Parquet, ".npz": _Npz}
    if path.suffix not in kinds:
        raise InputError(f"{path}: the name of a table must end in {' or '.join(kinds)}; `ssl-audio embed` writes both")
    if not path.is_file():
        raise InputError(f"{path}: no such file; write it with `ssl-audio embed`")
    try:
        return kinds[path.suffix](path)
    except (pa.ArrowInvalid, zipfile.BadZipFile, ValueError, OSError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a table ({first_line(error)}); write it again") from error


def _check_columns(path: Path, names: list[str]) -> None:
    missing = [name for name in _COLUMNS if name not in names]
    if missing:
        raise InputError(f"{path} has no column {', '.join(missing)}; load a table that `ssl-audio embed` wrote")


def _header(file: Any, path: Path) -> tuple[tuple[int, ...], np.dtype]:
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, fortran, dtype = read[np.lib.format.read_magic(file)](file)
    if fortran or len(shape) != 2 or dtype.kind != "f":
        raise InputError(
            f"{path}: its embeddings are not an array (rows, values) of floats; write it with `ssl-audio embed`"
        )
    return shape, dtype
