"""The recordings of a test set: the files, their singers, and the metadata from a table."""

import hashlib
import logging
import os
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
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
_COLUMNS = {  # property -> columns that may hold it, in order of preference; the first filled cell of a row is used
    "file": ("path", "file", "filename", "file_name", "file_path", "filepath"),
    "singer": ("singer", "speaker", "singer_id", "speaker_id"),
    "recording": ("recording", "utterance", "song", "source"),
    "take": ("recording", "utterance", "source"),  # not the song: two takes of one song are two takes
    "song": ("song",),
    "gender": ("gender", "sex"),
    "genre": ("genre",),
}
# VoxCeleb and CN-Celeb: id10270/<video>/00001.wav, id00800/singing-01-001.flac, test/id00800-singing-01-001.wav
_ID = re.compile(r"id\d{5,}")
_LAYOUT = re.compile(r"(vox\w*|cn-celeb\w*|wav|aac|m4a|flac|audio|dev|test|eval|enroll|data)", re.IGNORECASE)
_VIDEO = re.compile(r"(?:.*/)?id\d{5,}/([^/]+)/[^/]+")
_SESSION = re.compile(r"(?:.*/)?id\d{5,}[-/]([a-z_]+-\d+)-\d+(?:\.\w+)?", re.IGNORECASE)
_GENDERS = {
    **dict.fromkeys(("m", "male", "man", "boy"), "m"),
    **dict.fromkeys(("f", "female", "woman", "girl"), "f"),
    **dict.fromkeys(("na", "n/a", "nan", "none", "null", "unknown", "unk", "u", "?", "-"), ""),
}
_SEGMENT = re.compile(r"_\d+_\d+_\d+s$")  # end of `<stem>_<start>_<end>_<n>s`, a segment of a recording


