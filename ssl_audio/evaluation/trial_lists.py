"""The forms of trial lists, and the files that their names mean.

| form | a line |
|---|---|
| published | `1,singer/a.wav,singer/b.wav` |
| VoxCeleb | `1 id10270/x6uYqmx31kE/00001.wav id10270/8jEAjG6SegY/00008.wav` |
| Kaldi, CN-Celeb | `id10270-x6uYqmx31kE-00001 id10270-8jEAjG6SegY-00008 target` |

Commas, tabs and blanks separate; the label (1 or target, 0 or nontarget) comes first or last.
"""

import csv
from pathlib import Path

from ssl_audio import audio
from ssl_audio.errors import InputError
from ssl_audio.evaluation.recordings import without_layout
from ssl_audio.utils.names import on_disk

LABELS = {"1": True, "0": False, "target": True, "nontarget": False}


def parse_trial(line: str, place: str, spaced: bool = False) -> tuple[bool, str, str]:
    """(whether it is a same-singer trial, the two names) of a line.

    Args:
        line: of a trial list.
        place: where it stands, for the message.
        spaced: whether a blank follows each comma, which belongs to no name.

    Raises:
        InputError: it has another number of fields, or no label.
    """
    fields = _fields(line, place, spaced)
    if len(fields) != 3:
        raise InputError(
            f"{place}: expected label,singer/file,singer/file (commas in names quoted; names with blanks need commas "
            f"or tabs), got {line.strip()!r}"
        )
    if fields[0] in LABELS:
        return LABELS[fields[0]], fields[1], fields[2]
    if fields[2] in LABELS:
        return LABELS[fields[2]], fields[0], fields[1]
    raise InputError(
        f"{place}: the label must be 1 (same singer) or 0, or target or nontarget, first or last; got {line.strip()!r}"
    )


def _fields(line: str, place: str, spaced: bool) -> list[str]:
    """The fields of a line, separated by commas if it has any, else by tabs, else by blanks."""
    if "," not in line and '"' not in line:
        return [field.strip() for field in line.split("\t" if "\t" in line else None)]
    fields = line.split(",")
    if len(fields) != 3 or any(field.strip()[:1] == field.strip()[-1:] == '"' for field in fields):
        try:
            fields = next(csv.reader([line], skipinitialspace=spaced))
        except csv.Error as error:
            raise InputError(f"{place}: is not a row of a list: {error}") from error
    labels = [i for i in (0, len(fields) - 1) if fields[i].strip() in LABELS][:1]
    return [field.strip() if spaced or i in labels else field for i, field in enumerate(fields)]


class FileNames:
    """Finds the files below a folder that the names of a trial list mean.

    A name is a path below the folder; the same without its suffix, or with another one; below folders of the corpus's
    layout (`wav/`, `dev/wav/`, `eval/test/`), in which E and H of VoxCeleb1 find the parts dev and test; or an id of
    Kaldi's, the path with hyphens in place of slashes.

    Args:
        root: the folder. It is searched once, when a name is no path below it. None: every name is a path.
    """

    def __init__(self, root: Path | None) -> None:
        self.root = root
        self._known: dict[str, set[str]] | None = None

    def find(self, name: str) -> str:
        """The path below the folder; the name itself if there is none.

        Raises:
            InputError: the name means several files.
        """
        if self.root is None or not self.root.is_dir():
            return name
        there = on_disk(self.root / name)
        if "/" in name and there.is_file() and there.is_relative_to(self.root):
            return there.relative_to(self.root).as_posix()
        known = self._index(self.root)
        found = known.get(name) or known.get(_stem(name)) or set()
        if len(found) > 1:
            first, second = sorted(found)[:2]
            raise InputError(f"{name} means {first} and {second} in {self.root}; write paths below that folder")
        return next(iter(found), name)

    def _index(self, root: Path) -> dict[str, set[str]]:
        if self._known is None:
            self._known = {}
            for path in audio.find_audio_files(root):
                name = path.relative_to(root).as_posix()
                for tail in {name, without_layout(name)}:
                    stem = _stem(tail)
                    for key in {tail, stem, stem.replace("/", "-")}:
                        self._known.setdefault(key, set()).add(name)
                if len(Path(without_layout(name)).parts) == 1:  # CN-Celeb lists `test/a.wav`, which lies in `eval/test`
                    self._known.setdefault("/".join(name.split("/")[-2:]), set()).add(name)
        return self._known


def _stem(name: str) -> str:
    """The name without the suffix of an audio file."""
    suffix = Path(name).suffix
    known = suffix.lower() in audio.EXTENSIONS + audio.UNSUPPORTED_EXTENSIONS
    return name[: -len(suffix)] if suffix and known else name
