"""What a person has heard: a list of pairs of recordings that are the same person, or are not."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_audio.errors import InputError

COLUMNS = ("first", "second", "same")
_MEANING = {"yes": True, "same": True, "true": True, "1": True, "no": False, "different": False, "false": False,
            "0": False}  # fmt: skip


@dataclass(frozen=True)
class Corrections:
    """Pairs of recordings.

    Attributes:
        source: the list.
        pairs: (first, second, whether they are the same), as written.
    """

    source: Path
    pairs: tuple[tuple[str, str, bool], ...]

    def contradiction(self, first: str, second: str) -> InputError:
        """The error that two recordings differ by one line and are the same by others."""
        return InputError(
            f"{self.source}: {first} and {second} differ in one line and are the same by others; "
            "correct one of these lines"
        )

    def places(
        self, names: Sequence[str], files: Sequence[Path] = (), partly: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """((pairs, 2) positions of those that are the same, (pairs, 2) of those that are not).

        Args:
            names: of the recordings; a correction names one of them, or a file relative to the list.
            files: where they are; empty where there need not be any.
            partly: leave out pairs of which a recording is not here, instead of refusing them.

        Raises:
            InputError: a correction names no recording, or one recording twice.
        """
        by_name = {name: i for i, name in enumerate(names)}
        by_file = {os.path.abspath(file): i for i, file in enumerate(files)}
        found: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for first, second, same in self.pairs:
            pair = [self._place(name, by_name, by_file) for name in (first, second)]
            absent = [name for name, place in zip((first, second), pair, strict=True) if place is None]
            if absent and partly:
                continue
            if absent:
                raise InputError(f"{self.source}: {absent[0]} is not among the recordings; remove the line")
            if pair[0] == pair[1]:
                raise InputError(f"{self.source}: compares {first} with itself; remove the line")
            found[same].append((pair[0], pair[1]))  # type: ignore[arg-type]
        alike, apart = (np.array(found[kind], dtype=int).reshape(-1, 2) for kind in (True, False))
        return alike, apart

    def _place(self, name: str, by_name: dict[str, int], by_file: dict[str, int]) -> int | None:
        place = by_name.get(name)
        for folder in (self.source.parent, Path()):
            place = by_file.get(os.path.abspath(folder / name)) if place is None else place
        return place

    def people(self, groups: Sequence[str], names: Sequence[str], files: Sequence[Path] = ()) -> list[str]:
        """Who is heard in each recording, after the corrections.

        Recordings of one folder are one person. Of two recordings of a folder that are not the same, the second leaves
        it. Then all people that a correction calls the same are one, named by the first of their folders.

        Args:
            groups: (recordings,) the folder of each.
            names, files: see `places`.

        Raises:
            InputError: see `places`; also if two recordings that are not the same are one person by other corrections.
        """
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        same, different = self.places(names, files)
        folders, folder = np.unique(np.asarray(groups), return_inverse=True)
        leaves = np.zeros(len(names), dtype=bool)
        leaves[different[folder[different[:, 0]] == folder[different[:, 1]], 1]] = True
        stays = np.flatnonzero(~leaves)
        first = np.concatenate([folder[stays], same[:, 0] + len(folders)])  # folders come before recordings
        second = np.concatenate([stays, same[:, 1]]) + len(folders)
        nodes = len(folders) + len(names)
        _, part = connected_components(coo_array((np.ones(len(first)), (first, second)), (nodes, nodes)), False)
        of_file = part[len(folders) :]
        for a, b in different.tolist():
            if of_file[a] == of_file[b]:
                raise self.contradiction(names[a], names[b])
        title = {int(part[i]): str(folders[i]) for i in reversed(range(len(folders)))}
        for i in np.flatnonzero(leaves).tolist():
            title.setdefault(int(of_file[i]), f"not {groups[i]}: {names[i]}")
        return [title[int(number)] for number in of_file]


def read_corrections(source: str | os.PathLike) -> Corrections:
    """Read a CSV table with the columns first, second and same (yes or no).

    Raises:
        InputError: no such table, other columns, another answer than yes or no, or two answers for one pair.
    """
    source = Path(source)
    try:
        with open(source, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source}: cannot be read as a CSV table: {error}") from error
    if not set(COLUMNS) <= set(header):
        raise InputError(f"{source}: needs the columns {', '.join(COLUMNS)}; it has {', '.join(header) or 'none'}")
    answers: dict[frozenset[str], bool] = {}
    pairs = []
    for line, row in enumerate(rows, 2):
        first, second, said = ((row[name] or "").strip() for name in COLUMNS)
        same = _MEANING.get(said.lower())
        if same is None or not first or not second:
            raise InputError(f"{source}, line {line}: expected file,file,yes or no, got {first},{second},{said}")
        if answers.setdefault(frozenset((first, second)), same) != same:
            raise InputError(f"{source}, line {line}: {first} and {second} have another answer above; keep one")
        pairs.append((first, second, same))
    return Corrections(source, tuple(pairs))
