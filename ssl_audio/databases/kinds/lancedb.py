"""LanceDB: `lancedb://folder`, `lancedb:///absolute/folder` or `lancedb://s3://bucket/folder`.

The part after `lancedb://` is the argument of `lancedb.connect`.
"""

from collections.abc import Sequence

import lancedb
import pyarrow as pa

from ssl_audio.databases.collection import other_length, unreachable
from ssl_audio.databases.rows import schema_of
from ssl_audio.errors import InputError


class LanceCollection:
    """A Lance table with the columns of a row."""

    batch_rows = 20_000  # large, because each write creates a version of the table and searches all ids
    errors = (OSError, RuntimeError, ValueError)

    def __init__(self, table: lancedb.table.Table) -> None:
        self.table = table

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        quoted = ", ".join(f"'{name}'" for name in ids)  # UUIDs
        query = self.table.search().where(f"id IN ({quoted})").select(["id", "digest"]).limit(len(ids))
        found = query.to_arrow()
        return dict(zip(found["id"].to_pylist(), found["digest"].to_pylist(), strict=True))

    def upsert(self, rows: pa.RecordBatch) -> None:
        merge = self.table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
        merge.execute(pa.Table.from_batches([rows]))

    def __len__(self) -> int:
        return self.table.count_rows()

    def close(self) -> None:
        self.table.optimize()  # merges small files


def open_collection(address: str, name: str, dim: int) -> LanceCollection:
    place = address.removeprefix("lancedb://")
    if not place:
        raise InputError(f"{address}: give a folder, as in lancedb://vectors")
    try:
        database = lancedb.connect(place)
        try:
            table = database.open_table(name)
        except (ValueError, FileNotFoundError):  # the table does not exist yet
            table = database.create_table(name, schema=schema_of(dim))
        there = table.schema.field("vector").type.list_size
    except (OSError, RuntimeError, ValueError) as error:
        raise unreachable(address, error, "give a folder that you can write to, or an object store") from error
    if there != dim:
        raise other_length(address, name, there, dim)
    return LanceCollection(table)
