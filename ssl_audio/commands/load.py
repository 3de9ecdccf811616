"""Load a table of embeddings into a vector database: LanceDB, Qdrant, PostgreSQL with pgvector, or SQLite.

The id of a row depends on its content, so a table can be loaded again: new rows are added, changed rows are replaced,
and an interrupted run continues where it stopped. Each model has its own collection.
"""

import time
from argparse import ArgumentParser, Namespace

EXAMPLES = """examples:
  ssl-audio load embeddings.parquet --into lancedb://vectors
  ssl-audio load embeddings.parquet --into sqlite:///vectors.db
  with the key in QDRANT_API_KEY:
    ssl-audio load embeddings.parquet --into qdrant://localhost:6333
  with the password in PGPASSWORD:
    ssl-audio load embeddings.parquet --into postgresql://me@localhost/music
  ssl-audio load windows.npz --into lancedb://vectors --fingerprint 0123456789abcdef --prefix concerts/
"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("table", help="table that `ssl-audio embed` wrote (.parquet or .npz)")
    parser.add_argument(
        "--into", required=True, metavar="ADDRESS", help="lancedb://, qdrant://, postgresql://, sqlite:///"
    )
    parser.add_argument("--collection", metavar="NAME", help="name of the collection; default: ssl_audio_<fingerprint>")
    parser.add_argument("--fingerprint", metavar="TEXT", help="fingerprint of the model, for .npz tables")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="text before each path, to distinguish libraries")
    parser.add_argument(
        "--batch_size", type=int, metavar="N", help="rows per request; default: depends on the database"
    )


def run(args: Namespace) -> int:
    from tqdm import tqdm

    from ssl_audio.databases import EmbeddingRows, load_rows, open_collection
    from ssl_audio.databases.collection import without_password

    rows = EmbeddingRows(args.table, args.fingerprint, args.prefix)
    name = args.collection or rows.collection
    collection = open_collection(args.into, name, rows.dim)
    started = time.perf_counter()
    try:
        with tqdm(desc="loading", total=len(rows), unit="row", unit_scale=True, delay=2) as bar:
            counts = load_rows(rows, collection, args.batch_size, bar.update)
        total = len(collection)
    finally:
        collection.close()
    took = time.perf_counter() - started
    print(
        f"{without_password(args.into)}: collection {name} holds {total} rows of {rows.dim} values "
        f"({counts.new} new, {counts.changed} changed, {counts.unchanged} unchanged; {took:.1f} s)"
    )
    return 0
