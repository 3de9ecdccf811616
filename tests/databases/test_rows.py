"""The rows of a table of embeddings: their ids, and what is wrong with a table or an address."""

import sys
import uuid

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tables import FINGERPRINT, ROWS, write_table

from ssl_audio.cli import main
from ssl_audio.databases import EmbeddingRows
from ssl_audio.databases.collection import without_password
from ssl_audio.errors import InputError


def test_ids_never_change(table):
    """Another id for the same row would load every library twice."""
    batch = next(EmbeddingRows(table).batches(2))
    assert batch["id"].to_pylist() == [
        str(uuid.uuid5(uuid.UUID("0ba4dd84-8a5c-5b2a-9b5b-3f3c6f7f4d1e"), f"{FINGERPRINT}\n{path}\n0.0\n1.5\n"))
        for path in ("a/0000.wav", "b/0001.wav")
    ]


def test_npz_and_parquet_hold_the_same_rows(table, tmp_path, vectors):
    columns = pq.read_table(table).to_pydict()
    arrays = {name: np.array(values) for name, values in columns.items() if name != "embedding"}
    np.savez(tmp_path / "table.npz", **arrays, embedding=vectors)
    one, other = EmbeddingRows(table), EmbeddingRows(tmp_path / "table.npz", FINGERPRINT)
    assert len(one) == len(other) == ROWS
    assert pa.Table.from_batches(one.batches(70)).equals(pa.Table.from_batches(other.batches(70)))
    with pytest.raises(InputError, match="--fingerprint"):
        EmbeddingRows(tmp_path / "table.npz")


def test_prefix_model_and_windows_of_a_mean_make_other_ids(tmp_path, vectors):
    def ids(about=None, **options):
        table = write_table(tmp_path / "one.parquet", vectors[:3], about={"model": FINGERPRINT, **(about or {})})
        return next(EmbeddingRows(table, **options).batches(3))["id"].to_pylist()

    whole = ids()
    assert whole == ids({"sample_rate": "44100"})
    others = [
        ids(prefix="x/"),
        ids({"model": "f" * 16}),
        ids({"aggregate": "mean", "window_seconds": "4.0"}),
        ids({"aggregate": "mean", "window_seconds": "8.0"}),
    ]
    assert len({name for rows in [whole, *others] for name in rows}) == 15


def test_what_is_wrong_with_a_table_is_said_before_anything_is_written(tmp_path, vectors, capsys):
    into = ["--into", f"sqlite:///{tmp_path}/out.db"]
    nan = vectors[:3].copy()
    nan[1, 2] = np.nan
    ragged = pa.table({"path": ["a", "b"], "group": ["", ""], "start": [0.0, 0.0], "end": [1.0, 1.0],
                       "embedding": pa.array([[1.0, 2.0], [1.0]], pa.list_(pa.float32()))})  # fmt: skip
    pq.write_table(ragged.replace_schema_metadata({"model": "x"}), tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"path": ["a"]}), tmp_path / "columns.parquet")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1 nothing")
    (tmp_path / "torn.npz").write_bytes(b"PK nothing")
    write_table(tmp_path / "nan.parquet", nan, ["a", "b", "c"])
    write_table(tmp_path / "empty.parquet", vectors[:0])
    write_table(tmp_path / "unknown.parquet", vectors[:2], about={"sample_rate": "1"})
    write_table(tmp_path / "good.parquet", vectors[:2])
    for name, message, *options in [
        ("nan.parquet", "the embedding of b is empty, not finite"),
        ("ragged.parquet", "the embedding of b is empty, not finite, or of another length"),
        ("columns.parquet", "no column group, start, end, embedding"),
        ("torn.parquet", "cannot be read as a table"),
        ("torn.npz", "cannot be read as a table"),
        ("empty.parquet", "has no rows"),
        ("nowhere.parquet", "no such file"),
        ("table.csv", "must end in .parquet or .npz"),
        ("unknown.parquet", "give --fingerprint"),
        ("good.parquet", "leave --fingerprint out", "--fingerprint", "another"),
    ]:
        assert main(["load", str(tmp_path / name), *into, *options]) == 2, name
        error = capsys.readouterr().err
        assert message in error and error.startswith("error: ") and error.count("\n") == 1, error
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize(
    ("into", "message"),
    [
        ("vectors.db", "is not an address of a database"),
        ("sqlight:///x.db", "did you mean 'sqlite'?"),
        ("oracle://x", "choose from lancedb, postgresql, qdrant, sqlite"),
        ("sqlite://x.db", "sqlite:///file.db"),
        ("sqlite:////proc/nowhere/x.db", "cannot be opened"),
        ("sqlite:///table.parquet", "not a database"),
        ("lancedb://", "give a folder"),
        ("lancedb:///proc/nowhere", "cannot be opened"),
        ("qdrant://", "give a host"),
        ("qdrant://127.0.0.1:1", "start the server there"),
        ("qdrant://127.0.0.1:99999", "the port must be a number"),
        ("postgresql://me:secret@127.0.0.1:1/x", "PGPASSWORD"),
        ("postgresql://me@127.0.0.1:port/x", "cannot be opened"),
    ],
)
def test_wrong_addresses_are_one_line(tmp_path, vectors, monkeypatch, capsys, into, message):
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "table.parquet", vectors[:2])
    module = {"qdrant": "qdrant_client", "postgresql": "psycopg", "lancedb": "lancedb"}.get(into.partition(":")[0])
    if module:
        pytest.importorskip(module)
    assert main(["load", "table.parquet", "--into", into]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1 and "secret" not in error


def test_a_password_is_never_shown():
    assert without_password("postgresql://me:s3cr3t@host:5432/db") == "postgresql://me:***@host:5432/db"
    assert without_password("postgresql://me@host:5432/db") == "postgresql://me@host:5432/db"
    assert without_password("sqlite:///a.db") == "sqlite:///a.db"


def test_a_missing_library_names_its_extra(tmp_path, vectors, monkeypatch, capsys):
    write_table(tmp_path / "table.parquet", vectors[:2])
    for scheme, module, extra in [("lancedb", "lancedb", "lancedb"), ("qdrant", "qdrant_client", "qdrant")]:
        with monkeypatch.context() as patch:
            for name in list(sys.modules):
                if name.split(".")[0] == module or name == f"ssl_audio.databases.kinds.{scheme}":
                    patch.delitem(sys.modules, name)
            patch.setattr(sys, "meta_path", [_Without(module), *sys.meta_path])
            assert main(["load", str(tmp_path / "table.parquet"), "--into", f"{scheme}:///x"]) == 2
        assert f"[{extra}]'" in capsys.readouterr().err


class _Without:
    """An import hook under which a package is not installed."""

    def __init__(self, package: str) -> None:
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None
