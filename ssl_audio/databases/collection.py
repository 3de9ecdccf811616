"""The interface of a collection in a database, and messages that all kinds of database share."""

import re
from collections.abc import Sequence
from typing import Protocol

import pyarrow as pa

from ssl_audio.errors import InputError, first_line


class Collection(Protocol):
    """The rows of one model in one database.

    Attributes:
        batch_rows: suitable number of rows per request.
        errors: exceptions of its library that mean that the server cannot be reached or refuses a request.
    """

    batch_rows: int
    errors: tuple[type[Exception], ...]

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        """`{id: digest of the row}` for those of `ids` that are in the collection."""
        ...

    def upsert(self, rows: pa.RecordBatch) -> None:
        """Write rows with the columns `rows.schema_of(dim)`, all or none. A row replaces a row with the same id."""
        ...

    def __len__(self) -> int:
        """Number of rows in the collection."""
        ...

    def close(self) -> None:
        """Finish writing (for example, merge small files) and disconnect."""
        ...


def without_password(address: str) -> str:
    """The address with its password replaced, for messages."""
    return re.sub(r"(://[^/@]*?):[^/@]*@", r"\1:***@", address)


def unreachable(address: str, error: Exception, remedy: str) -> InputError:
    """The error for a database that cannot be opened."""
    return InputError(f"{without_password(address)}: cannot be opened ({first_line(error)}); {remedy}")


def other_length(address: str, name: str, there: int, dim: int) -> InputError:
    """The error for a collection whose vectors have another length."""
    return InputError(
        f"{without_password(address)}: the vectors of collection {name} have {there} values, those of the table {dim}; "
        "give another --collection"
    )
