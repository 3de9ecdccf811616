"""`table:` addresses: what `ssl-audio embed` and others computed, found again by path."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ssl_audio import load_model, save_model
from ssl_audio.cli import run_command
from ssl_audio.embedding import embed_files
from ssl_audio.embedding.recordings import EvalProtocol, embed_recordings
from ssl_audio.encoders import CompactCNN
from ssl_audio.errors import InputError
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint


@pytest.fixture(scope="module")
def model() -> EmbeddingModel:
    torch.manual_seed(0)
    return EmbeddingModel(LogMelSpectrogram(16000, 512, 160, 32), CompactCNN([8, 8], 12), 16000).eval()


@pytest.fixture
def saved(model, tmp_path) -> Path:
    save_model(model, tmp_path / "saved")
    return tmp_path / "saved"


def paths(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.wav"))


def embed(saved: Path, singers: Path, output: Path, *options: str) -> str:
    assert run_command("embed", [str(singers), "--model", str(saved), "--output", str(output), *options]) == 0
    return f"table:{output}"


def write_csv(path: Path, rows: list[list]) -> str:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return f"table:{path}"


@pytest.mark.parametrize("suffix", ["parquet", "npz"])
def test_what_embed_wrote_is_found_again(suffix, model, saved, singers, tmp_path):
    table = load_model(embed(saved, singers, tmp_path / f"table.{suffix}"))
    expected = [result.embedding for result in embed_files(model, paths(singers))]
    np.testing.assert_allclose(embed_recordings(EvalProtocol(table), paths(singers)), expected, atol=1e-6)
    np.testing.assert_allclose(table.embed(paths(singers)[3]), expected[3], atol=1e-6)
    assert table.dim == 12 and (suffix == "npz" or table.sample_rate == 16000)


def test_windows_are_found_if_they_are_the_tables_and_averaged_if_whole_files_are_asked_for(
    model, saved, singers, tmp_path
):
    settings = {"window_seconds": 0.4, "hop_seconds": 0.25}
    address = embed(saved, singers, tmp_path / "windows.parquet", "--window", "0.4", "--hop", "0.25")
    table, files = load_model(address), paths(singers)[:4]
    ours, theirs = (list(embed_files(one, files, **settings)) for one in (model, table))
    assert [(one.index, one.path) for one in theirs] == [(one.index, one.path) for one in ours]
    np.testing.assert_allclose([one.start for one in theirs], [one.start for one in ours])
    np.testing.assert_allclose([one.end for one in theirs], [one.end for one in ours])
    np.testing.assert_allclose([one.embedding for one in theirs], [one.embedding for one in ours], atol=1e-6)
    means = [one.embedding for one in embed_files(model, files, aggregate="mean", **settings)]
    for options in ({}, {"aggregate": "mean", **settings}):
        np.testing.assert_allclose([one.embedding for one in embed_files(table, files, **options)], means, atol=1e-6)
    for wrong in ({"window_seconds": 0.4}, {"window_seconds": 0.5, "hop_seconds": 0.25}):
        with pytest.raises(InputError, match=r"holds no windows of .* make it with ssl-audio embed --window"):
            embed_files(table, files, **wrong)
    whole = load_model(embed(saved, singers, tmp_path / "whole.parquet"))
    with pytest.raises(InputError, match=r"holds no windows of 0\.4 s every 0\.25 s"):
        embed_files(whole, files, **settings)
    assert len(list(embed_files(whole, files, window_seconds=3.0))) == 4  # the files are shorter


def test_a_csv_of_somebody_else(tmp_path, singers):
    rows = [[path.relative_to(singers).as_posix(), i, 2 * i] for i, path in enumerate(paths(singers))]
    table = load_model(write_csv(tmp_path / "t.csv", [["path", "x", "y"], *rows, rows[1]]))
    found = [one.embedding.tolist() for one in embed_files(table, paths(singers))]
    assert found == [[i, 2 * i] for i in range(20)]


def test_files_are_found_by_their_last_folders_and_by_a_name_that_is_the_only_one(tmp_path):
    address = write_csv(tmp_path / "t.csv", [["path", "x"], ["a/one.wav", 1], ["b/one.wav", 2], ["./c/two.wav", 3]])
    encoder = load_model(address).encoder

    def look_up(*names: str) -> list[float]:
        return [float(rows.values[0, 0]) for rows in encoder.look_up([Path(name) for name in names])]

    assert look_up("/data/a/one.wav", "/data/b/one.wav", "elsewhere/two.wav") == [1, 2, 3]
    with pytest.raises(InputError, match=r"lacks 1 of 2 files, first /data/d/one\.wav"):
        look_up("/data/a/one.wav", "/data/d/one.wav")  # two files of this name: neither is meant
    with pytest.raises(InputError, match=r"lacks 2 of 2 files, first x/two\.wav"):
        look_up("x/two.wav", "y/two.wav")
    assert look_up("x/two.wav", "x/two.wav") == [3, 3]
    flat = load_model(write_csv(tmp_path / "flat.csv", [["path", "x"], ["one.wav", 1]])).encoder
    with pytest.raises(InputError, match=r"has one row one\.wav for a/one\.wav and b/one\.wav"):
        flat.look_up([Path("a/one.wav"), Path("b/one.wav")])


def test_a_table_of_other_files_is_refused_with_a_count_and_the_first_one(tmp_path, singers, capsys):
    address = write_csv(tmp_path / "t.csv", [["path", "x", "y"], ["singer 0/song0.wav", 1, 2]])
    for report in ("raise", "report"):
        with pytest.raises(InputError, match=r"lacks 19 of 20 files, first .*singer 0/song1\.wav"):
            embed_files(load_model(address), paths(singers), on_error=report)
    arguments = [str(singers), "--model", address, "--output", str(tmp_path / "out.parquet")]
    assert run_command("embed", arguments) == 2
    error = capsys.readouterr().err
    assert "lacks 19 of 20 files" in error and error.count("\n") == 1
    assert not (tmp_path / "out.parquet").exists()


def test_a_table_is_no_model_of_audio(model, saved, singers, tmp_path):
    table = load_model(embed(saved, singers, tmp_path / "t.parquet"))
    with pytest.raises(InputError, match="has embeddings of files and cannot embed samples"):
        table(torch.zeros(1, 16000))
    for change in ({"round_trip": True}, {"reverb_seed": 1}):
        with pytest.raises(InputError, match="the audio cannot be changed"):
            EvalProtocol(table, **change)
    with pytest.raises(InputError, match=r"t\.parquet cannot be saved"):
        save_model(table, tmp_path / "saved again")
    with pytest.raises(InputError, match=r"t\.parquet cannot be trained"):
        table.train()


def test_the_fingerprint_is_the_tables(saved, singers, tmp_path):
    one = embed(saved, singers, tmp_path / "one.parquet")
    other = embed(saved, singers, tmp_path / "other.parquet", "--window", "0.5")
    (tmp_path / "moved.parquet").write_bytes((tmp_path / "one.parquet").read_bytes())
    marks = [fingerprint(load_model(address)) for address in (one, other, f"table:{tmp_path / 'moved.parquet'}")]
    assert marks[0] == marks[2] != marks[1]


def test_damaged_and_foreign_tables_are_one_line(tmp_path):
    write_csv(tmp_path / "nan.csv", [["path", "x", "y"], ["a.wav", 1, 2], ["b.wav", 1, ""], ["c.wav", "nan", 1]])
    write_csv(tmp_path / "words.csv", [["path", "x"], ["a.wav", "loud"]])
    write_csv(tmp_path / "widths.csv", [["path", "x", "y"], ["a.wav", 1, 2], ["b.wav", 1]])
    write_csv(tmp_path / "names.csv", [["file", "x"], ["a.wav", 1]])
    write_csv(tmp_path / "empty.csv", [["path", "x"]])
    (tmp_path / "cut.parquet").write_bytes(b"PAR1 and no more")
    (tmp_path / "cut.npz").write_bytes(b"PK and no more")
    pq.write_table(pa.table({"path": ["a", "b"], "embedding": [[1.0, 2.0], [1.0]]}), tmp_path / "ragged.parquet")
    pq.write_table(pa.table({"path": ["a"], "vector": [[1.0]]}), tmp_path / "other.parquet")
    np.savez(tmp_path / "short.npz", path=np.array(["a", "b"]), embedding=np.zeros((1, 3), np.float32))
    np.savez(tmp_path / "object.npz", path=np.array(["a"], dtype=object), embedding=np.zeros((1, 3), np.float32))
    for name, message in [
        ("nan.csv", "2 rows have NaN or infinity, first b.wav"),
        ("words.csv", "a column other than path has values that are not numbers"),
        ("widths.csv", "its rows have 2, 3 numbers; all rows must have the same number"),
        ("names.csv", "has no column path; it has file, x"),
        ("empty.csv", "holds no embeddings"),
        ("cut.parquet", "cannot be read as a table of embeddings"),
        ("cut.npz", "cannot be read as a table of embeddings"),
        ("ragged.parquet", "its rows have 1, 2 numbers"),
        ("other.parquet", "has no column embedding; it has path, vector"),
        ("short.npz", "2 paths do not fit embeddings float32 (1, 3)"),
        ("object.npz", "cannot be read as a table of embeddings"),
        ("table.txt", "no such file"),
    ]:
        with pytest.raises(InputError) as caught:
            load_model(f"table:{tmp_path / name}")
        assert message in str(caught.value) and "\n" not in str(caught.value), name
    (tmp_path / "table.txt").write_text("path x")
    with pytest.raises(InputError, match=r"the name of a table must end in \.parquet, \.npz, \.csv"):
        load_model(f"table:{tmp_path / 'table.txt'}")


def test_index_and_recommend_take_a_table(model, saved, singers, tmp_path, capsys):
    address = embed(saved, singers, tmp_path / "windows.parquet", "--window", "10")
    for name, given in (("table", address), ("model", str(saved))):
        assert run_command("index", [str(singers), "--model", given, "--output", str(tmp_path / name)]) == 0
    capsys.readouterr()
    asked = tmp_path / "elsewhere" / "singer 0" / "song1.wav"  # a query that is no file of the library
    asked.parent.mkdir(parents=True)
    asked.write_bytes(paths(singers)[1].read_bytes())
    found = []
    for name in ("table", "model"):
        assert run_command("recommend", [str(asked), "--index", str(tmp_path / name), "-n", "3", "--json"]) == 0
        hits = json.loads(capsys.readouterr().out)[0]["recommendations"]
        found.append([(hit["path"], round(hit["score"], 4)) for hit in hits])
    assert found[0] == found[1] and found[0][0][0].endswith("singer 0/song1.wav")


def test_a_probe_takes_a_table_and_saves_nothing_of_it(saved, singers, tmp_path, capsys):
    options = ["--corpus", "folder", "--root", str(singers), "--random_split", "3", "--head", "knn", "--no_baselines"]
    address = embed(saved, singers, tmp_path / "saved.parquet", "--window", "3")
    tables = []
    for given in (str(saved), address):
        capsys.readouterr()
        assert run_command("probe", ["--model", given, *options]) == 0
        tables.append(capsys.readouterr().out.replace("saved.parquet", "saved").split())
    assert tables[0] == tables[1]
    assert run_command("probe", ["--model", address, *options, "--output", str(tmp_path / "probe")]) == 2
    assert "cannot be saved with a classifier (leave --output out)" in capsys.readouterr().err
    assert run_command("probe", ["--model", address, *options[:6], "--mode", "transfer"]) == 2
    assert "cannot be trained" in capsys.readouterr().err
