"""Load a table of embeddings into a vector database.

    from ssl_audio.databases import EmbeddingRows, load_rows, open_collection

    rows = EmbeddingRows("embeddings.parquet")
    collection = open_collection("lancedb://vectors", rows.collection, rows.dim)
    print(load_rows(rows, collection))     # Counts(new=1000, changed=0, unchanged=0)

The scheme of an address is the name of a module in `kinds/`. To add a kind of database, write `kinds/<scheme>.py` with
a function `open_collection(address, name, dim)` that returns a `Collection`.
"""

from ssl_audio.databases.collection import Collection
from ssl_audio.databases.loading import Counts, load_rows
from ssl_audio.databases.opening import open_collection
from ssl_audio.databases.rows import EmbeddingRows

__all__ = ["Collection", "Counts", "EmbeddingRows", "load_rows", "open_collection"]
