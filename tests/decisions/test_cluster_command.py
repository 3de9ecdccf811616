"""`ssl-audio cluster`: tables, corrections, links, time lines, the page, and what it refuses."""

import csv
import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from helpers import tiny_model, tone

from ssl_audio.cli import main
from ssl_audio.decisions.timeline import Turn, audacity_labels, rttm, turns
from ssl_audio.hub import save_model


def run(*words) -> int:
    return main(["cluster", *map(str, words), "--device", "cpu"])


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def table(calibrated, voices, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "embeddings.parquet"
    assert main(["embed", str(voices), "--model", str(calibrated), "--output", str(path), "--device", "cpu"]) == 0
    return path


def test_a_folder_and_its_table_give_the_same_clusters(calibrated, voices, table, tmp_path, capsys):
    words = ["--model", calibrated, "--labels", "folders", "--output"]
    assert run(voices, *words, tmp_path / "a.csv") == 0
    assert run(table, *words, tmp_path / "b.parquet") == 0
    found, again = rows(tmp_path / "a.csv"), pq.read_table(tmp_path / "b.parquet").to_pylist()
    assert list(found[0]) == list(again[0]) == ["path", "cluster", "confidence", "nearest"] and len(found) == 40
    assert [(row["path"], int(row["cluster"])) for row in found] == [(row["path"], row["cluster"]) for row in again]
    assert all(0 <= float(row["confidence"]) <= 1 for row in found)
    out = capsys.readouterr().out
    assert "compared with 10 labels of 40" in out and re.search(r"b cubed f1 +0\.\d+ \(", out)


def test_corrections_move_files_and_contradictions_are_refused(calibrated, voices, tmp_path, capsys):
    words = [voices, "--model", calibrated, "--output", tmp_path / "out.csv"]
    said = tmp_path / "said.csv"
    said.write_text(
        f"first,second,same\nvoice 0-0/0.wav,voice 0-9/0.wav,yes\n{voices / 'voice 0-0' / '1.wav'},voice 0-0/2.wav,no\n"
    )
    assert run(*words, "--corrections", said) == 0
    of = {row["path"]: row["cluster"] for row in rows(tmp_path / "out.csv")}
    assert of["voice 0-0/0.wav"] == of["voice 0-9/0.wav"] and of["voice 0-0/1.wav"] != of["voice 0-0/2.wav"]
    capsys.readouterr()
    (tmp_path / "out.csv").unlink()
    for text, message in (
        ("first,second\n", "needs the columns first, second, same"),
        ("first,second,same\na,b,perhaps\n", "line 2: expected file,file,yes or no"),
        ("first,second,same\na,b,yes\nb,a,no\n", "line 3: b and a have another answer above"),
        ("first,second,same\na,b,yes\n", "a is not among the recordings"),
        ("first,second,same\nvoice 0-0/0.wav,voice 0-0/0.wav,yes\n", "with itself"),
        (
            "first,second,same\nvoice 0-0/0.wav,voice 0-0/1.wav,yes\nvoice 0-0/1.wav,voice 0-0/2.wav,yes\n"
            "voice 0-0/2.wav,voice 0-0/0.wav,no\n",
            "differ in one line and are the same by others",
        ),
    ):
        said.write_text(text)
        assert run(*words, "--corrections", said) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "out.csv").exists()


def test_without_a_calibration_it_asks_for_one_or_for_a_cosine(plain_model, voices, table, tmp_path, capsys):
    words = [voices, "--model", plain_model, "--output", tmp_path / "out.csv"]
    assert run(*words) == 2
    line = capsys.readouterr().err
    assert "make one with ssl-audio calibrate" in line and "--threshold COSINE" in line
    assert run(*words, "--threshold", 0.99) == 0
    assert {row["confidence"] for row in rows(tmp_path / "out.csv")} == {""}
    assert run(table, "--clusters", 3, "--output", tmp_path / "three.csv") == 0
    assert {row["cluster"] for row in rows(tmp_path / "three.csv")} == {"0", "1", "2"}
    assert run(table, "--method", "hdbscan", "--output", tmp_path / "dense.csv") == 0
    assert len(rows(tmp_path / "dense.csv")) == 40


