"""Load a table of embeddings into a vector database: LanceDB, Qdrant, PostgreSQL with pgvector, or SQLite.

Each row has an id that follows from its content, so that a table can be loaded again: rows that are there are left
alone, changed ones are replaced, and an interrupted run goes on where it was. There is one collection a model.
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
    parser.add_argument("table", help="made by `ssl-audio embed`: .parquet or .npz")
    parser.add_argument(
        "--into", required=True, metavar="ADDRESS", help="lancedb://, qdrant://, postgresql://, sqlite:///"
    )
    parser.add_argument("--collection", metavar="NAME", help="default: ssl_audio_ and the model's fingerprint")
    parser.add_argument("--fingerprint", metavar="TEXT", help="of the model, for a table that does not say it (.npz)")
    parser.add_argument("--prefix", default="", metavar="TEXT", help="put before every path, to keep libraries apart")
    parser.add_argument("--batch_size", type=int, metavar="N", help="rows a round trip; default: the database's")


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