@dataclass(frozen=True)
class Recordings:
    """The files of a folder and their metadata. Every list has one entry per file; an unknown value is "".

    Attributes:
        root: the folder.
        files: paths relative to `root`, with forward slashes, sorted.
        singers: name of the singer.
        recording: name of the recording that the file is a clip of; clips of one recording have the same room and
            microphone.
        columns: {"take", "song", "gender", "genre": values}. A take is one performance of a song.
    """

    root: Path
    files: list[str]
    singers: list[str]
    recording: list[str]
    columns: dict[str, list[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.files)

    def paths(self) -> list[Path]:
        """Full paths of the files."""
        return [self.root / name for name in self.files]

    def at(self, positions: Sequence[int]) -> "Recordings":
        """The files at these positions, in this order."""

        def pick(values: list[str]) -> list[str]:
            return [values[i] for i in positions]

        columns = {name: pick(values) for name, values in self.columns.items()}
        return Recordings(self.root, pick(self.files), pick(self.singers), pick(self.recording), columns)

    def select(self, files: Sequence[str], singers: Sequence[str]) -> "Recordings":
        """The named files in this order, with the given singers; a file that is not listed here has no metadata."""
        place = {name: i for i, name in enumerate(self.files)}
        recording = [self.recording[place[name]] if name in place else name for name in files]
        columns = {
            column: [values[place[name]] if name in place else "" for name in files]
            for column, values in self.columns.items()
        }
        return Recordings(self.root, list(files), list(singers), recording, columns)

    def known(self, column: str) -> list[str]:
        """The values of `take`, `song`, `gender` or `genre`; InputError if all are unknown."""
        values = self.columns.get(column, [])
        if not any(values):
            raise InputError(f"{self.root}: the {column} of the recordings is not known; add it to {METADATA_NAME}")
        return values


def find_recordings(root: str | os.PathLike, metadata: str | os.PathLike | None = None) -> Recordings:
    """List the audio files of a folder `singer/**/file`, with the metadata of a table.

    Args:
        root: folder of the data set. The first folder below it names the singer, unless the table has the singer.
            A warning says how many files have the content of another.
        metadata: CSV table with the column path (relative to the CSV or to `root`) and any of the columns singer or
            speaker, gender, genre, song, recording or utterance, source. Default: `manifest.csv` in the folder or in
            its parent folder, if there is one.

    Raises:
        InputError: the folder is missing or has no audio files, a file lies outside a singer folder, or the table has
            no paths or describes other files.
    """
    root = Path(root)
    paths = audio.find_audio_files(root)
    if not paths:
        raise InputError(f"{root}: no audio files; expected singer/file.wav below it")
    rows = _read_metadata(root, metadata)
    copies = find_copies(paths)
    if copies:
        copy = next(iter(copies))
        logger.warning(
            "%s: %d of %d files are copies of others, such as %s of %s; metrics are too good until you remove them",
            root, len(copies), len(paths), copy.relative_to(root), copies[copy].relative_to(root),
        )  # fmt: skip
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


def find_copies(paths: Sequence[Path]) -> dict[Path, Path]:
    """Find files of the same content.

    Only files of one size are opened, and only those whose middle is the same are read.

    Returns:
        {a file: the first file of the same content}.
    """
    groups: dict[tuple, list[Path]] = {}
    for path in paths:
        groups.setdefault((os.path.getsize(path),), []).append(path)
    for part in (_middle, _digest):
        finer: dict[tuple, list[Path]] = {}
        for key, alike in groups.items():
            for path in alike if len(alike) > 1 and key[0] else ():
                with suppress(OSError):  # told when it is read as audio
                    finer.setdefault((*key, part(path, key[0])), []).append(path)
        groups = finer
    return {path: alike[0] for alike in groups.values() for path in alike[1:]}


def _middle(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(size // 2)
        return file.read(1 << 12)


def _digest(path: Path, size: int) -> bytes:
    with open(path, "rb") as file:
        digest = hashlib.blake2b()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def recording_name(file: str) -> str:
    """Name of the recording of a file: its stem, without the end `_<start>_<end>_<n>s` of a segment's name.

    In the trees of VoxCeleb and CN-Celeb, whose speakers are named `id10270`, it is the video or the session.
    """
    known = _VIDEO.fullmatch(file) or _SESSION.fullmatch(file)
    if known:
        return known[1]
    return _SEGMENT.sub("", Path(file).stem)


def without_layout(name: str) -> str:
    """A path without the folders of a speaker corpus's layout in front of a speaker named `id10270`.

    without_layout("dev/wav/id10270/x6uYqmx31kE/00001.wav")     # id10270/x6uYqmx31kE/00001.wav
    without_layout("eval/test/id00800-singing-01-001.wav")      # id00800-singing-01-001.wav
    without_layout("test/take.wav")                             # test/take.wav: here test is a singer
    """
    parts = name.split("/")
    first = next((i for i, part in enumerate(parts) if not _LAYOUT.fullmatch(part)), len(parts))
    if first < len(parts) and _ID.match(parts[first]):
        return "/".join(parts[first:])
    return name


def singer_of(name: str) -> str:
    """The singer of a file, by its path below the data set: the first folder, after those of a corpus's layout.

    In CN-Celeb's folders `enroll` and `test` the name of the file begins with the speaker.
    """
    rest = without_layout(name)
    known = _ID.match(rest)
    return known[0] if known and "/" not in rest and "/" in name else rest.partition("/")[0]


def recording_names(folder: str | os.PathLike, paths: Sequence[str]) -> dict[str, str]:
    """The recording of each file below a folder: as the folder's manifest names it, else `recording_name`.

    A manifest that cannot be used counts as none.
    """
    try:
        rows = _read_metadata(Path(folder), None) if os.path.isdir(folder) else {}
    except InputError:
        rows = {}
    known = {path: rows.get(os.path.abspath(path), {}).get("recording") for path in paths}
    return {path: name or recording_name(path) for path, name in known.items()}


def unreadable_files(paths: Sequence[Path], progress: bool = True) -> dict[Path, str]:
    """Decode every file once, in parallel.

    Returns:
        {path: reason} for files that are missing, damaged, empty, silent or hold NaN.
    """

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
    """Decode every file once. Raises InputError with the first unusable file and the number of the others."""
    bad = unreadable_files(recordings.paths())
    if bad:
        first = next(iter(bad))
        count = f" (and {len(bad) - 1} more such files in {recordings.root})" if len(bad) > 1 else ""
        raise InputError(f"{first}: {bad[first]}{count}; repair or remove it, or give a trial list without it")


def _first_folder(name: str, root: Path) -> str:
    if "/" not in name:
        raise InputError(f"{root / name}: lies outside a singer folder; expected {root.name}/singer/{name}")
    return singer_of(name)


def _read_metadata(root: Path, given: str | os.PathLike | None) -> dict[str, dict[str, str]]:
    """{absolute path: {file, singer, recording, ...}} from the given table, or from the default table."""
    candidates = [root / METADATA_NAME, root.absolute().parent / METADATA_NAME] if given is None else [Path(given)]
    table = next((path for path in candidates if path.is_file()), None)
    if table is None:
        if given is not None:
            raise InputError(f"{given}: no such metadata file")
        return {}
    content = read_table(table)
    columns = _columns(content)
    if not columns["file"]:
        if given is None:  # another kind of table with the default name
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
        raise InputError(f"{table}: names missing files: {missing[0]}{more}; restore them or remove their lines")
    return rows


def _columns(table: Table) -> dict[str, list[str]]:
    """{what is asked for: the columns of the table that may hold it}."""
    found = {heading.casefold().replace(" ", "_"): heading for heading in reversed(table.header)}
    return {what: [found[name] for name in names if name in found] for what, names in _COLUMNS.items()}
