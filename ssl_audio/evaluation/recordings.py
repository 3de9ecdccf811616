"""The recordings of an evaluation set: which files there are, who sings, and what a metadata table knows about them."""

import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from ssl_audio import audio
from ssl_audio.errors import InputError
from ssl_audio.utils.cpu import available_cores
from ssl_audio.utils.names import on_disk, plain
from ssl_audio.utils.tables import Table, read_table

logger = logging.getLogger(__name__)

METADATA_NAME = "manifest.csv"
_COLUMNS = {  # what is asked for -> the columns that may hold it, best first; each file takes the first that is filled
    "file": ("path", "file", "filename", "file_name", "file_path", "filepath"),
    "singer": ("singer", "speaker", "singer_id", "speaker_id"),
    "recording": ("recording", "utterance", "song", "source"),
    "take": ("recording", "utterance", "source"),  # sources may be cuts of one recording
    "song": ("song",),
    "gender": ("gender", "sex"),
    "genre": ("genre",),
}
_GENDERS = {
    **dict.fromkeys(("m", "male", "man", "boy"), "m"),
    **dict.fromkeys(("f", "female", "woman", "girl"), "f"),
    **dict.fromkeys(("na", "n/a", "nan", "none", "null", "unknown", "unk", "u", "?", "-"), ""),
}
_SEGMENT = re.compile(r"_\d+_\d+_\d+s$")  # `<stem>_<start>_<end>_<n>s`: segments of one recording


@dataclass(frozen=True)
class Recordings:
    """Files of a folder with what is known of each; every list has one entry a file, "" where nothing is known.

    Attributes:
        root: the folder.
        files: paths below `root`, with forward slashes, sorted.
        singers: who sings.
        recording: what was recorded in one go; two clips with the same value share room and microphone.
        columns: `take` (as `recording`, but finer: one performance of a song), `song`, `gender`, `genre`.
    """

    root: Path
    files: list[str]
    singers: list[str]
    recording: list[str]
    columns: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def paths(self) -> list[Path]:
        return [self.root / name for name in self.files]

    def at(self, positions: Sequence[int]) -> "Recordings":
        """The files at these positions, in this order."""

        def pick(values: list[str]) -> list[str]:
            return [values[i] for i in positions]

        columns = {name: pick(values) for name, values in self.columns.items()}
        return Recordings(self.root, pick(self.files), pick(self.singers), pick(self.recording), columns)

    def select(self, files: Sequence[str], singers: Sequence[str]) -> "Recordings":
        """The named files in this order, sung by `singers`; nothing is known of a file that is not listed here."""
        place = {name: i for i, name in enumerate(self.files)}
        recording = [self.recording[place[name]] if name in place else name for name in files]
        columns = {
            column: [values[place[name]] if name in place else "" for name in files]
            for column, values in self.columns.items()
        }
        return Recordings(self.root, list(files), list(singers), recording, columns)

    def known(self, column: str) -> list[str]:
        """The values of `take`, `song`, `gender` or `genre`; InputError when no metadata tells any."""
        values = self.columns.get(column, [])
        if not any(values):
            raise InputError(f"{self.root}: nothing tells the {column} of the recordings; add it to {METADATA_NAME}")
        return values


def find_recordings(root: str | os.PathLike, metadata: str | os.PathLike | None = None) -> Recordings:
    """List a folder `singer/**/file` and join the table that describes it.

    Args:
        root: the data set; the first folder below it is the singer unless the table says otherwise.
        metadata: CSV with a column path (relative to the CSV or to `root`) and any of singer or speaker, gender, song,
            recording or utterance, source. Default: `manifest.csv` in the folder or the one above, where there is one.

    Raises:
        InputError: missing folder, no audio, files outside singer folders, a table without paths or about other files.
    """
    root = Path(root)
    paths = audio.find_audio_files(root)
    if not paths:
        raise InputError(f"{root}: no audio files; expected singer/file.wav below it")
    rows = _read_metadata(root, metadata)
    known = [rows.get(plain(os.path.abspath(path)), {}) for path in paths]
    if rows and not any(known):
        problem = f"describes none of the {len(paths)} audio files in {root}"
        if metadata is not None:
            raise InputError(f"{metadata}: {problem}; its column path must name them as they lie there")
        logger.warning("%s of %s: %s, and is not used", METADATA_NAME, root, problem)
    files = [path.relative_to(root).as_posix() for path in paths]
    singers = [row.get("singer") or plain(_first_folder(name, root)) for row, name in zip(known, files, strict=True)]
    recording = [
        f"{singer}/{row.get('recording') or recording_name(name)}"
        for row, name, singer in zip(known, files, singers, strict=True)
    ]
    columns = {name: [row.get(name, "") for row in known] for name in ("take", "song", "gender", "genre")}
    return Recordings(root, files, singers, recording, columns)


