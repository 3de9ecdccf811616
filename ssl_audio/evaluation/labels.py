"""Labelled data sets for probes: a CSV table of files and labels, or a folder with one sub-folder per class."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_audio import audio
from ssl_audio.errors import InputError
from ssl_audio.utils.names import on_disk, plain
from ssl_audio.utils.tables import read_table


@dataclass(frozen=True)
class LabelledFiles:
    """Audio files with their labels.

    Attributes:
        paths: (items,) audio files.
        classes: names of the classes, sorted.
        targets: (items,) int positions in `classes`, or (items, classes) bool for a multi-label task.
        folds: (items,) names of the given folds or splits; None if none are given.
        groups: (items,) names. Items of one group (a recording, an artist) are never on two sides of a split. None:
            each item is its own group.
    """

    paths: list[Path]
    classes: list[str]
    targets: np.ndarray
    folds: list[str] | None = None
    groups: list[str] | None = None


def read_labels(
    table: str | os.PathLike,
    label: str | Sequence[str],
    file: str = "path",
    fold: str | None = None,
    group: str | None = None,
    separator: str | None = None,
    root: str | os.PathLike | None = None,
) -> LabelledFiles:
    """Read a CSV table with one row per item.

        read_labels("esc10.csv", label="category", file="filename", fold="fold")
        read_labels("tags.csv", label="tags", separator="|", fold="split")
        read_labels("tags.csv", label=["rock", "guitar", "loud"])     # columns of 0 and 1

    Args:
        table: the CSV file.
        label: name of the label column; for a multi-label table, a list of columns that hold 0 and 1.
        file: name of the column with the audio files.
        fold: name of the column with the fold or split of each item; None if there is none.
        group: name of the column with the group of each item; None if there is none.
        separator: separates several labels in one cell, which makes the task multi-label.
        root: folder of the audio files; default: the folder of the table.

    Raises:
        InputError: the table or a column is missing; there are no rows; a file is listed twice; a label or a fold is
            empty; there are fewer than two classes.
    """
    table = Path(table)
    if not table.is_file():
        raise InputError(f"{table}: no such label table")
    columns = [label] if isinstance(label, str) else list(label)
    wanted = [file, *(name for name in (fold, group) if name is not None), *columns]
    rows = [{name: plain(row[name]) if name != file else row[name] for name in wanted}
            for row in read_table(table, wanted).rows]  # fmt: skip
    if not rows:
        raise InputError(f"{table}: has no rows")
    base = table.parent if root is None else Path(root)
    paths = [on_disk(base / row[file]) for row in rows]
    counts = Counter(paths)
    if twice := [row[file].strip() for row, path in zip(rows, paths, strict=True) if counts[path] > 1]:
        raise InputError(
            f"{table}: lists {twice[0]} twice, so that it could be in training and in test; remove one of the rows"
        )
    if fold is not None and not all((row[fold] or "").strip() for row in rows):
        first = next(i for i, row in enumerate(rows, start=2) if not (row[fold] or "").strip())
        raise InputError(f"{table}: row {first} has no {fold}; fill it in or remove the row")
    if separator is not None and (not isinstance(separator, str) or not separator):
        raise InputError(f"the separator must be text such as '|', got {separator!r}")
    if len(columns) > 1:
        classes = columns
        targets = np.array([[_zero_or_one(row[name], table, name) for name in columns] for row in rows])
    else:
        cells = [_labels_of(row[columns[0]], separator) for row in rows]
        if separator is None and not all(cells):
            raise InputError(f"{table}: row {[bool(c) for c in cells].index(False) + 2} has no {columns[0]}")
        classes = sorted({name for cell in cells for name in cell})
        number = {name: i for i, name in enumerate(classes)}
        if separator is None:
            targets = np.array([number[cell[0]] for cell in cells])
        else:
            targets = np.array([[name in cell for name in classes] for cell in cells])
    if len(classes) < 2:
        raise InputError(f"{table}: column {columns[0]} holds fewer than two classes")
    return LabelledFiles(
        paths=paths,
        classes=classes,
        targets=targets,
        folds=[row[fold].strip() for row in rows] if fold else None,
        groups=[row[group].strip() for row in rows] if group else None,
    )


def folder_labels(root: str | os.PathLike) -> LabelledFiles:
    """Read a folder `class/**/file`; the first folder below the root names the class.

    Raises:
        InputError: the folder is missing, a file lies outside a class folder, or there are fewer than two classes.
    """
    root = Path(root)
    paths = audio.find_audio_files(root)
    parts = [path.relative_to(root).parts for path in paths]
    outside = next((path for path, part in zip(paths, parts, strict=True) if len(part) < 2), None)
    if outside is not None:
        raise InputError(f"{outside}: lies outside a class folder; expected {root.name}/class/{outside.name}")
    names = [plain(part[0]) for part in parts]
    classes = sorted(set(names))
    if len(classes) < 2:
        raise InputError(f"{root}: needs audio files in at least two class folders, has {len(classes)}")
    return LabelledFiles(paths, classes, np.array([classes.index(name) for name in names]))


def _labels_of(cell: str | None, separator: str | None) -> list[str]:
    names = (cell or "").split(separator) if separator else [cell or ""]
    return [name.strip() for name in names if name.strip()]


def _zero_or_one(cell: str | None, table: Path, column: str) -> bool:
    value = (cell or "").strip().lower()
    if value not in ("0", "1", "0.0", "1.0", "false", "true"):
        raise InputError(f"{table}: column {column} must hold 0 or 1, got {cell!r}")
    return value in ("1", "1.0", "true")
