"""MusicNet's layout: labels on the right samples, or refused; what is missing is named."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from helpers import write_labels, write_musicnet
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_audio import audio
from ssl_audio.data.corpora import musicnet
from ssl_audio.data.notes import Notes, notes_of_roll
from ssl_audio.errors import InputError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    write_musicnet(tmp_path / "musicnet")
    return tmp_path / "musicnet"


milliseconds = st.integers(0, 3000)
note_rows = st.lists(st.tuples(milliseconds, st.integers(1, 900), st.integers(0, 127), st.integers(1, 3)), max_size=12)


@settings(max_examples=80, deadline=None)
@given(note_rows, milliseconds, st.sampled_from([100, 50, 31, 250]), st.randoms())
def test_rolls_equal_the_definition_cell_by_cell(rows, start, rate, random):
    """A note sounds in a frame if onset <= the frame's middle < offset; computed in exact fractions."""
    random.shuffle(rows)
    notes = Notes(
        [a / 1000 for a, *_ in rows], [(a + d) / 1000 for a, d, *_ in rows], [r[2] for r in rows], [r[3] for r in rows]
    )
    frames = 40
    expected = np.zeros((3, frames, 128), bool)  # any, instrument 1, instrument 3
    for a, d, pitch, instrument in rows:
        for f in range(frames):
            middle = Fraction(start, 1000) + (f + Fraction(1, 2)) / rate
            if Fraction(a, 1000) <= middle < Fraction(a + d, 1000):
                expected[0, f, pitch] = True
                for row, number in ((1, 1), (2, 3)):
                    expected[row, f, pitch] |= instrument == number
    np.testing.assert_array_equal(notes.roll(start / 1000, frames, rate), expected[0])
    np.testing.assert_array_equal(notes.instrument_roll(start / 1000, frames, rate, [1, 3]), expected)
    end = start + 400
    sounding = notes.between(start / 1000, end / 1000)
    assert len(sounding) == sum(a < end and a + d > start for a, d, *_ in rows)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.floats(0, 1))
def test_a_roll_and_its_notes_are_the_same(seed, density):
    roll = np.random.default_rng(seed).random((30, 128)) < density
    np.testing.assert_array_equal(notes_of_roll(roll.astype(float), 100).roll(0, 30, 100), roll)


def test_short_runs_are_dropped_and_instruments_go_by_the_surest_row():
    roll = np.zeros((20, 128))
    roll[2:4, 60] = roll[5:15, 62] = 0.9
    by_instrument = np.zeros((2, 20, 128))
    by_instrument[1, 5:15, 62] = 0.3
    notes = notes_of_roll(roll, 100, 0.5, 0.03, [41, 74], by_instrument)
    assert (notes.pitch.tolist(), notes.instrument.tolist()) == ([62], [74])
    assert (notes.onset[0], notes.offset[0]) == (0.05, 0.15)


def test_the_order_of_rows_does_not_matter(tmp_path):
    rows = [(0.5, 1.0, 41, 60), (0.1, 0.9, 42, 64), (0.1, 0.3, 41, 61)]
    write_labels(tmp_path / "a.csv", rows)
    write_labels(tmp_path / "b.csv", rows[::-1])
    a, b = (musicnet.read_notes(tmp_path / name) for name in ("a.csv", "b.csv"))
    for name in ("onset", "offset", "pitch", "instrument"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert a.onset.tolist() == sorted(a.onset) and a.pitch.tolist() == [61, 64, 60]


def test_notes_past_the_end_are_cut_or_refused(tmp_path):
    write_labels(tmp_path / "a.csv", [(0.5, 1.0, 41, 60), (2.5, 3.4, 41, 62), (3.1, 3.5, 41, 64)])
    notes = musicnet.read_notes(tmp_path / "a.csv", seconds=3.0)
    assert notes.pitch.tolist() == [60, 62] and notes.offset.tolist() == [1.0, 3.0]
    with pytest.raises(InputError, match=r"a\.csv: its notes end at 3\.50 s and the recording at 1\.00 s"):
        musicnet.read_notes(tmp_path / "a.csv", seconds=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start_time,end_time,note\n0,1,60\n", "no column instrument"),
        ("start_time,end_time,instrument,note\n0,10,41,60\n10,x,41,60\n", "line 3: is not a note"),
        ("start_time,end_time,instrument,note\n10,10,41,60\n", "line 2: note 60 from sample 10 to 10"),
        ("start_time,end_time,instrument,note\n0,10,41,128\n", "line 2: note 128"),
        ("start_time,end_time,instrument,note\n0\n", "line 2"),
    ],
)
def test_rows_that_are_no_notes_are_named(tmp_path, text, message):
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        musicnet.read_notes(tmp_path / "a.csv")
    assert "\n" not in str(caught.value) and "a.csv" in str(caught.value)