def test_what_cannot_be_is_one_line(calibrated, plain_model, voices, table, tmp_path, capsys):
    def error(*words) -> str:
        assert run(*words) == 2
        return capsys.readouterr().err

    output = ["--output", tmp_path / "out.csv"]
    assert "must end in .csv or .parquet" in error(voices, "--model", calibrated, "--output", tmp_path / "out.txt")
    assert "need a model" in error(voices, *output)
    assert "--timeline needs --window" in error(voices, "--model", calibrated, *output, "--timeline", tmp_path)
    assert "a table has no audio" in error(table, "--model", calibrated, *output, "--window", 1)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "is not empty" in error(voices, "--model", calibrated, *output, "--link", tmp_path / "full")
    (tmp_path / "labels.csv").write_text("path,label\nz,1\n")
    assert "no file has a label" in error(voices, "--model", calibrated, *output, "--labels", tmp_path / "labels.csv")
    save_model(tiny_model(seed=5), tmp_path / "other")
    assert "another model made this table" in error(table, "--model", tmp_path / "other", *output)
    assert not (tmp_path / "out.csv").exists()


def test_unreadable_files_are_named_and_the_rest_is_linked(calibrated, tmp_path, write_tone, capsys):
    for n in range(3):
        write_tone(tmp_path / "in" / "a b" / f"{n}.wav", seed=n)
    (tmp_path / "in" / "a b" / "bad.wav").write_bytes(b"no audio")
    words = ["--model", calibrated, "--output", tmp_path / "out.csv", "--link", tmp_path / "links"]
    assert run(tmp_path / "in", *words) == 3
    assert "not clustered: " in capsys.readouterr().err
    links = sorted(path for path in (tmp_path / "links").rglob("*.wav"))
    assert len(links) == 3 and {path.resolve().parent.name for path in links} == {"a b"}
    assert {path.parent.name for path in links} == {f"{int(row['cluster']):05d}" for row in rows(tmp_path / "out.csv")}


def test_turns_meet_in_the_middle_of_what_windows_share():
    found = turns(np.array([0.0, 1.0, 2.0, 2.5]), np.array([2.0, 3.0, 4.0, 4.5]), np.array([0, 0, 1, 0]))
    assert found == [Turn(0, 2.5, 0), Turn(2.5, 3.25, 1), Turn(3.25, 4.5, 0)]
    assert rttm("a b.wav", found[:1]) == "SPEAKER a_b 1 0.000 2.500 <NA> <NA> cluster0 <NA> <NA>\n"
    assert audacity_labels(found[1:2]) == "2.500000\t3.250000\tcluster 1\n"


def test_windows_of_a_long_recording_become_a_time_line(calibrated, tmp_path):
    low, high = (tone(4.0, frequency=f, seed=int(f)) for f in (130.0, 900.0))
    soundfile.write(tmp_path / "talk.wav", np.concatenate([low, high, low]), 16000)
    words = ["--model", calibrated, "--window", 1, "--hop", 0.5, "--clusters", 2, "--output", tmp_path / "out.csv"]
    assert run(tmp_path / "talk.wav", *words, "--timeline", tmp_path / "lines") == 0
    assert list(rows(tmp_path / "out.csv")[0]) == ["path", "start", "end", "cluster", "confidence", "nearest"]
    base = next((tmp_path / "lines").rglob("*.rttm")).with_suffix("")
    lines = [line.split() for line in base.with_name(base.name + ".rttm").read_text().splitlines()]
    assert [line[7] for line in lines] == ["cluster0", "cluster1", "cluster0"]
    assert float(lines[1][3]) == pytest.approx(4, abs=0.5) and float(lines[1][4]) == pytest.approx(4, abs=0.8)
    assert sum(float(line[4]) for line in lines) == pytest.approx(12, abs=0.01)
    assert base.with_name(base.name + ".txt").read_text().count("\t") == 6
    assert base.with_name(base.name + ".png").read_bytes().startswith(b"\x89PNG")


def test_the_page_plays_examples_and_the_least_certain(browser, calibrated, voices, tmp_path):
    page_file = tmp_path / "pages" / "clusters.html"
    assert run(voices, "--model", calibrated, "--output", tmp_path / "out.csv", "--page", page_file) == 0
    found = rows(tmp_path / "out.csv")
    page = browser.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(page_file.as_uri())
    heads = page.locator("li.head").all_inner_texts()
    clusters = len({row["cluster"] for row in found})
    assert heads[0].startswith("Least certain") and heads[1].startswith("Cluster 0, ") and len(heads) == clusters + 1
    least = min(found, key=lambda row: float(row["confidence"]))
    first = page.locator("li button").first
    assert f"{float(least['confidence']):.2f} cluster" in first.inner_text()
    first.click()
    page.evaluate(
        "new Promise((done, fail) => { const look = () => player.readyState >= 3 ? done() : setTimeout(look, 5);"
        " setTimeout(fail, 120000); look(); })"
    )
    assert (
        len(page.locator("li.head").all()) == len(heads) and page.locator("#list-title").inner_text() == "Sounds like"
    )
    data = json.loads(page.locator("#tracks").text_content())
    assert len(data["tracks"]) == 40 and data["kind"] == "cluster" and not problems
    page.close()
