"""A table of the embeddings of many files on disk. An interrupted run can be continued.

During a run, the folder `<output>.parts/` holds `settings.json` and one Parquet file (part) for every SHARD files. At
the end the parts are joined into the output and removed. A run that finds parts of an earlier run writes only the
missing ones, provided that the model, the windows and the list of files are the same.
"""

import csv
import glob
import hashlib
import itertools
import json
import os
import shutil
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ssl_audio.audio import EXTENSIONS, UNSUPPORTED_EXTENSIONS, walk_files
from ssl_audio.embedding import FileEmbedding, embed_files
from ssl_audio.errors import InputError
from ssl_audio.level import level_name, level_of
from ssl_audio.provenance import fingerprint, made_by
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.names import on_disk, printable
from ssl_audio.utils.tables import read_lines

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

SHARD = 64  # files in a part
FORMATS = (".parquet", ".npz")
_ROWS = 1024  # rows in memory at a time
_COLUMNS = {
    "path": pa.string(),
    "group": pa.string(),
    "start": pa.float64(),  # seconds
    "end": pa.float64(),
    "embedding": pa.list_(pa.float32()),
}
_SCHEMA = pa.schema(_COLUMNS)
_PART_SCHEMA = pa.schema({**_COLUMNS, "error": pa.string()})


@dataclass(frozen=True)
class SourceFile:
    """A file to embed.

    Attributes:
        file: where it is.
        path: its name in the table: relative to the given folder, or as written in the given list.
        group: the first folder below the given folder; of a file in a list, the folder of the file; "" if there is
            none.
    """

    file: Path
    path: str
    group: str


def files_to_embed(source: str) -> list[SourceFile]:
    """The audio files that a source names. Files in audio formats that cannot be decoded are included, to be reported.

    Args:
        source: a folder, a text file (one path per line, relative to the text file), one audio file, or a glob pattern.

    Raises:
        InputError: the source names no files.
    """
    suffixes = EXTENSIONS + UNSUPPORTED_EXTENSIONS
    if os.path.isdir(source):
        files = [Path(entry.path) for entry in walk_files(source) if entry.name.lower().endswith(suffixes)]
        names = [file.relative_to(source).as_posix() for file in files]
        if not files:
            raise InputError(f"{source}: no audio files in this folder ({', '.join(EXTENSIONS)})")
        groups = [name.partition("/")[0] if "/" in name else "" for name in names]
        return [SourceFile(*row) for row in zip(files, names, groups, strict=True)]
    if os.path.isfile(source) and not source.lower().endswith(suffixes):
        names, files = _listed(Path(source))
        if not names:
            raise InputError(f"{source}: names no files; write one path a line; lines with # are comments")
    else:
        names = [source] if os.path.isfile(source) else sorted(glob.glob(source, recursive=True))
        names = [name for name in names if not os.path.isdir(name)]
        files = [Path(name) for name in names]
    if not names:
        raise InputError(f"{source}: no such folder, list of files or audio file, and no file matches it as a pattern")
    return [SourceFile(file, name, file.parent.name) for file, name in zip(files, names, strict=True)]


def _listed(source: Path) -> tuple[list[str], list[Path]]:
    """The names in a list and their files. A line that begins with # is a comment unless there is a file of this name.

    Raises:
        InputError: the file is not text.
    """
    try:
        lines = [line for line in read_lines(source) if line.strip()]
    except InputError as error:
        raise InputError(f"{source}: neither audio nor a text file with one path per line") from error
    found = [(line, on_disk(source.parent / line)) for line in lines]
    kept = [(line, file) for line, file in found if not line.lstrip().startswith("#") or os.path.isfile(file)]
    return [line.strip() for line, _ in kept], [file for _, file in kept]