def test_every_missing_file_is_named(tree):
    (tree / "train_data" / "1701.wav").unlink()
    (tree / "train_labels" / "1702.csv").unlink()
    for folder, suffix in (("test_data", "wav"), ("test_labels", "csv")):
        (tree / folder / f"2500.{suffix}").unlink()
    with pytest.raises(InputError, match="zenodo") as caught:
        musicnet.recordings(tree)
    message = str(caught.value)
    for name in ("train_data/1701.wav", "train_labels/1702.csv", "2500.wav"):
        assert name in message
    assert "these 3 files" in message and "\n" not in message
    assert [item.id for item in musicnet.recordings(tree, missing="skip")] == ["1700", "1703"]
    assert [item.id for item in musicnet.recordings(tree, missing="skip", labels=False)] == ["1700", "1702", "1703"]
    with pytest.raises(InputError, match=r"train_data/<id>\.wav.*train_labels/<id>\.csv.*musicnet_metadata\.csv"):
        musicnet.recordings(tree / "nowhere")
    with pytest.raises(InputError, match=r"1702\.wav: has no labels; put them into .*train_labels/1702\.csv"):
        musicnet.recordings(tree, missing="skip", labels=False)[1].notes()


def test_labels_for_classification(tree):
    ensembles = musicnet.read(tree, valid=0.25)
    assert ensembles.label_names == ("Duo", "Trio") and not ensembles.multi_label
    assert [len(ensembles.split(name)) for name in ("train", "valid", "test")] == [3, 1, 1]
    assert {track.labels[0] for track in musicnet.read(tree, "composer").tracks} == {"Bach", "Ravel"}
    instruments = musicnet.read(tree, "instrument")
    assert instruments.multi_label and instruments.label_names == ("cello", "violin")
    with pytest.raises(InputError, match="1700 has no genre; its table has id, composer"):
        musicnet.read(tree, "genre")
    with pytest.raises(InputError, match="valid is many; it must be a number"):
        musicnet.read(tree, valid="many")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1701,Bach,", "1701,,", "1701 has no composer in its row"),
        ("1701,Bach,Work 1,1,Trio,5.0", "1701", "1701 has no composer in its row"),
        ("1701,Bach,", "1701,Bach,W,1,Duo,5\r\n1701,Ravel,", r"metadata\.csv: has two rows of 1701"),
    ],
)
def test_a_table_that_leaves_a_label_open_is_refused(tree, old, new, message):
    path = tree / "musicnet_metadata.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new), encoding="latin-1")
    with pytest.raises(InputError, match=message) as caught:
        musicnet.read(tree, "composer")
    assert "\n" not in str(caught.value)


def test_rows_of_a_table_without_an_id_are_nobodys(tree):
    path = tree / "musicnet_metadata.csv"
    path.write_text("composer,id\nBach,1700\nBach\n")
    assert list(musicnet.read_metadata(tree)) == ["1700"]


def test_real_mixtures_are_read(shared):
    root = shared / "data" / "music" / "note_mixes"
    found = musicnet.recordings(root)
    assert [sum(item.split == split for item in found) for split in ("train", "test")] == [16, 8]
    assert sum(len(item.notes(audio.info(item.path).seconds)) for item in found) == 1014
    item = found[0]
    notes, clip = item.notes(), audio.read(item.path, 16000)
    first = int(notes.onset[0] * 16000)
    assert np.abs(clip[:first]).max() < 0.05 * np.abs(clip[first : first + 8000]).max()  # nothing before the first note
