"""MusicNet (Thickstun et al., ICLR 2017, https://arxiv.org/abs/1611.09827): 330 classical recordings with their notes.

Layout, as in the archive: `root/{train,test}_data/<id>.wav`, `root/{train,test}_labels/<id>.csv` with the columns
start_time, end_time (samples at 44,100 Hz), instrument (General MIDI programme, from 1), note, start_beat, end_beat,
note_value, and `root/musicnet_metadata.csv` (id, composer, composition, movement, ensemble, ...). Any audio format
goes.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ssl_audio.audio import EXTENSIONS
from ssl_audio.data.corpora.base import Corpus, Missing, Track, make_corpus, read_table
from ssl_audio.data.notes import Notes
from ssl_audio.errors import InputError
from ssl_audio.utils import tables
from ssl_audio.utils.packaged import packaged

_HOME = "https://zenodo.org/records/5120004 (musicnet.tar.gz, musicnet_metadata.csv)"
LABEL_RATE = 44100
"""Of start_time and end_time, whatever the rate of the audio."""
METADATA = ("musicnet_metadata.csv", "metadata.csv", "index.csv")
"""Names of the table in the root, tried in this order; its column of ids is `id` or `name`."""
_TABLE = read_table(packaged("metadata/labels/musicnet_instruments.csv"), ["programme", "instrument"])
INSTRUMENTS = {int(row["programme"]): row["instrument"] for row in _TABLE}
"""Names of General MIDI programmes, from 1: the 11 of MusicNet, and a few more wind instruments."""
_PAST_THE_END = 2.0  # seconds that labels may be longer than their recording; more means another recording


@dataclass(frozen=True)
class Recording:
    """One recording of MusicNet's layout.

    Attributes:
        id: the file's name without suffix.
        split: train or test, by the folder.
        path, labels: its files; labels is None where there is no such file.
        metadata: its row of the table, by column; empty without one.
    """

    id: str
    split: str
    path: Path
    labels: Path | None
    metadata: Mapping[str, str] = field(default_factory=dict)

    def notes(self, seconds: float | None = None) -> Notes:
        """Its notes. Raises InputError without labels; see `read_notes`."""
        if self.labels is None:
            raise InputError(f"{self.path}: has no labels; put them into {_labels_folder(self.path) / self.id}.csv")
        return read_notes(self.labels, seconds)


def recordings(
    root: str | os.PathLike,
    missing: Missing = "error",
    metadata: str | os.PathLike | None = None,
    labels: bool = True,
) -> list[Recording]:
    """All recordings, sorted by split and id.

    Args:
        missing: where files are missing: "error" names each of them, "skip" leaves those recordings out.
        metadata: the table; None: one of `METADATA` in the root, if there is one.
        labels: whether a recording needs labels.

    Raises:
        InputError: files are missing: which ones, and where they come from.
    """
    root = Path(root)
    table = read_metadata(root, metadata)
    audio = {split: _by_stem(root / f"{split}_data", EXTENSIONS) for split in ("train", "test")}
    notes = {split: _by_stem(root / f"{split}_labels", (".csv",)) for split in ("train", "test")}
    if not any(audio.values()) and not any(notes.values()):
        raise InputError(
            f"{root}: no MusicNet here; put the recordings into {root}/train_data/<id>.wav and "
            f"{root}/test_data/<id>.wav, their labels into {root}/train_labels/<id>.csv and "
            f"{root}/test_labels/<id>.csv, and the table into {root}/{METADATA[0]}; all from {_HOME}"
        )
    both = sorted(set(audio["train"]) & set(audio["test"]))
    if both:
        raise InputError(f"{root}: {', '.join(both)} is in train_data and in test_data; remove it from one")
    absent = [root / f"{s}_data" / f"{name}.wav" for s in audio for name in sorted(notes[s].keys() - audio[s].keys())]
    if labels:
        absent += [
            root / f"{s}_labels" / f"{name}.csv" for s in audio for name in sorted(audio[s].keys() - notes[s].keys())
        ]
    known = {name for found in (*audio.values(), *notes.values()) for name in found}
    absent += [root / "train_data or test_data" / f"{name}.wav" for name in sorted(table.keys() - known)]
    found = [
        Recording(name, split, audio[split][name], notes[split].get(name), table.get(name, {}))
        for split in ("train", "test")
        for name in sorted(audio[split])
        if name in notes[split] or not labels
    ]
    if (absent and missing == "error") or not found:
        listed = ", ".join(map(str, absent))
        raise InputError(f"MusicNet: put these {len(absent)} files there: {listed}; they come from {_HOME}")
    return found


def read_metadata(root: str | os.PathLike, table: str | os.PathLike | None = None) -> dict[str, dict[str, str]]:
    """Rows of the table by id; empty if none is named and none of `METADATA` is there.

    Raises:
        InputError: the named table is missing, cannot be read, has neither a column id nor name, or an id twice.
    """
    path = Path(table) if table is not None else next((p for n in METADATA if (p := Path(root, n)).is_file()), None)
    if path is None:
        return {}
    if not path.is_file():
        raise InputError(f"{path}: no such table; MusicNet's own is {METADATA[0]} from {_HOME}")
    table_of_all = tables.read_table(path)
    rows, columns = table_of_all.rows, table_of_all.header
    column = next((name for name in ("id", "name") if name in columns), None)
    if column is None:
        raise InputError(f"{path}: has neither a column id nor name; it has {', '.join(columns)}")
    rows = [row for row in rows if row[column]]
    ids = [row[column].removesuffix(".wav") for row in rows]
    if twice := [name for name, times in Counter(ids).items() if times > 1]:
        raise InputError(f"{path}: has two rows of {', '.join(twice[:5])}; remove one of each")
    return dict(zip(ids, rows, strict=True))


def read_notes(path: str | os.PathLike, seconds: float | None = None) -> Notes:
    """The notes of one label file; the order of its rows does not matter.

    Args:
        seconds: length of the recording. Notes that end after it are cut there; notes that begin after it are left out.

    Raises:
        InputError: a missing column, a row that is no note, labels that end well after their recording.
    """
    path = Path(path)
    labels = tables.read_table(path, ("start_time", "end_time", "note", "instrument"))
    rows = [_note(row, path, number) for number, row in labels.numbered()]
    if seconds is not None and rows:
        latest = max(row[1] for row in rows)
        if latest > seconds + _PAST_THE_END:
            raise InputError(
                f"{path}: its notes end at {latest:.2f} s and the recording at {seconds:.2f} s; they are another "
                f"recording's, or their times are not in samples at {LABEL_RATE} Hz"
            )
        rows = [(a, min(b, seconds), pitch, instrument) for a, b, pitch, instrument in rows if a < seconds]
    onset, offset, pitch, instrument = zip(*rows, strict=True) if rows else ((), (), (), ())
    return Notes(onset, offset, pitch, instrument)


def _note(row: Mapping[str, str], path: Path, number: int) -> tuple[float, float, int, int]:
    """(onset, offset, pitch, instrument) of a row."""
    try:
        start, end = float(row["start_time"]), float(row["end_time"])
        pitch, instrument = int(row["note"]), int(row["instrument"])
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}, line {number}: is not a note ({error})") from error
    if not 0 <= start < end or not 0 <= pitch < 128:
        raise InputError(f"{path}, line {number}: note {pitch} from sample {start:g} to {end:g} cannot be")
    return start / LABEL_RATE, end / LABEL_RATE, pitch, instrument


def read(
    root: str | os.PathLike,
    label: str = "ensemble",
    valid: float = 0.1,
    seed: int = 0,
    missing: Missing = "error",
    metadata: str | os.PathLike | None = None,
) -> Corpus:
    """The corpus for a classification: official train and test, and a fraction of train for validation.

    Args:
        label: "instrument" (every instrument that plays, from the notes), or a column of the table: composer, ensemble.
        valid: fraction of the training recordings for validation; decided by the seed and their ids.

    Raises:
        InputError: missing files, no such column, a recording without that label.
    """
    found = recordings(root, missing, metadata, labels=label == "instrument")
    held_out = _drawn([recording.id for recording in found if recording.split == "train"], valid, seed)
    tracks = [
        Track(
            recording.id,
            recording.path,
            "valid" if recording.id in held_out else recording.split,
            _labels(recording, label),
            _composition(recording),
        )
        for recording in found
    ]
    names = sorted({name for track in tracks for name in track.labels})
    split = f"official, {valid:g} of train for validation by seed {seed}"
    return make_corpus(
        "MusicNet", split, tracks, names, multi_label=label == "instrument", missing=missing, audio_from=_HOME
    )


def instrument_name(number: int) -> str:
    """Name of a General MIDI programme counted from 1, as the labels do."""
    return INSTRUMENTS.get(number, f"programme {number}")


def _labels(recording: Recording, label: str) -> tuple[str, ...]:
    if label == "instrument":
        return tuple(sorted({instrument_name(number) for number in recording.notes().instrument.tolist()}))
    if label not in recording.metadata:
        columns = ", ".join(recording.metadata) or f"nothing; is {recording.id} in {METADATA[0]}?"
        raise InputError(f"MusicNet: {recording.id} has no {label}; its table has {columns}")
    if not recording.metadata[label]:
        raise InputError(f"MusicNet: {recording.id} has no {label} in its row of the table; fill it in")
    return (recording.metadata[label],)


def _composition(recording: Recording) -> str:
    """The group of a recording: its composition, whose movements may be by the same players."""
    table = recording.metadata
    return f"{table.get('composer', '')}/{table['composition']}" if "composition" in table else recording.id


def _drawn(ids: Sequence[str], fraction: float, seed: int) -> set[str]:
    """A fraction of the ids, rounded, in an order that the seed and the names alone decide."""
    if not isinstance(fraction, (int, float)) or not 0 <= fraction < 1:
        raise InputError(f"valid is {fraction}; it must be a number, at least 0 and below 1")
    drawn = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}/{name}".encode()).digest())
    return set(drawn[: round(fraction * len(ids))])


def _by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    if not folder.is_dir():
        return {}
    return {p.stem: p for p in sorted(folder.iterdir()) if p.suffix.lower() in suffixes and not p.name.startswith(".")}


def _labels_folder(path: Path) -> Path:
    return path.parent.parent / path.parent.name.replace("_data", "_labels")