class EmbeddingTable:
    """A table of the embeddings of files, and its parts.

    Args:
        model: an `EmbeddingModel`.
        files: the files to embed; the rows of the table have this order.
        output: `.parquet` (columns path, group, start, end, embedding) or `.npz` (arrays of the same names).
        settings: `window_seconds`, `hop_seconds` and `aggregate` of `embed_files`.
        restart: delete the parts of an interrupted run.

    Raises:
        InputError: the suffix is another one, or there are parts of another model, other settings or other files.
    """

    def __init__(
        self,
        model: "EmbeddingModel",
        files: Sequence[SourceFile],
        output: str | os.PathLike,
        settings: dict[str, Any],
        restart: bool = False,
    ) -> None:
        self.model, self.files, self.settings = model, files, settings
        self.output = check_output(output)
        embed_files(model, [], **settings)  # refuses invalid settings before anything is written
        self.unreadable = self.output.with_suffix(".unreadable.csv")
        self.parts = self.output.with_name(self.output.name + ".parts")
        self.shards = -(-len(files) // SHARD)
        if restart and self.parts.exists():
            shutil.rmtree(self.parts)
        self._check_settings()

    def _check_settings(self) -> None:
        names = "\n".join(str(source.file) for source in self.files).encode("utf-8", "surrogateescape")
        mine = {
            **self.settings,
            "model": fingerprint(self.model),
            "level": level_name(level_of(self.model)),
            "files": hashlib.sha256(names).hexdigest(),
        }
        path = self.parts / "settings.json"
        if not any(self.parts.glob("*.parquet")):  # without parts, the settings of an earlier run do not matter
            write_text(path, json.dumps(mine, indent=1))
            return
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if made_by(self.model, str(theirs.get("model"))):
            theirs["model"] = mine["model"]
        if theirs.setdefault("level", "none") != mine["level"]:
            raise InputError(
                f"{self.parts} holds an interrupted run at level {theirs['level']}, and this model has the level "
                f"{mine['level']}; delete it with --restart"
            )
        differing = [key for key in mine if theirs.get(key) != mine[key]]
        if differing:
            raise InputError(
                f"{self.parts} holds an interrupted run with other {', '.join(differing)}; "
                "give the same to continue it, or --restart to delete it"
            )

    def missing(self) -> list[int]:
        """Numbers of the shards without a part."""
        return [shard for shard in range(self.shards) if not self._part(shard).exists()]

    def _part(self, shard: int) -> Path:
        return self.parts / f"{shard:06d}.parquet"

    def write_shards(
        self,
        shards: Sequence[int],
        on_result: Callable[[FileEmbedding], None] = lambda result: None,
        **options: Any,
    ) -> None:
        """Embed the files of some shards, and write a part for each shard.

        Args:
            shards: numbers of shards.
            on_result: called with every result.
            options: `batch_size`, `device` and `workers` of `embed_files`.
        """
        files = [source for shard in shards for source in self._files(shard)]
        shard_of = [shard for shard in shards for _ in self._files(shard)]
        paths = [source.file for source in files]
        results = embed_files(self.model, paths, on_error="report", **self.settings, **options)
        try:
            watched = _watched(results, on_result)
            for shard, group in itertools.groupby(watched, key=lambda result: shard_of[result.index]):
                self._write_part(shard, group, files)
        except FileNotFoundError as error:
            raise InputError(self._taken()) from error
        finally:
            results.close()  # type: ignore[attr-defined]

    def _files(self, shard: int) -> Sequence[SourceFile]:
        return self.files[shard * SHARD : (shard + 1) * SHARD]

    def _write_part(self, shard: int, results: Iterator[FileEmbedding], files: Sequence[SourceFile]) -> None:
        with write_atomically(self._part(shard)) as temporary, pq.ParquetWriter(temporary, _PART_SCHEMA) as writer:
            while rows := list(itertools.islice(results, _ROWS)):
                writer.write_table(_table(rows, files))

    def assemble(self) -> tuple[int, int]:
        """Join the parts into `output`, list unreadable files in `<output>.unreadable.csv`, and remove the parts.

        Returns:
            (number of clips in the table, number of unreadable files). Without unreadable files there is no CSV file.

        Raises:
            InputError: parts are missing.
        """
        problems: list[tuple[str, str]] = []
        write = _write_parquet if self.output.suffix == ".parquet" else _write_npz
        try:
            with write_atomically(self.output) as temporary:
                clips = write(temporary, lambda: self._rows(problems), self.model.dim, self._description())
        except FileNotFoundError as error:
            raise InputError(self._taken()) from error
        if problems:
            with (
                write_atomically(self.unreadable) as temporary,
                open(temporary, "w", newline="", encoding="utf-8") as out,
            ):
                csv.writer(out).writerows([("path", "reason"), *problems])
        else:
            self.unreadable.unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)  # another run of this output may have removed some
        return clips, len(problems)

    def _taken(self) -> str:
        return f"{self.parts}: parts are missing, perhaps because another run has the same output; run this one again"

    def _rows(self, problems: list[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
        """The rows of all parts in order. Rows with an error are left out and added to `problems`."""
        problems.clear()
        for shard in range(self.shards):
            with pq.ParquetFile(self._part(shard)) as part:
                for rows in part.iter_batches(_ROWS):
                    failed = rows.filter(rows["error"].is_valid())
                    problems += zip(failed["path"].to_pylist(), failed["error"].to_pylist(), strict=True)
                    yield rows.filter(rows["error"].is_null()).select(_SCHEMA.names)

    def _description(self) -> dict[str, str]:
        return {"sample_rate": str(self.model.sample_rate), "model": fingerprint(self.model), **_texts(self.settings)}


def check_output(output: str | os.PathLike) -> Path:
    """The path of a table. Raises InputError if it is a folder or has another suffix than `.parquet` or `.npz`."""
    output = Path(output)
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give the name of a file")
    if output.suffix not in FORMATS:
        raise InputError(f"{output}: the output must end in {' or '.join(FORMATS)}")
    return output


def _watched(results: Iterator[FileEmbedding], on_result: Callable[[FileEmbedding], None]) -> Iterator[FileEmbedding]:
    """The results; `on_result` is called with each."""
    for result in results:
        on_result(result)
        yield result


def _texts(settings: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in settings.items() if value is not None}


def _table(rows: Iterable[FileEmbedding], files: Sequence[SourceFile]) -> pa.Table:
    rows = list(rows)
    return pa.table(
        {
            "path": [printable(files[row.index].path) for row in rows],
            "group": [printable(files[row.index].group) for row in rows],
            "start": [row.start for row in rows],
            "end": [row.end for row in rows],
            "embedding": [row.embedding for row in rows],
            "error": [None if row.error is None else printable(row.error) for row in rows],
        },
        schema=_PART_SCHEMA,
    )


def _write_parquet(path: Path, rows: Callable[[], Iterator[pa.RecordBatch]], dim: int, about: dict[str, str]) -> int:
    clips = 0
    with pq.ParquetWriter(path, _SCHEMA.with_metadata(about)) as writer:
        for batch in rows():
            clips += len(batch)
            if len(batch):
                writer.write_batch(batch)
    return clips


def _write_npz(path: Path, rows: Callable[[], Iterator[pa.RecordBatch]], dim: int, about: dict[str, str]) -> int:
    """Write a file as `numpy.savez` does, but without all embeddings in memory."""
    small: dict[str, list] = {name: [] for name in _SCHEMA.names if name != "embedding"}
    for batch in rows():
        for name, values in small.items():
            values += batch[name].to_pylist()
    clips = len(small["path"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, values in small.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                array = np.array(values, dtype=str if name in ("path", "group") else np.float64)
                np.lib.format.write_array(file, array, allow_pickle=False)
        with archive.open("embedding.npy", "w", force_zip64=True) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (clips, dim)}
            np.lib.format.write_array_header_1_0(file, header)
            for batch in rows():
                file.write(batch["embedding"].flatten().to_numpy().astype("<f4").tobytes())
    return clips
