"""What every kind of database offers, and the messages that they share."""

import re
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from ssl_audio.errors import InputError, first_line


class Collection(Protocol):
    """The rows of one model in one database.

    Attributes:
        batch_rows: how many rows suit one round trip.
        errors: the exceptions by which its library says that the server is away or refuses.
    """

    batch_rows: int
    errors: tuple[type[Exception], ...]

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """Of those of `ids` that are there: id -> digest of the row."""
        ...

    def upsert(self, rows: pa.RecordBatch) -> None:
        """Write rows of `rows.schema_of(dim)`, all or none; a row whose id is there replaces it."""
        ...

    def __len__(self) -> int:
        """Rows in the collection."""
        ...

    def close(self) -> None:
        """Finish (tidy up files, build what is built last) and disconnect."""
        ...


def without_password(address: str) -> str:
    """The address as messages may show it."""
    return re.sub(r"(://[^/@]*?):[^/@]*@", r"\1:***@", address)


def unreachable(address: str, error: Exception, remedy: str) -> InputError:
    """The one line for a database that cannot be opened."""
    return InputError(f"{without_password(address)}: cannot be opened ({first_line(error)}); {remedy}")


def other_length(address: str, name: str, there: int, dim: int) -> InputError:
    """The one line for a collection whose vectors have another length."""
    return InputError(
        f"{without_password(address)}: the vectors of collection {name} have {there} values, those of the table {dim}; "
        "give another --collection"
    )