def recording_name(file: str) -> str:
    """What a file name tells of its recording: segments `<stem>_<start>_<end>_<n>s` of one file have one `<stem>`."""
    return _SEGMENT.sub("", Path(file).stem)


def unreadable_files(paths: Sequence[Path], progress: bool = True) -> dict[Path, str]:
    """Decode every file once, in parallel: {path: why} of those that are missing, broken, silent or NaN."""

    def reason(path: Path) -> str | None:
        try:
            return audio.SILENT if audio.is_silent(audio.read(path)) else None
        except audio.AudioError as error:
            return error.reason

    with ThreadPoolExecutor(available_cores()) as pool:
        found = pool.map(reason, paths)
        checked = tqdm(found, "checking files", len(paths), unit="file", disable=not progress, leave=False, delay=2)
        return {path: why for path, why in zip(paths, checked, strict=True) if why is not None}


def check_readable(recordings: Recordings) -> None:
    """Decode every file once; InputError names the first that cannot be used and counts the rest."""
    bad = unreadable_files(recordings.paths())
    if bad:
        first = next(iter(bad))
        count = f" (and {len(bad) - 1} more such files in {recordings.root})" if len(bad) > 1 else ""
        raise InputError(f"{first}: {bad[first]}{count}; repair or remove it, or give a list of trials without it")


def _first_folder(name: str, root: Path) -> str:
    singer, slash, _ = name.partition("/")
    if not slash:
        raise InputError(f"{root / name}: lies outside a singer folder; expected {root.name}/singer/{name}")
    return singer


def _read_metadata(root: Path, given: str | os.PathLike | None) -> dict[str, dict[str, str]]:
    """{absolute path: {file, singer, recording, ...}} of the table that was given or found."""
    candidates = [root / METADATA_NAME, root.absolute().parent / METADATA_NAME] if given is None else [Path(given)]
    table = next((path for path in candidates if path.is_file()), None)
    if table is None:
        if given is not None:
            raise InputError(f"{given}: no such metadata file")
        return {}
    content = read_table(table)
    columns = _columns(content)
    if not columns["file"]:
        if given is None:  # some other table that happens to have this name
            logger.warning("%s: has no column path, and is not used; it has %s", table, ", ".join(content.header))
            return {}
        has = ", ".join(content.header) or "none"
        raise InputError(f"{table}: needs a column path that names the audio files, has {has}")
    rows: dict[str, dict[str, str]] = {}
    missing = []
    for number, line in content.numbered():
        row = {what: next((line[n].strip() for n in names if line[n].strip()), "") for what, names in columns.items()}
        row = {what: plain(value) for what, value in row.items()}
        row["gender"] = _GENDERS.get(row["gender"].casefold(), row["gender"].casefold())
        name = line[columns["file"][0]]
        places = [on_disk(os.path.abspath(base / name)) for base in dict.fromkeys((table.parent, root))]
        for place in {plain(str(place)) for place in places}:
            before = rows.setdefault(place, row)
            if before["singer"] != row["singer"]:
                both = f"{before['singer'] or 'no singer'} and {row['singer'] or 'no singer'}"
                raise InputError(f"{table}, line {number}: {name} has two singers, {both}; remove one of its lines")
        inside = str(places[0]).startswith(os.path.join(os.path.abspath(root), ""))
        if inside and Path(name.strip()).suffix.lower() in audio.EXTENSIONS and not any(map(os.path.exists, places)):
            missing.append(name)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise InputError(f"{table}: names {missing[0]}{more}, which are not there; restore them or remove their lines")
    return rows


def _columns(table: Table) -> dict[str, list[str]]:
    """{what is asked for: the columns of the table that may hold it}."""
    found = {heading.casefold().replace(" ", "_"): heading for heading in reversed(table.header)}
    return {what: [found[name] for name in names if name in found] for what, names in _COLUMNS.items()}
