"""`ssl-audio embed`: real processes on real folders; interrupted, resumed, distributed, with broken files."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers import tiny_frontend, tiny_model

from ssl_audio import audio
from ssl_audio.cli import main
from ssl_audio.embedding import table as embedding_table
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.hub.saved import save_model

RATE = 16000


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    model = tiny_model(frontend=tiny_frontend(normalize="band"))
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_model(model, folder)
    return model, str(folder)


def process(*arguments) -> subprocess.Popen:
    """The command in a process of its own."""
    command = [sys.executable, "-m", "ssl_audio.cli", "embed", *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def test_a_folder_to_parquet(saved, singers, tmp_path):
    model, folder = saved
    output = tmp_path / "out" / "embeddings.parquet"
    assert main(["embed", str(singers), "--model", folder, "--output", str(output)]) == 0
    table = pq.read_table(output)
    assert table.column_names == ["path", "group", "start", "end", "embedding"]
    assert str(table.schema.field("embedding").type) == "list<element: float>"
    rows = table.to_pylist()
    files = audio.find_audio_files(singers)
    assert [row["path"] for row in rows] == [file.relative_to(singers).as_posix() for file in files]
    assert [row["group"] for row in rows] == [file.parent.name for file in files]
    for row, file in zip(rows, files, strict=True):
        np.testing.assert_allclose(row["embedding"], model.embed(file), atol=1e-5)
        assert (row["start"], row["end"]) == (0, pytest.approx(1.0))
    assert sorted(path.name for path in output.parent.iterdir()) == [output.name]  # nothing is left beside it


def test_npz_holds_the_same_and_windows_have_times(saved, singers, tmp_path):
    model, folder = saved
    rows = {}
    for name in ("windows.parquet", "windows.npz"):
        arguments = ["--output", str(tmp_path / name), "--window", "0.5", "--hop", "0.25"]
        assert main(["embed", str(singers), "--model", folder, *arguments]) == 0
    with np.load(tmp_path / "windows.npz") as arrays:
        rows = {name: arrays[name] for name in arrays}
    table = pq.read_table(tmp_path / "windows.parquet")
    assert set(rows) == set(table.column_names)
    assert rows["embedding"].shape == (60, model.dim) and rows["embedding"].dtype == np.float32
    for name in table.column_names:
        assert np.array_equal(
            np.array(table[name].to_pylist()), rows[name].astype(np.array(table[name].to_pylist()).dtype)
        )
    assert rows["start"][:3].tolist() == [0, 0.25, 0.5]

    arguments = ["--output", str(tmp_path / "mean.npz"), "--window", "0.5", "--hop", "0.25", "--aggregate"]
    assert main(["embed", str(singers), "--model", folder, *arguments]) == 0
    with np.load(tmp_path / "mean.npz") as mean:
        assert mean["embedding"].shape == (20, model.dim)
        np.testing.assert_allclose(mean["embedding"][3], rows["embedding"][9:12].mean(0), atol=1e-6)


def test_lists_patterns_and_single_files(saved, singers, tmp_path):
    _, folder = saved
    files = audio.find_audio_files(singers)
    listing = singers / "list.txt"
    listing.write_text("# chosen\nsinger 0/song1.wav\n\n" + str(files[7]) + "\n", encoding="utf-8")
    for source, expected in [
        (listing, [("singer 0/song1.wav", "singer 0"), (str(files[7]), "singer 1")]),
        (singers / "*" / "song2.wav", [(str(file), file.parent.name) for file in files[2::4]]),
        (files[3], [(str(files[3]), "singer 0")]),
    ]:
        output = tmp_path / "some.parquet"
        assert main(["embed", str(source), "--model", folder, "--output", str(output)]) == 0
        rows = pq.read_table(output).to_pylist()
        assert [(row["path"], row["group"]) for row in rows] == expected


def test_broken_files_are_listed_the_rest_is_embedded_and_the_status_is_3(saved, singers, tmp_path, capsys):
    _, folder = saved
    (singers / "singer 1" / "a broken, file.wav").write_bytes(b"RIFF nothing")
    (singers / "singer 2" / "phone.m4a").write_bytes(b"\0\0\0 ftypM4A ")
    output = tmp_path / "embeddings.parquet"
    assert main(["embed", str(singers), "--model", folder, "--output", str(output)]) == 3
    said = capsys.readouterr()
    assert "20 clips of 20 files" in said.out and "2 unreadable" in said.err
    with open(tmp_path / "embeddings.unreadable.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == ["singer 1/a broken, file.wav", "singer 2/phone.m4a"]
    assert all(row["reason"] for row in rows)
    assert pq.read_metadata(output).num_rows == 20

    for row in rows:
        (singers / row["path"]).unlink()
    assert main(["embed", str(singers), "--model", folder, "--output", str(output)]) == 0
    assert not (tmp_path / "embeddings.unreadable.csv").exists()


def many_files(folder, write_tone, count):
    """`count` names of a few recordings of different lengths."""
    folder.mkdir()
    originals = [
        write_tone(folder / f"{i}.wav", seconds=0.3 + 0.1 * i, frequency=100 + 30 * i, seed=i) for i in range(6)
    ]
    for i in range(count - 6):
        os.link(originals[i % 6], folder / f"more-{i:04d}.wav")
    return folder


def test_killed_and_started_again_it_goes_on_and_gives_the_same(saved, tmp_path, write_tone, capsys):
    _, model = saved
    folder = many_files(tmp_path / "files", write_tone, 1500)
    whole, output = tmp_path / "whole.parquet", tmp_path / "embeddings.parquet"
    assert main(["embed", str(folder), "--model", model, "--output", str(whole)]) == 0
    parts = tmp_path / "embeddings.parquet.parts"
    running = process(folder, "--model", model, "--output", output)
    while len(list(parts.glob("0*.parquet"))) < 3:
        assert running.poll() is None, running.stderr.read()
        time.sleep(0.005)
    running.send_signal(signal.SIGKILL)
    running.communicate()
    assert not output.exists()
    done = {path: path.stat().st_mtime_ns for path in parts.glob("0*.parquet")}
    assert len(done) < 1500 // embedding_table.SHARD  # it was killed before the end

    command = ["embed", str(folder), "--model", model, "--output", str(output)]
    assert main([*command, "--window", "0.2"]) == 2
    refused = capsys.readouterr().err
    assert "window_seconds" in refused and "--restart" in refused
    assert {path: path.stat().st_mtime_ns for path in parts.glob("0*.parquet")} == done  # nothing lost by the refusal

    assert main(command) == 0
    assert f"{len(done) * embedding_table.SHARD} of 1500 files are done" in capsys.readouterr().err
    assert close(output, whole)
    assert not parts.exists()


def close(one, other):
    """Equal but for the last bits that batches of another size leave."""
    one, other = pq.read_table(one), pq.read_table(other)
    embeddings = [np.stack(table["embedding"].to_pylist()) for table in (one, other)]
    return np.allclose(*embeddings, atol=1e-6) and one.drop(["embedding"]).equals(other.drop(["embedding"]))


def test_restart_throws_the_parts_away(saved, tmp_path, write_tone):
    _, model = saved
    folder = many_files(tmp_path / "files", write_tone, 10)
    output = tmp_path / "embeddings.parquet"
    parts = tmp_path / "embeddings.parquet.parts"
    parts.mkdir()
    (parts / "settings.json").write_text('{"model": "another"}')
    (parts / "000000.parquet").write_bytes(b"rows of another model")
    assert main(["embed", str(folder), "--model", model, "--output", str(output)]) == 2
    assert main(["embed", str(folder), "--model", model, "--output", str(output), "--restart"]) == 0
    assert pq.read_metadata(output).num_rows == 10


def test_two_processes_give_what_one_gives(saved, tmp_path, write_tone):
    _, model = saved
    folder = many_files(tmp_path / "files", write_tone, 200)
    (folder / "broken.wav").write_bytes(b"nothing")
    one, two = tmp_path / "one.parquet", tmp_path / "two.parquet"
    assert main(["embed", str(folder), "--model", model, "--output", str(one)]) == 3
    running = process(folder, "--model", model, "--output", two, "--devices", 2, "--device", "cpu")
    _, said = running.communicate(timeout=120)
    assert running.returncode == 3, said
    assert close(one, two)
    assert (tmp_path / "two.unreadable.csv").read_text() == (tmp_path / "one.unreadable.csv").read_text()


def test_the_fingerprint_follows_weights_and_construction(saved):
    model, _ = saved
    again = tiny_model(seed=1, frontend=LogMelSpectrogram())
    first = embedding_table.fingerprint(again)
    again.encoder.load_state_dict(model.encoder.state_dict())
    assert len({first, embedding_table.fingerprint(again), embedding_table.fingerprint(model)}) == 3
    assert embedding_table.fingerprint(model) == embedding_table.fingerprint(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--output", "x.parquet"], "nowhere: no such folder"),
        (["{empty}", "--output", "x.parquet"], "no audio files"),
        (["{files}", "--output", "x.csv"], ".parquet or .npz"),
        (["{files}", "--output", "{empty}/x.npz", "--hop", "1"], "window"),
        (["{files}", "--output", "{empty}/x.npz", "--window", "-1"], "window_seconds must be above 0"),
        (["{files}", "--output", "x.npz", "--devices", "2", "--device", "cuda:1"], "one device"),
    ],
)
def test_what_is_wrong_is_said_before_any_work(saved, singers, tmp_path, capsys, arguments, message):
    (tmp_path / "empty").mkdir()
    arguments = [argument.format(empty=tmp_path / "empty", files=singers) for argument in arguments]
    assert main(["embed", *arguments, "--model", saved[1]]) == 2
    error = capsys.readouterr().err
    assert message in error and error.startswith("error: ") and error.count("\n") == 1
    assert not list((tmp_path / "empty").iterdir())


def test_a_place_that_cannot_be_written_is_said_before_any_work(saved, singers, tmp_path, capsys):
    (tmp_path / "folder.parquet").mkdir()
    (tmp_path / "file").write_text("")
    for output, words in (("folder.parquet", "is a folder"), ("file/out.parquet", "cannot be written")):
        assert main(["embed", str(singers), "--model", saved[1], "--output", str(tmp_path / output)]) == 2
        assert words in capsys.readouterr().err


def test_a_call_that_failed_at_once_binds_nobody(saved, singers, tmp_path, capsys):
    common = ["embed", str(singers), "--model", saved[1], "--output", str(tmp_path / "out.parquet")]
    for wrong in (["--device", "warp"], ["--device", "cuda:99"], ["--batch-size", "0"], ["--devices", "0"]):
        assert main([*common, *wrong]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert main([*common, "--window", "0.5"]) == 0


def test_parts_that_another_run_took_are_named_and_its_table_stays(saved, singers, tmp_path):
    model, _ = saved
    files = embedding_table.files_to_embed(str(singers))
    settings = {"window_seconds": None, "hop_seconds": None, "aggregate": None}
    first, second = (embedding_table.EmbeddingTable(model, files, tmp_path / "out.parquet", settings) for _ in range(2))
    first.write_shards(first.missing())
    first.assemble()
    with pytest.raises(InputError, match="another run"):
        second.assemble()
    assert pq.read_table(tmp_path / "out.parquet").num_rows == len(files)


def test_help_shows_examples(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["embed", "--help"])
    assert stop.value.code == 0 and "ssl-audio embed recordings --model byol" in capsys.readouterr().out
