"""`table:<file>`: embeddings that another program computed, found by the path of the audio file.

The table is

- `.parquet` or `.npz`, as `ssl-audio embed` writes them: `path`, `embedding`, and `start` and `end` in seconds if files
  are cut into windows; or
- `.csv` with a column `path` and numbers in all other columns.

A file is found by its whole path, or by as many of its last folders as the table has. It is found by its name alone if
no other file has this name, neither in the table nor among the wanted files. Several rows of a file are averaged,
unless the caller wants windows and the rows are these windows.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.encoders.outside import PathEncoder, Rows
from ssl_audio.errors import InputError, first_line
from ssl_audio.frontends import Waveform
from ssl_audio.hub.address import Address
from ssl_audio.hub.foreign._external import existing, file_sha256
from ssl_audio.hub.foreign._options import RATE
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.tables import read_rows

OPTIONS = {"rate": RATE}
_USUAL_RATE = 16000  # Hz; a model needs a rate, but no audio is read


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """A model that takes paths and looks their embeddings up in the table.

    Raises:
        InputError: there is no such file, it is not a table, values are not finite, or rows have different sizes.
    """
    path = existing(address.text, address.rest)
    readers = {".parquet": _parquet, ".npz": _npz, ".csv": _csv}
    if path.suffix not in readers:
        raise InputError(f"{address.text}: the name of a table must end in {', '.join(readers)}")
    try:
        names, values, start, end, rate = readers[path.suffix](path)
    except InputError:
        raise
    except Exception as error:  # pyarrow, NumPy and csv can raise anything for a damaged file
        raise InputError(f"{path}: cannot be read as a table of embeddings: {first_line(error)}") from error
    if not len(names) or values.ndim != 2 or not values.shape[1]:
        raise InputError(f"{path}: holds no embeddings")
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise InputError(
            f"{path}: {bad.sum()} rows have NaN or infinity, first {names[bad.argmax()]}; embed these files again"
        )
    encoder = TableEncoder(names, values, start, end)
    encoder.refer(address.text, file_sha256(path))
    return EmbeddingModel(Waveform(), encoder, options.get("rate") or rate or _USUAL_RATE).eval()


class TableEncoder(PathEncoder):
    """The encoder of a table.

    Args:
        names: path of each row.
        values: `(rows, dim)` float32 embeddings.
        start, end: `(rows,)` limits of each row in seconds; None for whole files.
    """

    def __init__(
        self, names: Sequence[str], values: np.ndarray, start: np.ndarray | None = None, end: np.ndarray | None = None
    ) -> None:
        super().__init__()
        self.values, self.start, self.end = np.asarray(values, np.float32), start, end
        self.dim = self.values.shape[1]
        rows: dict[str, list[int]] = defaultdict(list)
        for i, name in enumerate(names):
            rows[_plain(name)].append(i)
        self.rows = dict(rows)
        files = Counter(name.rpartition("/")[2] for name in self.rows)
        self.by_file_name = {file: name for name in self.rows if files[file := name.rpartition("/")[2]] == 1}

    def look_up(self, paths: Sequence[Path]) -> list[Rows]:
        """The rows of each file, in order of time.

        Raises:
            InputError: the table lacks files, or two files would get the same row.
        """
        asked_names = Counter(path.name for path in set(paths))
        found = [self._name(path, asked_names[path.name] == 1) for path in paths]
        lacking = [path for path, name in zip(paths, found, strict=True) if name is None]
        if lacking:
            raise InputError(
                f"{self.origin} lacks {len(lacking)} of {len(paths)} files, first {lacking[0]}; embed them, too"
            )
        asked: dict[str, Path] = {}
        for path, name in zip(paths, found, strict=True):
            assert name is not None
            if asked.setdefault(name, path) != path:
                raise InputError(
                    f"{self.origin} has one row {name} for {asked[name]} and {path}; write its paths with their folders"
                )
        return [self._of(name) for name in found if name is not None]

    def _of(self, name: str) -> Rows:
        rows = np.array(self.rows[name])
        if self.start is None or self.end is None:
            return Rows(None, None, self.values[rows])
        rows = rows[np.argsort(self.start[rows], kind="stable")]
        return Rows(self.start[rows], self.end[rows], self.values[rows])

    def _name(self, path: Path, only: bool) -> str | None:
        """The path of a file as the table writes it; None if the table lacks the file.

        Args:
            path: the file.
            only: whether no other wanted file has the same name. Then the name alone is enough.
        """
        parts = _plain(path.as_posix()).split("/")
        ends = ("/".join(parts[i:]) for i in range(len(parts)))
        return next((end for end in ends if end in self.rows), self.by_file_name.get(parts[-1]) if only else None)


def _plain(path: str) -> str:
    return Path(path).as_posix()  # without ./ and doubled slashes


_Table = tuple[Sequence[str], np.ndarray, np.ndarray | None, np.ndarray | None, int | None]


def _parquet(path: Path) -> _Table:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    _need(path, table.column_names)
    lists = table["embedding"].combine_chunks()
    if lists.null_count:
        raise InputError(f"{path}: {lists.null_count} rows have no embedding")
    lengths = np.unique(lists.value_lengths().to_numpy())
    _one_width(path, lengths)
    values = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(lists), -1)
    times = [table[name].to_numpy() if name in table.column_names else None for name in ("start", "end")]
    rate = (table.schema.metadata or {}).get(b"sample_rate")
    return table["path"].to_pylist(), values, times[0], times[1], None if rate is None else int(rate)


def _npz(path: Path) -> _Table:
    with np.load(path, allow_pickle=False) as archive:
        _need(path, archive.files)
        start, end = (archive[name] if name in archive.files else None for name in ("start", "end"))
        names, values = [str(name) for name in archive["path"]], archive["embedding"]
    if values.dtype.kind != "f" or len(values) != len(names):
        raise InputError(
            f"{path}: {len(names)} paths do not fit embeddings {values.dtype} {values.shape}; write floats (paths, dim)"
        )
    return names, values, start, end, None


def _csv(path: Path) -> _Table:
    header, *lines = [cells for _, cells in read_rows(path)] or [[]]
    header = [heading.strip() for heading in header]
    _need(path, [*header, "embedding"])
    times = {name: header.index(name) for name in ("start", "end") if name in header}
    skipped = {header.index("path"), *times.values()}
    skipped |= {i for i, name in enumerate(header) if name == "group"}
    columns = [i for i in range(len(header)) if i not in skipped]
    if any(len(line) != len(header) for line in lines):
        _one_width(path, np.unique([len(line) for line in lines] + [len(header)]))
    try:
        values = np.array([[float(line[i]) if line[i] else math.nan for i in columns] for line in lines], np.float32)
    except ValueError as error:
        raise InputError(
            f"{path}: a column other than path has values that are not numbers ({error}); remove the column"
        ) from error
    start, end = (
        np.array([float(line[times[name]]) for line in lines]) if name in times else None for name in ("start", "end")
    )
    return [line[header.index("path")] for line in lines], values, start, end, None


def _need(path: Path, names: Sequence[str]) -> None:
    lacking = [name for name in ("path", "embedding") if name not in names]
    if lacking:
        raise InputError(f"{path}: has no column {' and no '.join(lacking)}; it has {', '.join(names) or 'none'}")


def _one_width(path: Path, widths: np.ndarray) -> None:
    if len(widths) > 1:
        raise InputError(
            f"{path}: its rows have {', '.join(map(str, widths))} numbers; all rows must have the same number"
        )
