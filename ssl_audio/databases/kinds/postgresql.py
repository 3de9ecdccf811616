"""PostgreSQL with pgvector: `postgresql://user@host:5432/database`. libpq reads the address.

Give the password in PGPASSWORD or ~/.pgpass. If the database does not have the extension `vector`, it is created; the
user needs the right to do so.
"""

from collections.abc import Sequence

import psycopg
import pyarrow as pa
from pgvector.psycopg import register_vector
from psycopg import sql

from ssl_audio.databases.collection import other_length, unreachable

_COLUMNS = ("id", "vector", "path", "start", "end", "group", "fingerprint", "digest")


class PostgresCollection:
    """A table with the columns of a row. The vector has the type `vector(dim)` of pgvector."""

    batch_rows = 1000
    errors = (psycopg.Error,)

    def __init__(self, connection: psycopg.Connection, name: str) -> None:
        self.connection, self.name = connection, sql.Identifier(name)
        update = [sql.SQL("{0} = EXCLUDED.{0}").format(sql.Identifier(column)) for column in _COLUMNS[1:]]
        self._upsert = sql.SQL("INSERT INTO {} ({}) VALUES ({}) ON CONFLICT (id) DO UPDATE SET {}").format(
            self.name,
            sql.SQL(", ").join(map(sql.Identifier, _COLUMNS)),
            sql.SQL(", ").join(sql.Placeholder() * len(_COLUMNS)),
            sql.SQL(", ").join(update),
        )

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        statement = sql.SQL("SELECT id::text, digest FROM {} WHERE id = ANY(%s::uuid[])").format(self.name)
        with self.connection.transaction():
            return dict(self.connection.execute(statement, [list(ids)]).fetchall())

    def upsert(self, rows: pa.RecordBatch) -> None:
        vectors = rows["vector"].flatten().to_numpy().reshape(len(rows), -1)
        content = rows.to_pydict() | {"vector": list(vectors)}
        values = zip(*(content[name] for name in _COLUMNS), strict=True)
        with self.connection.transaction(), self.connection.cursor() as cursor:
            cursor.executemany(self._upsert, values)

    def __len__(self) -> int:
        with self.connection.transaction():
            found = self.connection.execute(sql.SQL("SELECT count(*) FROM {}").format(self.name)).fetchone()
        return found[0] if found else 0

    def close(self) -> None:
        self.connection.close()


def open_collection(address: str, name: str, dim: int) -> PostgresCollection:
    create = sql.SQL(
        "CREATE TABLE IF NOT EXISTS {} (id uuid PRIMARY KEY, vector vector({}) NOT NULL, path text NOT NULL, "
        'start double precision, "end" double precision, "group" text, fingerprint text NOT NULL, digest text NOT NULL)'
    ).format(sql.Identifier(name), sql.Literal(dim))
    length = "SELECT atttypmod FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attname = 'vector'"
    connection = None
    try:
        connection = psycopg.connect(address, connect_timeout=30, autocommit=True)
        with connection.transaction():
            connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
            connection.execute(create)
            found = connection.execute(length, [f'"{name}"']).fetchone()
        register_vector(connection)
    except psycopg.Error as error:
        if connection is not None:
            connection.close()
        remedy = "check host, user, password (PGPASSWORD) and database, and that the server has pgvector"
        raise unreachable(address, error, remedy) from error
    if found and found[0] != dim:
        connection.close()
        raise other_length(address, name, found[0], dim)
    return PostgresCollection(connection, name)
