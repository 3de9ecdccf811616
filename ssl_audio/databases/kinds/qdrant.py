"""Qdrant: `qdrant://host`, `qdrant://host:6333`, `qdrant://host?https=true`, or a folder without a server
(`qdrant:///folder` relative, `qdrant:////data/folder` absolute). The environment variable QDRANT_API_KEY has the key.

The collection uses the cosine, so Qdrant stores vectors scaled to unit length.
"""

import os
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import ApiException
from qdrant_client.models import Batch, Distance, VectorParams

from ssl_audio.databases.collection import other_length, unreachable
from ssl_audio.errors import InputError

_ERRORS = (ApiException, OSError, RuntimeError, ValueError)
_PAYLOAD = ("path", "start", "end", "group", "fingerprint", "digest")


class QdrantCollection:
    """A collection. Each row is a point with one unnamed vector; the other columns are its payload."""

    batch_rows = 250  # a request may have 32 MB
    errors = _ERRORS

    def __init__(self, client: QdrantClient, name: str) -> None:
        self.client, self.name = client, name

    def digests(self, ids: Sequence[str]) -> dict[str, str]:
        found = self.client.retrieve(self.name, list(ids), with_payload=["digest"], with_vectors=False)
        return {str(point.id): (point.payload or {}).get("digest", "") for point in found}

    def upsert(self, rows: pa.RecordBatch) -> None:
        payloads = rows.select(list(_PAYLOAD)).to_pylist()
        points = Batch(ids=rows["id"].to_pylist(), vectors=rows["vector"].to_pylist(), payloads=payloads)
        self.client.upsert(self.name, points, wait=True)

    def __len__(self) -> int:
        return self.client.count(self.name).count

    def close(self) -> None:
        self.client.close()


def open_collection(address: str, name: str, dim: int) -> QdrantCollection:
    client = None
    try:
        client = QdrantClient(**_place(address))
        if not client.collection_exists(name):
            client.create_collection(name, VectorParams(size=dim, distance=Distance.COSINE))
        vectors = client.get_collection(name).config.params.vectors
    except _ERRORS as error:
        if client is not None:
            client.close()
        if isinstance(error, InputError):
            raise
        remedy = "start the server there, or close the other process that uses this folder"
        raise unreachable(address, error, remedy) from error
    if not isinstance(vectors, VectorParams) or vectors.size != dim:
        client.close()
        raise other_length(address, name, getattr(vectors, "size", 0), dim)
    return QdrantCollection(client, name)


def _place(address: str) -> dict[str, Any]:
    """The arguments of `QdrantClient` for an address."""
    parts = urlsplit(address)
    if not parts.hostname:
        if not parts.path[1:]:
            raise InputError(f"{address}: give a host, as in qdrant://localhost, or a folder, as in qdrant:///folder")
        return {"path": parts.path[1:]}
    https = parse_qs(parts.query).get("https", ["false"])[0] == "true"
    key = os.environ.get("QDRANT_API_KEY")
    try:
        port = parts.port or 6333
    except ValueError as error:
        raise InputError(f"{address}: the port must be a number up to 65535; leave it out for 6333") from error
    server = {"host": parts.hostname, "port": port, "https": https, "api_key": key}
    return {**server, "timeout": 60, "check_compatibility": False}  # the check would only warn if the server is away
