"""Decoded, resampled copies of a data set's recordings, which training reads without decoding.

A copy is `<data set>/.ssl_audio_store/<rate>/<path of the recording>.int16`, or lies in another place (`store_folder`).
It has a header and the mono samples as 16 bit integers. Each recording has a file of its own, written atomically, so
an interrupted build continues where it stopped. The header holds size and time of the recording; one that has changed
is copied again.
"""

import hashlib
import os
import struct
import tempfile
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from io import FileIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ssl_audio.audio import AudioError, AudioFile
from ssl_audio.data.index import AudioEntry, AudioIndex, FileCopy, LeftOut
from ssl_audio.data.int16 import Int16Recording
from ssl_audio.errors import InputError
from ssl_audio.utils.cpu import available_cores
from ssl_audio.utils.files import PARTIAL, write_atomically

STORE_NAME = ".ssl_audio_store"
_LONGEST_NAME = 255  # bytes, on every file system in use
_SUFFIX = ".int16"
_MAGIC = b"sslaudio1\n"  # the digit is the version of the layout
_LAYOUT = struct.Struct("<10sxxIQqQdI4x")  # little endian; the samples begin after it, at a multiple of 8 bytes
_SECONDS_AT_ONCE = 600  # of a recording in memory
_REMEDY = "run ssl-audio cache again"
_STALE_AFTER = 600  # seconds; a partial copy older than this was left by a dead process


class UnwritableStoreError(InputError):
    """The folder of the copies cannot be written."""


class Header(NamedTuple):
    """The first bytes of a stored file.

    Attributes:
        magic: name and version of the layout.
        sample_rate: Hz.
        size, mtime_ns: of the recording that was copied.
        samples: how many follow, of two bytes each.
        scale: an integer times this is the sample.
        checksum: CRC-32 of the samples' bytes.
    """

    magic: bytes
    sample_rate: int
    size: int
    mtime_ns: int
    samples: int
    scale: float
    checksum: int


class StoredFile(Int16Recording):
    """The stored copy of a recording, at the one rate that it has.

    Args:
        mapped: see `Int16Recording`.

    Raises:
        AudioError: it is missing, cut short or in another layout.
    """

    def __init__(self, path: str | os.PathLike, mapped: bool = False) -> None:
        try:
            file = FileIO(os.fspath(path))
        except OSError as error:
            raise AudioError(path, f"cannot be read: {error.strerror}; {_REMEDY}") from error
        header = _whole_header(file)
        if header is None:
            file.close()
            raise AudioError(path, f"is damaged or of another version; {_REMEDY}")
        self.header = header
        super().__init__(
            file, path, _LAYOUT.size, header.samples, header.scale, header.sample_rate, _REMEDY, mapped=mapped
        )

    def check(self) -> bool:
        """Whether the samples are those that were written."""
        return zlib.crc32(self.integers(0, self.samples).data) == self.header.checksum


def open_recording(entry: AudioEntry) -> AudioFile | StoredFile:
    """The stored copy of a recording if it has one, else the recording. Raises AudioError."""
    return StoredFile(entry.location.path) if isinstance(entry.location, FileCopy) else AudioFile(entry.path)


def stored_bytes(entry: AudioEntry, sample_rate: int) -> int:
    """Size of the copy of a recording at a rate."""
    return _LAYOUT.size + 2 * entry.samples(sample_rate)


def store_folder(folder: str | os.PathLike, sample_rate: int, store: str | os.PathLike | None = None) -> str:
    """The folder of a data set's copies at a rate: in the data set, or in `store`, which data sets may share."""
    if store is None:
        return os.path.join(folder, STORE_NAME, str(sample_rate))
    path = os.path.realpath(folder)
    own = hashlib.sha256(os.fsencode(path)).hexdigest()[:8]  # distinguishes data sets of the same name
    return os.path.join(store, f"{os.path.basename(path)}-{own}", str(sample_rate))


def stored_path(
    folder: str | os.PathLike, path: str | os.PathLike, sample_rate: int, store: str | os.PathLike | None = None
) -> str:
    """The path of a recording's copy at a rate; see `store_folder`."""
    inside, name = os.path.split(os.path.relpath(path, folder))
    if len(os.fsencode(name + _SUFFIX)) > _LONGEST_NAME:
        name = hashlib.sha256(os.fsencode(name)).hexdigest()[:32]
    return os.path.join(store_folder(folder, sample_rate, store), inside, name + _SUFFIX)


def attach(index: AudioIndex, sample_rate: int, store: str | os.PathLike | None = None) -> tuple[AudioIndex, int, int]:
    """The index with the locations of current copies.

    Args:
        store: see `store_folder`. If it is given, every data set should have copies, else those with a folder of them.

    Returns:
        (index, recordings with a current copy, recordings without one in data sets that should have copies).
    """
    found = missing = 0
    groups = []
    for group in index.groups:
        if store is None and not os.path.isdir(store_folder(group.folder, sample_rate)):
            groups.append(group)
            continue
        entries = []
        for entry in group.entries:
            path = stored_path(group.folder, entry.path, sample_rate, store)
            current = is_current(path, entry, sample_rate)
            entries.append(entry._replace(location=FileCopy(path) if current else None))
            found, missing = found + current, missing + (not current)
        groups.append(group._replace(entries=tuple(entries)))
    return AudioIndex(groups, index.left_out), found, missing


