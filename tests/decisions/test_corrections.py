"""What a person has heard: a table of corrections for compare, calibrate and index."""

import json
from pathlib import Path

import pytest

from ssl_audio import load_model
from ssl_audio.cli import main
from ssl_audio.decisions.corrections import Corrections
from ssl_audio.errors import InputError
from ssl_audio.retrieval import Index

NAMES = ["a/1", "a/2", "b/1", "b/2", "c/1"]
FOLDERS = ["a", "a", "b", "b", "c"]


def people(*pairs):
    return Corrections(Path("said.csv"), pairs).people(FOLDERS, NAMES)


def test_people_that_are_the_same_become_one():
    assert people(("a/1", "c/1", True)) == ["a", "a", "b", "b", "a"]
    assert people(("c/1", "b/2", True), ("a/2", "b/1", True)) == ["a"] * 5


def test_of_two_that_are_not_the_same_the_second_leaves_its_folder():
    assert people(("a/1", "a/2", False)) == ["a", "not a: a/2", "b", "b", "c"]
    assert people(("a/1", "a/2", False), ("a/2", "b/1", True)) == ["a", "b", "b", "b", "c"]
    assert people(("a/1", "b/1", False)) == FOLDERS  # nobody thought so


def test_contradictions_are_refused():
    with pytest.raises(InputError, match="a/1 and c/1 differ in one line and are the same by others"):
        people(("a/1", "c/1", False), ("a/2", "b/1", True), ("b/2", "c/1", True))


@pytest.fixture
def said(voices, tmp_path):
    path = tmp_path / "said.csv"
    path.write_text("first,second,same\nvoice 0-0/0.wav,voice 0-1/0.wav,yes\nvoice 0-2/0.wav,voice 0-2/1.wav,no\n")
    return path


def test_compare_says_who_decided(calibrated, voices, tmp_path, capsys):
    one, two = voices / "voice 0-0" / "0.wav", voices / "voice 0-0" / "1.wav"
    found = {}
    for answer in ("yes", "no"):
        (tmp_path / "said.csv").write_text(f"first,second,same\n{two},{one},{answer}\nelse,where,no\n")
        words = ["compare", one, two, "--model", calibrated, "--corrections", tmp_path / "said.csv", "--json"]
        assert main([*map(str, words), "--device", "cpu"]) == 0
        found[answer] = json.loads(capsys.readouterr().out)[0]
    assert (found["yes"]["same"], found["no"]["same"]) == (True, False)
    assert found["yes"]["llr"] == found["no"]["llr"] and "decided by" in found["no"]["warnings"][-1]


@pytest.mark.slow
def test_calibrate_counts_the_corrected_people(plain_model, voices, said, tmp_path, capsys):
    words = ["calibrate", "--model", plain_model, "--data", voices, "--output", tmp_path / "out", "--corrections", said]
    assert main([*map(str, words), "--device", "cpu"]) == 0
    facts = load_model(tmp_path / "out").calibration.facts
    assert facts["people"] == 10  # two became one, one became two
    assert facts["same_person_trials"] == 8 * 7 // 2 + 7 * 6 + 3  # 8 recordings, 7 people with 4, and 3
    said.write_text("first,second,same\nx,y,yes\n")
    assert main([*map(str, words), "--device", "cpu"]) == 2
    assert "x is not among the recordings" in capsys.readouterr().err


def test_an_index_has_the_corrected_groups(plain_model, voices, said, tmp_path):
    output = tmp_path / "voices.index"
    words = ["index", voices, "--model", plain_model, "--output", output, "--corrections", said, "--device", "cpu"]
    for _ in range(2):  # twice, with the same result
        assert main([*map(str, words)]) == 0
        index = Index.load(output)
        names = [Path(path).relative_to(voices).as_posix() for path in index.paths]
        group = dict(zip(names, index.groups, strict=True))
        assert group["voice 0-1/3.wav"] == group["voice 0-0/0.wav"] == "voice 0-0"
        assert group["voice 0-2/1.wav"] == "not voice 0-2: voice 0-2/1.wav" and group["voice 0-2/2.wav"] == "voice 0-2"
