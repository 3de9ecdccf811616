"""Embeddings of many files on disk: written in parts as they come, put together at the end, continued after a break.

While a run is under way, `<output>.parts/` holds `settings.json` and one Parquet file for every SHARD files. A run that
finds it there does only what is missing, provided that the model, the windows and the list of files are the same.
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
from ssl_audio.provenance import fingerprint, made_by
from ssl_audio.utils.files import write_atomically, write_text
from ssl_audio.utils.names import on_disk, printable
from ssl_audio.utils.tables import read_lines

if TYPE_CHECKING:
    from ssl_audio.model import EmbeddingModel

SHARD = 64  # files a part
FORMATS = (".parquet", ".npz")
_ROWS = 1024  # rows that are in memory at once
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
class Recording:
    """A file to embed: where it is, what the table calls it, and whose it is."""

    file: Path
    path: str  # relative to the given folder; as written in a list
    group: str  # the first folder below the given one; in a list the file's folder; "" for files without one


def find_recordings(source: str) -> list[Recording]:
    """What a folder, a list file (one path a line, relative to the list), one audio file or a glob names.

    Audio in formats that cannot be decoded is included, so that it is reported rather than overlooked.

    Raises:
        InputError: nothing there.
    """
    suffixes = EXTENSIONS + UNSUPPORTED_EXTENSIONS
    if os.path.isdir(source):
        files = [Path(entry.path) for entry in walk_files(source) if entry.name.lower().endswith(suffixes)]
        names = [file.relative_to(source).as_posix() for file in files]
        if not files:
            raise InputError(f"{source}: no audio files in this folder ({', '.join(EXTENSIONS)})")
        groups = [name.partition("/")[0] if "/" in name else "" for name in names]
        return [Recording(*row) for row in zip(files, names, groups, strict=True)]
    if os.path.isfile(source) and not source.lower().endswith(suffixes):
        names, files = _listed(Path(source))
        if not names:
            raise InputError(f"{source}: names no files; write one path a line; lines with # are comments")
    else:
        names = [source] if os.path.isfile(source) else sorted(glob.glob(source, recursive=True))
        names = [name for name in names if not os.path.isdir(name)]
        files = [Path(name) for name in names]
    if not names:
        raise InputError(f"{source}: no such folder, list of files or audio file, and nothing matches it as a pattern")
    return [Recording(file, name, file.parent.name) for file, name in zip(files, names, strict=True)]


def _listed(source: Path) -> tuple[list[str], list[Path]]:
    """The names in a list and their files. A line that begins with # is a comment unless there is a file of this name.

    Raises:
        InputError: the file is not text.
    """
    try:
        lines = [line for line in read_lines(source) if line.strip()]
    except InputError as error:
        raise InputError(f"{source}: is neither audio nor a list of paths, one a line") from error
    found = [(line, on_disk(source.parent / line)) for line in lines]
    kept = [(line, file) for line, file in found if not line.lstrip().startswith("#") or file.is_file()]
    return [line.strip() for line, _ in kept], [file for _, file in kept]


class EmbeddingTable:
    """The table `output` of the embeddings of `recordings`, and its parts.

    Args:
        model: an `EmbeddingModel`.
        recordings: what to embed; rows keep this order.
        output: `.parquet` (columns path, group, start, end, embedding) or `.npz` (arrays of the same names).
        settings: window_seconds, hop_seconds and aggregate of `embed_files`.
        restart: throw away the parts of an interrupted run.

    Raises:
        InputError: another suffix, or there are parts made with another model, other settings or other files.
    """

    def __init__(
        self,
        model: "EmbeddingModel",
        recordings: Sequence[Recording],
        output: str | os.PathLike,
        settings: dict[str, Any],
        restart: bool = False,
    ) -> None:
        self.model, self.recordings, self.settings = model, recordings, settings
        self.output = check_output(output)
        embed_files(model, [], **settings)  # refuses impossible settings before anything is written
        self.unreadable = self.output.with_suffix(".unreadable.csv")
        self.parts = self.output.with_name(self.output.name + ".parts")
        self.shards = -(-len(recordings) // SHARD)
        if restart and self.parts.exists():
            shutil.rmtree(self.parts)
        self._check_settings()

    def _check_settings(self) -> None:
        names = "\n".join(str(recording.file) for recording in self.recordings).encode("utf-8", "surrogateescape")
        mine = {**self.settings, "model": fingerprint(self.model), "files": hashlib.sha256(names).hexdigest()}
        path = self.parts / "settings.json"
        if not any(self.parts.glob("*.parquet")):  # nothing done yet: a call that failed at once binds nobody
            write_text(path, json.dumps(mine, indent=1))
            return
        theirs = json.loads(path.read_text(encoding="utf-8"))
        if made_by(self.model, str(theirs.get("model"))):
            theirs["model"] = mine["model"]
        differing = [key for key in mine if theirs.get(key) != mine[key]]
        if differing:
            raise InputError(
                f"{self.parts} holds an interrupted run with other {', '.join(differing)}; "
                "give the same to go on with it, or --restart to throw it away"
            )

    def missing(self) -> list[int]:
        """Numbers of the shards that have no part yet."""
        return [shard for shard in range(self.shards) if not self._part(shard).exists()]

    def _part(self, shard: int) -> Path:
        return self.parts / f"{shard:06d}.parquet"

    def write_shards(
        self,
        shards: Sequence[int],
        on_result: Callable[[FileEmbedding], None] = lambda result: None,
        **options: Any,
    ) -> None:
        """Embed the files of these shards in one go and write a part for each. `options` go to `embed_files`."""
        recordings = [recording for shard in shards for recording in self._recordings(shard)]
        shard_of = [shard for shard in shards for _ in self._recordings(shard)]
        files = [recording.file for recording in recordings]
        results = embed_files(self.model, files, on_error="report", **self.settings, **options)
        try:
            watched = _watched(results, on_result)
            for shard, group in itertools.groupby(watched, key=lambda result: shard_of[result.index]):
                self._write_part(shard, group, recordings)
        finally:
            results.close()  # type: ignore[attr-defined]

    def _recordings(self, shard: int) -> Sequence[Recording]:
        return self.recordings[shard * SHARD : (shard + 1) * SHARD]

    def _write_part(self, shard: int, results: Iterator[FileEmbedding], recordings: Sequence[Recording]) -> None:
        with write_atomically(self._part(shard)) as temporary, pq.ParquetWriter(temporary, _PART_SCHEMA) as writer:
            while rows := list(itertools.islice(results, _ROWS)):
                writer.write_table(_table(rows, recordings))

    def assemble(self) -> tuple[int, int]:
        """Put the parts together in `output` and `<output>.unreadable.csv`, remove them, and count.

        Returns:
            Clips written and files that were unreadable (without any, there is no CSV).
        """
        problems: list[tuple[str, str]] = []
        write = _write_parquet if self.output.suffix == ".parquet" else _write_npz
        try:
            with write_atomically(self.output) as temporary:
                clips = write(temporary, lambda: self._rows(problems), self.model.dim, self._description())
        except FileNotFoundError as error:
            raise InputError(
                f"{self.parts}: parts are gone; another run with this output has taken them, or removed them"
            ) from error
        if problems:
            with (
                write_atomically(self.unreadable) as temporary,
                open(temporary, "w", newline="", encoding="utf-8") as out,
            ):
                csv.writer(out).writerows([("path", "reason"), *problems])
        else:
            self.unreadable.unlink(missing_ok=True)
        shutil.rmtree(self.parts)
        return clips, len(problems)

    def _rows(self, problems: list[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
        """The rows of all parts in order, those with an error taken out and noted."""
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
    """The path, if its suffix is a format that can be written."""
    output = Path(output)
    if output.is_dir():
        raise InputError(f"{output}: is a folder; give the name of a file")
    if output.suffix not in FORMATS:
        raise InputError(f"{output}: the output must end in {' or '.join(FORMATS)}")
    return output


def _watched(results: Iterator[FileEmbedding], on_result: Callable[[FileEmbedding], None]) -> Iterator[FileEmbedding]:
    for result in results:
        on_result(result)
        yield result


def _texts(settings: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in settings.items() if value is not None}


def _table(rows: Iterable[FileEmbedding], recordings: Sequence[Recording]) -> pa.Table:
    rows = list(rows)
    return pa.table(
        {
            "path": [printable(recordings[row.index].path) for row in rows],
            "group": [printable(recordings[row.index].group) for row in rows],
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
    """As `numpy.savez`, but the embeddings pass through in pieces."""
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
