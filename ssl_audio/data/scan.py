"""Length and rate of each audio file in a folder, and whether it can be used; cached by size and times of the file."""

import hashlib
import json
import logging
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from ssl_audio.audio import (
    EXTENSIONS,
    SILENCE_PEAK,
    SILENT,
    UNDECODABLE,
    UNSUPPORTED_EXTENSIONS,
    AudioError,
    AudioFile,
    walk_files,
)
from ssl_audio.errors import InputError
from ssl_audio.utils.cpu import available_cores
from ssl_audio.utils.files import write_text

logger = logging.getLogger(__name__)

_CACHE_VERSION = 4
_WHOLE_SECONDS = 30  # files up to this long are decoded whole by the scan, longer ones in _PROBES parts of one second
_PROBES = 10


class FileFacts(NamedTuple):
    """One audio file as the scan found it.

    Attributes:
        path: relative to the scanned folder, with "/" between the parts.
        size, mtime_ns: of the file when it was opened.
        frames, sample_rate: samples that can be decoded, and their rate in Hz; 0 if there is a problem.
        problem: why the file cannot be used; "" if it can.
        ctime_ns: when its entry was last changed. While size and times stay, the facts are taken from the cache.
    """

    path: str
    size: int
    mtime_ns: int
    frames: int
    sample_rate: int
    problem: str
    ctime_ns: int = 0


def scan_folder(folder: str | os.PathLike, workers: int | None = None, progress: bool = True) -> list[FileFacts]:
    """Facts of all audio files under a folder, sorted by path; only new and changed files are opened.

    The facts are stored in the user's cache folder (`$SSL_AUDIO_CACHE`, by default `~/.cache/ssl_audio`), never among
    the recordings. Files named `*_mic2*` (VCTK's second microphone) and `*.json*` are skipped.

    Args:
        workers: threads that open files; the number of cores if None. Decoding runs outside Python's lock.
        progress: show a bar on the standard error stream if that is a terminal.

    Raises:
        InputError: the folder is missing or cannot be listed.
    """
    folder = os.fspath(folder)
    prefix = len(os.path.join(folder, ""))
    known = _load_cache(folder)
    facts: dict[str, FileFacts | None] = {}
    changed: list[tuple[str, int, int, int]] = []
    for entry in walk_files(folder):
        suffix = os.path.splitext(entry.name)[1].lower()
        if suffix not in EXTENSIONS + UNSUPPORTED_EXTENSIONS or "_mic2" in entry.name or ".json" in entry.name:
            continue
        path, status = entry.path[prefix:].replace(os.sep, "/"), entry.stat()
        fact = known.get(path)
        if fact is not None and fact.problem == UNDECODABLE and suffix in EXTENSIONS:  # PyAV was installed since
            fact = None
        now = (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if fact is None or (fact.size, fact.mtime_ns, fact.ctime_ns) != now:
            changed.append((path, *now))
            fact = None
        facts[path] = fact
    if changed:
        try:
            _look(folder, changed, facts, workers, progress)
        finally:  # an interrupted scan keeps its results
            _save_cache(folder, (fact for fact in facts.values() if fact is not None))
    elif len(known) != len(facts):
        _save_cache(folder, (fact for fact in facts.values() if fact is not None))
    return [fact for fact in facts.values() if fact is not None]


def _look(
    folder: str,
    changed: list[tuple[str, int, int, int]],
    facts: dict[str, FileFacts | None],
    workers: int | None,
    progress: bool,
) -> None:
    """Open the changed files in parallel and add their facts to `facts`."""
    pool = ThreadPoolExecutor(workers or available_cores())
    try:
        found = pool.map(lambda item: inspect(os.path.join(folder, item[0])), changed)
        bar = tqdm(
            found, f"scanning {Path(folder).name}", len(changed), unit="file", disable=None if progress else True
        )
        for (path, size, mtime_ns, ctime_ns), (frames, sample_rate, problem) in zip(changed, bar, strict=True):
            facts[path] = FileFacts(path, size, mtime_ns, frames, sample_rate, problem, ctime_ns)
    finally:
        pool.shutdown(cancel_futures=True)


def inspect(path: str | os.PathLike) -> tuple[int, int, str]:
    """(frames, sample_rate, problem) of one file; frames and sample_rate are 0 if there is a problem.

    Files up to 30 s are decoded whole. Of longer files, ten parts of one second are decoded, among them the first and
    the last; if these are all silent or the end is missing, the whole file is. Damage in the middle of a long file can
    therefore be missed here; it is reported when training reads it.
    """
    if os.path.splitext(path)[1].lower() in UNSUPPORTED_EXTENSIONS:
        return 0, 0, UNDECODABLE
    try:
        with AudioFile(path) as file:
            frames, rate = file.info.frames, file.info.sample_rate
            if file.missing_bytes:
                return 0, 0, f"is cut off: {file.missing_bytes} bytes that its header promises are not there"
            whole = _WHOLE_SECONDS * rate
            peak, end = 0.0, 0
            if frames > whole:
                peak, end = _peak(file, np.linspace(0, frames - rate, _PROBES, dtype=np.int64).tolist(), rate)
            if peak < SILENCE_PEAK or end < frames:
                peak, end = _peak(file, range(0, frames, whole), whole)
    except AudioError as error:
        return 0, 0, error.reason
    if end == 0:
        return 0, 0, "holds no audio that can be decoded"
    if peak < SILENCE_PEAK:
        return 0, 0, SILENT
    return end, rate, ""


def _peak(file: AudioFile, starts: Iterable[int], samples: int) -> tuple[float, int]:
    """Largest magnitude over parts of a file, and the end of the last part that has samples."""
    peak, end = 0.0, 0
    for start in starts:
        part = file.read(start, samples)
        if len(part):
            peak, end = max(peak, float(np.abs(part).max())), start + len(part)
    return peak, end


def cache_path(folder: str | os.PathLike) -> Path:
    """The file with the facts of a folder, in the user's cache folder."""
    user = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    home = Path(os.environ.get("SSL_AUDIO_CACHE") or os.path.join(user, "ssl_audio"))
    name = hashlib.sha256(os.fsencode(os.path.realpath(folder))).hexdigest()[:32]
    return home / "index" / f"{name}.json"


def _load_cache(folder: str) -> dict[str, FileFacts]:
    try:
        content = json.loads(cache_path(folder).read_text(encoding="utf-8"))
        if content["version"] == _CACHE_VERSION:
            return {row[0]: FileFacts(*row) for row in content["files"]}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, TypeError, KeyError, IndexError) as error:
        logger.warning("the index of %s is unreadable and is made anew: %s", folder, error)
    return {}


def _save_cache(folder: str, facts: Iterable[FileFacts]) -> None:
    try:
        write_text(cache_path(folder), json.dumps({"version": _CACHE_VERSION, "files": list(facts)}))
    except (OSError, InputError) as error:  # then the next start takes longer; nothing else is lost
        logger.warning("the index of %s could not be kept: %s", folder, error)
