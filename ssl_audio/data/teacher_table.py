"""A table of a teacher's embeddings as targets: rows by file and time, the embeddings mapped from disk.

`ssl-audio embed RECORDINGS --model TEACHER --window SECONDS --output teacher.parquet` writes such a table. For access
by row, the embeddings are copied once to `teacher.parquet.rows.npy` beside it.
"""

import glob
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.data.batch_spec import Target
from ssl_audio.data.index import AudioEntry
from ssl_audio.errors import InputError, first_line
from ssl_audio.utils.files import write_atomically

TOLERANCE = 2e-3  # seconds: a window's length and start are whole samples at the rate of the model that made it
_CHUNK = 4096  # rows in memory at a time
_COLUMNS = ("path", "start", "end", "embedding")


class MappedRows:
    """A `(rows, dim)` array in a `.npy` file. The map does not travel to worker processes; each makes its own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._map: np.ndarray | None = None

    @property
    def values(self) -> np.ndarray:
        if self._map is None:
            self._map = np.load(self.path, mmap_mode="r")
        return self._map

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "_map": None}


class TeacherTable:
    """The embeddings of one teacher, in one file or several.

    Args:
        place: a file (.parquet, .npz), or a pattern of files that lie in parts.
        float16: keep the copy for access by row in half precision.

    Attributes:
        paths: of each row, as in the table.
        start, end: `(rows,)` seconds.
        target: mean, spread and fingerprint, see `Target`.

    Raises:
        InputError: no such file, no table, parts by different models or of different sizes, NaN.
    """

    def __init__(self, place: str, float16: bool = False) -> None:
        self.place = place
        files = [Path(name) for name in (sorted(glob.glob(place)) if glob.has_magic(place) else [place])]
        if not files or not all(file.is_file() for file in files):
            raise InputError(f"{place}: no such table; write it with ssl-audio embed --window SECONDS --output {place}")
        parts = [_read(file) for file in files]
        for name in ("model", "sample_rate"):
            values = {part[name] for part in parts}
            if len(values) > 1:
                raise InputError(
                    f"{place}: its files differ in {name} ({', '.join(sorted(values))}); take one teacher's"
                )
        self.paths: list[str] = [path for part in parts for path in part["path"]]
        self.start = np.concatenate([part["start"] for part in parts])
        self.end = np.concatenate([part["end"] for part in parts])
        self.parts = [MappedRows(_mapped(file, float16)) for file in files]
        sizes = [part.values.shape for part in self.parts]
        if len({dim for _, dim in sizes}) > 1 or not len(self.paths):
            dims = sorted({dim for _, dim in sizes})
            raise InputError(f"{place}: its embeddings have {dims} numbers and {len(self.paths)} rows; write it again")
        self.first = np.concatenate([[0], np.cumsum([rows for rows, _ in sizes])])
        self.target = self._measured(parts[0]["model"])

    def _measured(self, fingerprint: str) -> Target:
        """One pass over the rows. Raises InputError: NaN or infinity."""
        total, squares, row = np.zeros(self.parts[0].values.shape[1]), 0.0, 0
        for chunk in self.chunks():
            bad = ~np.isfinite(chunk).all(axis=1)
            if bad.any():
                raise InputError(
                    f"{self.place}: the embedding of {self.paths[row + int(bad.argmax())]} holds NaN or infinity; "
                    "embed that recording again or take it out"
                )
            total += chunk.sum(axis=0)
            squares += np.square(chunk).sum()
            row += len(chunk)
        mean = total / row
        spread = max(squares / row - np.square(mean).sum(), 0.0)
        return Target(self.place, mean.astype(np.float32), float(spread**0.5), fingerprint)

    def chunks(self) -> Iterator[np.ndarray]:
        """The embeddings as float64, some thousand at a time."""
        for part in self.parts:
            for at in range(0, len(part.values), _CHUNK):
                yield part.values[at : at + _CHUNK].astype(np.float64)

    def row(self, number: int) -> np.ndarray:
        """`(dim,)` float32."""
        part = int(np.searchsorted(self.first, number, side="right")) - 1
        return self.parts[part].values[number - self.first[part]].astype(np.float32)

    def rows_of(self, entries: Sequence[AudioEntry]) -> list[np.ndarray]:
        """The numbers of each recording's rows, in order of time. A recording has the path of its rows, or ends in it.

        Raises:
            InputError: recordings without rows, or two recordings with the same.
        """
        by_path: dict[str, list[int]] = defaultdict(list)
        for number, path in enumerate(self.paths):
            by_path[Path(path).as_posix()].append(number)
        names = [_name(entry.path, by_path) for entry in entries]
        missing = [entry.path for entry, name in zip(entries, names, strict=True) if name is None]
        if missing:
            raise InputError(
                f"{self.place} lacks {len(missing)} of {len(entries)} recordings, the first is {missing[0]}; "
                "embed the folders of data.dataset_dirs again"
            )
        seen: dict[str, str] = {}
        for entry, name in zip(entries, names, strict=True):
            if seen.setdefault(str(name), entry.path) != entry.path:
                raise InputError(
                    f"{self.place} has the same rows, {name}, for {seen[str(name)]} and {entry.path}; embed a folder "
                    "above both, so that paths differ"
                )
        numbers = (np.array(by_path[str(name)]) for name in names)
        return [rows[np.argsort(self.start[rows], kind="stable")] for rows in numbers]


def windows(tables: Sequence[TeacherTable], entries: Sequence[AudioEntry], samples: int, rate: int) -> list[np.ndarray]:
    """The rows of each recording that are windows of `samples` at `rate` Hz, `(windows, tables)` numbers.

    Rows of recordings that are shorter than a window are left out.

    Raises:
        InputError: a table has other windows, or lacks recordings.
    """
    found: list[list[np.ndarray]] = []
    seconds = samples / rate
    for table in tables:
        lengths = table.end - table.start
        usable = np.abs(lengths - seconds) <= TOLERANCE
        longest = float(lengths.max())
        if longest > seconds + TOLERANCE:
            raise InputError(
                f"{table.place} has windows of {longest:g} s, and clips have {seconds:g} s, in which a student cannot "
                f"hear what its teacher heard; set data.nr_samples to {round(longest * rate)}, or embed with --window "
                f"{seconds:g}"
            )
        if not usable.any():
            raise InputError(
                f"{table.place} has no windows of {seconds:g} s, its longest has {longest:g} s; set data.nr_samples to "
                f"{round(longest * rate)}, or embed with --window {seconds:g}"
            )
        found.append([rows[usable[rows]] for rows in table.rows_of(entries)])
    joined = []
    for entry, *rows in zip(entries, *found, strict=True):
        starts = [table.start[of_entry] for table, of_entry in zip(tables, rows, strict=True)]
        for table, theirs in zip(tables, starts, strict=True):
            if theirs.shape != starts[0].shape or not np.allclose(theirs, starts[0], rtol=0, atol=TOLERANCE):
                raise InputError(
                    f"{table.place} has other windows of {entry.path} than {tables[0].place}; embed both with the "
                    "same --window and --hop"
                )
        joined.append(np.stack(rows, axis=1))
    return joined


def _name(path: str, known: dict[str, list[int]]) -> str | None:
    parts = Path(path).as_posix().split("/")
    ends = ("/".join(parts[i:]) for i in range(len(parts)))
    return next((end for end in ends if end in known), None)


def _read(file: Path) -> dict[str, Any]:
    """Paths, times and what the file says of its teacher; the embeddings stay where they are."""
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            schema = pq.read_schema(file)
            _need(file, schema.names)
            table = pq.read_table(file, columns=["path", "start", "end"])
            about = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
            columns = {"path": table["path"].to_pylist(), **{k: table[k].to_numpy() for k in ("start", "end")}}
        elif file.suffix == ".npz":
            with np.load(file, allow_pickle=False) as archive:
                _need(file, archive.files)
                columns = {
                    "path": [str(path) for path in archive["path"]],
                    "start": archive["start"],
                    "end": archive["end"],
                }
            about = {}
        else:
            raise InputError(f"{file}: a table of a teacher ends in .parquet or .npz")
    except InputError:
        raise
    except Exception as error:  # what pyarrow and numpy make of a damaged file
        raise InputError(f"{file}: cannot be read as a table of embeddings: {first_line(error)}") from error
    return {**columns, "model": about.get("model", ""), "sample_rate": about.get("sample_rate", "")}


def _need(file: Path, names: Sequence[str]) -> None:
    lacking = [name for name in _COLUMNS if name not in names]
    if lacking:
        raise InputError(f"{file}: has no {' and no '.join(lacking)}; write it with ssl-audio embed --window SECONDS")


def _mapped(file: Path, float16: bool) -> Path:
    """The copy of the embeddings for access by row; written if there is none or an older one."""
    copy = file.with_name(f"{file.name}.rows{'16' if float16 else ''}.npy")
    if copy.exists() and copy.stat().st_mtime_ns >= file.stat().st_mtime_ns:
        return copy
    kind = np.dtype(np.float16 if float16 else np.float32)
    rows, dim, blocks = _blocks(file)
    with write_atomically(copy) as temporary, open(temporary, "wb") as out:
        header = {"descr": kind.str, "fortran_order": False, "shape": (rows, dim)}
        np.lib.format.write_array_header_1_0(out, header)
        for block in blocks:
            if block.ndim != 2 or block.shape[1] != dim:
                raise InputError(f"{file}: its rows differ in the number of values; write it with ssl-audio embed")
            if float16 and np.abs(block).max(initial=0) > np.finfo(np.float16).max:
                raise InputError(f"{file}: holds numbers that float16 cannot; set data.float16 to false")
            out.write(np.ascontiguousarray(block, kind).tobytes())
    os.utime(copy, ns=(file.stat().st_mtime_ns, file.stat().st_mtime_ns))
    return copy


def _blocks(file: Path) -> tuple[int, int, Iterator[np.ndarray]]:
    """(rows, dim, blocks of rows) of a table's embeddings."""
    if file.suffix == ".npz":
        with np.load(file, allow_pickle=False) as archive:
            values = archive["embedding"]
        if values.ndim != 2 or values.dtype.kind != "f":
            raise InputError(
                f"{file}: its embeddings are {values.dtype} {values.shape}; they must be (rows, dim) floats"
            )
        return len(values), values.shape[1], iter([values])
    import pyarrow.parquet as pq

    parquet = pq.ParquetFile(file)
    first = next(parquet.iter_batches(1, columns=["embedding"]), None)
    dim = 0 if first is None or not len(first) else len(first["embedding"][0])
    blocks = (
        batch["embedding"].flatten().to_numpy(zero_copy_only=False).reshape(len(batch), -1)
        for batch in parquet.iter_batches(_CHUNK, columns=["embedding"])
    )
    return parquet.metadata.num_rows, dim, blocks