def is_current(path: str, entry: AudioEntry, sample_rate: int) -> bool:
    """Whether there is a whole copy, at this rate, of the recording as it is now. Reads only the header."""
    try:
        with FileIO(path) as file:
            header = _whole_header(file)
    except OSError:
        return False
    return (
        header is not None
        and (header.sample_rate, (header.size, header.mtime_ns)) == (sample_rate, entry.version)
        and header.samples == entry.samples(sample_rate)
    )


def build(
    folder: str | os.PathLike,
    sample_rate: int,
    workers: int | None = None,
    check: bool = False,
    progress: bool = True,
    store: str | os.PathLike | None = None,
) -> tuple[int, int, list[LeftOut]]:
    """Copy recordings that have no current copy, and remove copies of recordings that are gone.

    Args:
        check: also compare the samples of existing copies with their checksums.
        store: see `store_folder`.

    Returns:
        (recordings with a copy, copies made now, recordings left out).

    Raises:
        InputError: the folder is missing or has nothing usable.
        UnwritableStoreError: the folder of the copies cannot be written.
        OSError: the disk is full; copies that were finished are whole.
    """
    place = store_folder(folder, sample_rate, store)
    index = AudioIndex.scan([folder], group_by_artist=False, workers=workers, progress=progress)
    entries = [entry for group in index.groups for entry in group.entries]
    wanted = {stored_path(folder, entry.path, sample_rate, store): entry for entry in entries}
    gone = [path for path in Path(place).rglob(f"*{_SUFFIX}") if os.fspath(path) not in wanted and not _growing(path)]
    todo = {path: entry for path, entry in wanted.items() if not is_current(path, entry, sample_rate)}
    if check:
        todo |= {path: entry for path, entry in wanted.items() if path not in todo and not _checked(path)}
    if todo or gone:
        _check_writable(place, store)
    for path in gone:
        path.unlink(missing_ok=True)
    left_out = list(index.left_out)
    pool = ThreadPoolExecutor(workers or available_cores())  # decoding and resampling run outside Python's lock
    try:
        jobs = [pool.submit(copy, entry, path, sample_rate) for path, entry in todo.items()]
        quiet = None if progress else True
        for job in tqdm(as_completed(jobs), f"caching {Path(folder).name}", len(jobs), unit="file", disable=quiet):
            try:
                job.result()
            except AudioError as error:
                left_out.append(LeftOut(error.path, error.reason))
    finally:
        pool.shutdown(cancel_futures=True)
    failed = len(left_out) - len(index.left_out)
    return len(wanted) - failed, len(todo) - failed, left_out


def copy(entry: AudioEntry, path: str, sample_rate: int) -> None:
    """Write the copy of one recording.

    Mono recordings of 16 bit at the same rate are copied exactly; others are scaled so that their peak is the largest
    integer.
    """
    with AudioFile(entry.path) as file:
        parts = list(_parts(file, sample_rate)) if file.info.seconds <= _SECONDS_AT_ONCE else None
        exact = (
            file.info.sample_rate == sample_rate and file.info.channels == 1 and file.info.format.endswith("/PCM_16")
        )
        peak = max(float(np.abs(part).max(initial=0)) for part in parts or _parts(file, sample_rate))
        scale = 1 / 32768 if exact or peak == 0 else peak / 32767
        samples = checksum = 0
        with write_atomically(path) as temporary, open(temporary, "wb") as out:
            out.write(bytes(_LAYOUT.size))
            for part in parts or _parts(file, sample_rate):
                integers = np.rint(part / np.float32(scale)).clip(-32768, 32767).astype("<i2").tobytes()
                out.write(integers)
                samples, checksum = samples + len(part), zlib.crc32(integers, checksum)
            out.seek(0)
            out.write(_LAYOUT.pack(*Header(_MAGIC, sample_rate, *entry.version, samples, scale, checksum)))


def _parts(file: AudioFile, sample_rate: int) -> Iterator[np.ndarray]:
    """The whole recording at a rate, some minutes at a time."""
    start, size = 0, _SECONDS_AT_ONCE * sample_rate
    while len(part := file.read(start, size, sample_rate)):
        yield part
        start += len(part)


def _check_writable(place: str, store: str | os.PathLike | None) -> None:
    """Raise UnwritableStoreError with a remedy if the folder cannot be written, as on a read-only disk."""
    try:
        os.makedirs(place, exist_ok=True)
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        remedy = "name another folder"
        if store is None:
            remedy = "keep the copies elsewhere: ssl-audio cache with --store DIR, and training with --data.store DIR"
        raise UnwritableStoreError(f"{place}: cannot be written ({error.strerror}); {remedy}") from error


def _growing(path: Path) -> bool:
    """Whether another process is writing this copy now. What a killed process left has not grown for a while."""
    try:
        return path.name.startswith(PARTIAL) and time.time() - path.stat().st_mtime < _STALE_AFTER
    except FileNotFoundError:  # finished and renamed in this moment
        return True


def _whole_header(file: FileIO) -> Header | None:
    """The header of a copy whose file is as long as the header says; None for anything else."""
    content = file.read(_LAYOUT.size)
    if len(content) < _LAYOUT.size:
        return None
    header = Header(*_LAYOUT.unpack(content))
    whole = header.magic == _MAGIC and os.fstat(file.fileno()).st_size == _LAYOUT.size + 2 * header.samples
    return header if whole else None


def _checked(path: str) -> bool:
    with StoredFile(path) as file:
        return file.check()
