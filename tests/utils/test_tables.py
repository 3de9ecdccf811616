"""Lists and tables in the forms in which people save them; names of files in other spellings and encodings."""

import os
import unicodedata

import pytest

from ssl_audio.errors import InputError
from ssl_audio.utils.names import on_disk, plain, printable
from ssl_audio.utils.tables import read_lines, read_table

TEXT = "path,label\na/ü.wav,métal\nb/x.wav,jazz\n"


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
)
def test_a_table_reads_the_same_in_every_encoding(tmp_path, encoding):
    (tmp_path / "t.csv").write_text(TEXT, encoding=encoding)
    table = read_table(tmp_path / "t.csv", ["path", "label"])
    assert [list(row.values()) for row in table.rows] == [["a/ü.wav", "métal"], ["b/x.wav", "jazz"]]
    assert table.lines == [2, 3]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("first", ["", "sep=,\n"])
def test_separators_line_ends_and_excels_note(tmp_path, separator, end, first):
    text = (first + TEXT).replace(",", separator).replace("\n", end)
    (tmp_path / "t.csv").write_text(text, encoding="utf-8", newline="")
    assert [row["label"] for row in read_table(tmp_path / "t.csv", ["label"]).rows] == ["métal", "jazz"]


def test_headings_are_found_whatever_their_capitals_and_blanks(tmp_path):
    (tmp_path / "t.csv").write_text(" Path , LABEL\na.wav,rock\n")
    assert read_table(tmp_path / "t.csv", ["path", "label"]).rows == [{"path": "a.wav", "label": "rock"}]


def test_quoted_cells_keep_separators_line_breaks_and_blanks(tmp_path):
    (tmp_path / "t.csv").write_text('path,label\n" a, b.wav","two\nlines"\n\nc.wav,x\n')
    table = read_table(tmp_path / "t.csv")
    assert table.rows[0] == {"path": " a, b.wav", "label": "two\nlines"} and table.lines == [3, 5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,label\na,b,c\n", "line 2: has more cells than the header"),
        (b"path,label\na\n", "line 2: is cut short; it has no label"),
        (b"path,name\na,b\n", "has no column label; it has path, name"),
        (b"path,label,Label,label\na,b,c,d\n", "has 2 columns label"),
        (b"", "has no column path, label; it has no header"),
        (b"path,label\0\n", "is not text"),
        (b"\xff\xfep", "is not text"),
        (b"path,label\n" + b"x" * (1 << 25) + b",y\n", "line 2: is not a row of a table: field larger"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, content, message):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError, match=message) as raised:
        read_table(tmp_path / "t.csv", ["path", "label"])
    assert "\n" not in str(raised.value) and "t.csv" in str(raised.value)


def test_missing_tables_and_folders_are_one_line(tmp_path):
    for path, why in ((tmp_path / "gone.csv", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(InputError, match=why):
            read_table(path)


def test_only_line_ends_end_lines(tmp_path):
    (tmp_path / "l.txt").write_text("a\u2028b\u0085c\x0cd\r\ne", encoding="utf-8", newline="")
    assert read_lines(tmp_path / "l.txt") == ["a\u2028b\u0085c\x0cd", "e"]


def test_each_line_has_its_own_encoding(tmp_path):
    (tmp_path / "l.txt").write_bytes("é\n".encode() + "é\n".encode("latin-1"))
    assert read_lines(tmp_path / "l.txt") == ["é", "é", ""]


@pytest.mark.parametrize("folder", [b"Be\xcc\x81la", "Béla".encode(), b"B\xe9la", b"plain"])
@pytest.mark.parametrize("name", [b"caf\xc3\xa9.wav", b"cafe\xcc\x81.wav", b"caf\xe9.wav", b" lead.wav"])
def test_a_file_is_found_in_any_spelling(tmp_path, folder, name):
    there = os.path.join(os.fsencode(tmp_path), folder, name)
    os.makedirs(os.path.dirname(there))
    open(there, "w").close()
    asked = "plain" if folder == b"plain" else "Béla"
    last = " lead.wav" if name == b" lead.wav" else "café.wav"
    for form in ("NFC", "NFD"):
        found = on_disk(tmp_path / unicodedata.normalize(form, asked) / unicodedata.normalize(form, last))
        assert os.fsencode(found) == there
    assert os.fsencode(on_disk(f"{tmp_path}/{asked}\\{last} ")) == there
    assert on_disk(tmp_path / asked / "other.wav") == tmp_path / asked / "other.wav"


def test_names_are_compared_as_text_and_printed_as_text():
    raw = os.fsdecode(b"caf\xe9")
    assert plain(raw) == plain("cafe\u0301") == "café"
    assert printable(raw) == "caf\\xe9" and printable("é") == "é"
