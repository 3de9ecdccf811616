"""Load a table into a collection. Only new and changed rows are written."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from ssl_audio.databases.collection import Collection
from ssl_audio.databases.rows import EmbeddingRows
from ssl_audio.errors import InputError, first_line


@dataclass
class Counts:
    """Numbers of rows in a table.

    Attributes:
        new: rows that were not in the collection.
        changed: rows whose vector or group has changed.
        unchanged: rows that were not written.
    """

    new: int = 0
    changed: int = 0
    unchanged: int = 0


def load_rows(
    rows: EmbeddingRows,
    collection: Collection,
    batch_rows: int | None = None,
    on_rows: Callable[[int], object] = lambda count: None,
) -> Counts:
    """Write the new and changed rows of a table into a collection, in batches. A batch is written whole or not at all.

    After an interruption, call it again: it asks which rows are in the collection and writes the others.

    Args:
        rows: the table.
        collection: the collection.
        batch_rows: number of rows per request; None: `collection.batch_rows`.
        on_rows: called after each batch with its number of rows.

    Raises:
        InputError: the database cannot be reached any more, or refuses a request. Rows that were written stay.
    """
    if batch_rows is not None and batch_rows < 1:
        raise InputError(f"--batch_size is {batch_rows}; it must be at least 1")
    counts = Counts()
    try:
        for batch in rows.batches(batch_rows or collection.batch_rows):
            _load(_last_of_each_id(batch), collection, counts)
            on_rows(len(batch))
    except collection.errors as error:
        done = counts.new + counts.changed + counts.unchanged
        raise InputError(
            f"the database stopped after {done} rows ({first_line(error)}); run the same command again to continue"
        ) from error
    return counts


def _load(batch: pa.RecordBatch, collection: Collection, counts: Counts) -> None:
    ids, digests = batch["id"].to_pylist(), batch["digest"].to_pylist()
    there = collection.digests(ids)
    new = np.array([name not in there for name in ids])
    changed = np.array([there.get(name, digest) != digest for name, digest in zip(ids, digests, strict=True)])
    if (new | changed).any():
        collection.upsert(batch.filter(pa.array(new | changed)))
    counts.new += int(new.sum())
    counts.changed += int(changed.sum())
    counts.unchanged += int((~(new | changed)).sum())


def _last_of_each_id(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Keep the last row of each id: a table may name a file twice, but databases refuse an id twice in a request."""
    last = {name: position for position, name in enumerate(batch["id"].to_pylist())}
    return batch if len(last) == len(batch) else batch.take(pa.array(sorted(last.values())))
