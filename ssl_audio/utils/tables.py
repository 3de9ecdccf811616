"""Lists and tables of text as people save them. Every list, CSV and TSV that a user gives is read here.

- Encodings: UTF-8 and UTF-16 with or without byte-order mark; a line that is not UTF-8 is read as Windows-1252.
- Lines end at a line feed, a carriage return, or both; never inside of a name, as `str.splitlines` does.
- Columns are separated by comma, semicolon, tab or bar; the header decides.
- Headings are compared without blanks around them and without regard to capitals.
"""

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_audio.errors import InputError
from ssl_audio.utils.names import decode

SEPARATORS = (",", ";", "\t", "|")
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # fmt: skip
_FIELD = 1 << 24  # characters of the longest cell
_LARGEST = 1 << 31  # bytes; a table is read whole


@dataclass(frozen=True)
class Table:
    """The rows of a table with a header.

    Attributes:
        path: where it comes from.
        header: headings without blanks around them; where a column was asked for, as it was asked for.
        rows: one dictionary a row; cells are as they stand in the file, blanks included.
        lines: the line of the file on which each row ends, from 1.
    """

    path: Path
    header: list[str]
    rows: list[dict[str, str]]
    lines: list[int]

    def numbered(self) -> Iterator[tuple[int, dict[str, str]]]:
        """(line, row) of each row."""
        return zip(self.lines, self.rows, strict=True)


def read_text(path: str | os.PathLike) -> str:
    """The text of a file in any of the encodings above.

    Raises:
        InputError: the file is missing, cannot be read, or is not text.
    """
    try:
        size = os.stat(path).st_size
        if size > _LARGEST:
            raise InputError(f"{os.fspath(path)}: has {size / 2**30:.1f} GiB, too much for a list or table of text")
        content = Path(path).read_bytes()
    except OSError as error:
        why = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder"}.get(type(error), error.strerror)
        raise InputError(f"{os.fspath(path)}: cannot be read: {why}") from error
    marked = [(mark, encoding) for mark, encoding in _MARKS if content.startswith(mark)]
    mark, encoding = marked[0] if marked else (b"", _without_mark(content))
    try:
        if encoding != "utf-8":
            return content.decode(encoding)
        if b"\0" not in content:
            return "\n".join(map(decode, content[len(mark) :].split(b"\n")))
    except UnicodeDecodeError:
        pass
    raise InputError(f"{os.fspath(path)}: is not text; save it as plain text or CSV, in UTF-8")


def _without_mark(content: bytes) -> str:
    """UTF-16 without a mark has a zero in every second byte of what is ASCII."""
    start = content[:2000]
    for offset, encoding in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros = start[offset::2].count(0)
        if zeros > len(start) // 4 and not start[1 - offset :: 2].count(0):
            return encoding
    return "utf-8"


def read_lines(path: str | os.PathLike) -> list[str]:
    """The lines of a list, without what ends them.

    Raises:
        InputError: see `read_text`.
    """
    text = read_text(path)
    lines = text.split("\n") if "\n" in text else text.split("\r")
    return [line.removesuffix("\r") for line in lines]


def read_rows(path: str | os.PathLike, separator: str | None = None) -> Iterator[tuple[int, list[str]]]:
    """(line, cells) of each row that is not empty. Without `separator`, that of the first row is found out.

    Raises:
        InputError: see `read_text`; quotes that do not close, or a cell without end.
    """
    text = read_text(path)
    first = _first_line(text)
    start = 1
    if re.fullmatch("sep=.", first):  # Excel's own note
        separator, text, start = separator or first[-1], text.lstrip("\r\n")[len(first) :].lstrip("\r\n"), 2
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator or _separator(first))
    limit = csv.field_size_limit(_FIELD)
    try:
        for cells in rows:
            if any(cell.strip() for cell in cells):
                yield rows.line_num + start - 1, cells
    except csv.Error as error:
        raise InputError(f"{os.fspath(path)}, line {rows.line_num}: is not a row of a table: {error}") from error
    finally:
        csv.field_size_limit(limit)


def _first_line(text: str) -> str:
    return re.split("[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]


def _separator(header: str) -> str:
    outside = "".join(header.split('"')[::2])
    return max(SEPARATORS, key=outside.count)


def read_table(path: str | os.PathLike, columns: Sequence[str] = (), separator: str | None = None) -> Table:
    """A table whose first row has the headings, these columns among others.

    Raises:
        InputError: see `read_rows`; a column is missing or there twice, or a row has more or fewer cells than columns.
    """
    path = Path(path)
    rows = read_rows(path, separator)
    header = [heading.strip() for heading in next(rows, (0, []))[1]]
    header = _as_asked(path, header, columns)
    width = len(header)
    table = Table(path, header, [], [])
    for line, cells in rows:
        if any(cell.strip() for cell in cells[width:]):
            raise InputError(f"{path}, line {line}: has more cells than the header; put cells with commas in quotes")
        absent = [name for name in columns if header.index(name) >= len(cells)]
        if absent:
            raise InputError(f"{path}, line {line}: is cut short; it has no {', '.join(absent)}")
        table.rows.append(dict(zip(header, [*cells, *[""] * (width - len(cells))], strict=False)))
        table.lines.append(line)
    return table


def _as_asked(path: Path, header: list[str], columns: Sequence[str]) -> list[str]:
    """The headings, spelled as `columns` spell them."""
    folded = [heading.casefold() for heading in header]
    for name in columns:
        places = [i for i, heading in enumerate(header) if heading == name]
        places = places or [i for i, heading in enumerate(folded) if heading == name.strip().casefold()]
        if len(places) > 1:
            raise InputError(f"{path}: has {len(places)} columns {name}; remove or rename all but one")
        if places:
            header[places[0]] = name
    absent = [name for name in columns if name not in header]
    if absent:
        raise InputError(f"{path}: has no column {', '.join(absent)}; it has {', '.join(header) or 'no header'}")
    return header
