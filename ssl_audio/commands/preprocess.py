"""Cut a data set into segments of equal length, one folder per singer, with names without commas and spaces.

  R/D/SINGER/[SUBFOLDER/]FILE
becomes
  R/D_renamed_split_Ns/SINGER/SINGER[-SUBFOLDER]-FILE_START_END_Ns.wav

The segments are mono, 16 bit, resampled; a remainder shorter than a segment is dropped. Two data sets are known by
their names: in "m4singer" the singer is the part of the folder's name before "#"; in "vocalset" the files lie three
levels down and keep their own names.

After an interruption, run the command again: it skips finished recordings. It cuts those again that have changed since,
and names segments of recordings that are gone. Files that cannot be used are listed in data_report.csv in the new
folder.

Exit status: 0; 1 if a file could not be read; 2 if nothing was done.
"""

import errno
import json
import os
import re
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ssl_audio import audio
from ssl_audio.audio import AudioError, AudioFile, find_audio_files
from ssl_audio.data.index import LeftOut, write_data_report
from ssl_audio.errors import InputError
from ssl_audio.utils.cpu import available_cores
from ssl_audio.utils.files import write_atomically, write_text

EXAMPLES = """examples:
  ssl-audio preprocess --dataset_root_dir data --dataset_name vocalset --segment_length 4 --sample_rate 44100
  ssl-audio preprocess --dataset_root_dir data --dataset_name "my singers" --sample_rate 16000 --no_clean
"""

_MAX_SECONDS_IN_MEMORY = 600
_WAV_HEADER = 44  # bytes
_RECORD = ".recordings.json"  # in the new folder: size and time of each recording that was cut


class Recording(NamedTuple):
    """A source file, and where its segments go: `<singer>/<stem>_<start>_<end>_<n>s.wav`."""

    path: Path
    singer: str
    stem: str


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset_root_dir", required=True, metavar="R", help="folder that holds the data set")
    parser.add_argument("--dataset_name", required=True, metavar="D", help="name of the data set's folder")
    parser.add_argument("--segment_length", type=int, default=4, metavar="N", help="seconds per segment (4)")
    parser.add_argument("--sample_rate", type=int, default=44100, metavar="HZ", help="rate of the segments (44100)")
    parser.add_argument("--clean", action="store_true", default=True, help="write the segments only (the default)")
    parser.add_argument(
        "--no_clean",
        dest="clean",
        action="store_false",
        help="also copy the whole recordings, under their new names, to R/D_renamed",
    )
    parser.add_argument(
        "--metadata_path_dir", metavar="DIR", help="accepted as ssl-singer-identity has it, and not used there or here"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="threads that cut recordings (default: one per core)")


def run(args: Namespace) -> int:
    for name in ("segment_length", "sample_rate"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} is {getattr(args, name)}; it must be at least 1")
    if args.workers is not None and args.workers < 1:
        raise InputError(f"--workers is {args.workers}; it must be at least 1")
    dataset = Path(
        args.dataset_root_dir, args.dataset_name
    )  # drops the slash that shells add when they complete a name
    target = dataset.with_name(f"{dataset.name}_renamed_split_{args.segment_length}s")
    recordings, left_out = plan(dataset)
    pool = ThreadPoolExecutor(args.workers or available_cores())  # decoding and resampling release Python's lock
    segments, unreadable = 0, 0
    versions = _read_versions(target)
    counts: dict[tuple[str, str], int] = {}
    try:
        jobs = {
            pool.submit(split, recording, target, args.segment_length, args.sample_rate, versions): recording
            for recording in recordings
        }
        for job in tqdm(as_completed(jobs), "splitting", len(jobs), unit="file", disable=None):
            try:
                written = job.result()
            except AudioError as error:
                unreadable += 1
                left_out.append(LeftOut(error.path, error.reason))
                continue
            except OSError as error:
                if error.errno != errno.ENAMETOOLONG:
                    raise
                unreadable += 1
                left_out.append(LeftOut(os.fspath(jobs[job].path), "the names of its segments would be too long"))
                continue
            segments += written
            counts[jobs[job].singer, jobs[job].stem] = written
            if not written:
                path = os.fspath(jobs[job].path)
                left_out.append(LeftOut(path, f"is shorter than a segment of {args.segment_length} s"))
        if not args.clean:
            for recording in recordings:
                keep(recording, dataset.with_name(f"{dataset.name}_renamed"))
    except OSError as error:
        raise InputError(
            f"{target}: {error.strerror or error}; finished segments are complete, run the command again for the others"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
        if versions:
            with suppress(OSError, InputError):  # a full disk is told above; without the record, times are compared
                write_text(target / _RECORD, json.dumps(versions))
    if not segments:
        first = f"; for example, {' '.join(min(left_out))}" if left_out else ""
        raise InputError(f"{dataset}: none of {len(recordings)} recordings gave a segment{first}")
    write_data_report(target / "data_report.csv", sorted(left_out))
    more = f"; {len(left_out)} files left out, see {target / 'data_report.csv'}" if left_out else ""
    print(f"{segments} segments of {len(recordings)} recordings in {target}{more}")
    older = _of_no_recording(target, recordings, counts, args.segment_length)
    if older:
        print(
            f"{len(older)} segments in {target} are of recordings that are gone or were longer, the first: {older[0]}; "
            "delete them, or tests will have them"
        )
    return 1 if unreadable else 0


def _read_versions(target: Path) -> dict[str, list[int]]:
    """{recording: its size and time when it was cut}, from an earlier run."""
    try:
        found = json.loads((target / _RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _of_no_recording(
    target: Path, recordings: list[Recording], counts: dict[tuple[str, str], int], seconds: int
) -> list[Path]:
    """Segments that none of the recordings has, sorted. A recording without a count could not be cut now."""
    planned = {(recording.singer, recording.stem) for recording in recordings}
    pattern, found = re.compile(rf"(.+)_(\d+)_\d+_{seconds}s\.wav"), []
    for path in sorted(target.glob("*/*.wav")):
        if match := pattern.fullmatch(path.name):
            key = path.parent.name, match[1]
            if key not in planned or (key in counts and int(match[2]) >= counts[key] * seconds):
                found.append(path.relative_to(target))
    return found


def plan(folder: Path) -> tuple[list[Recording], list[LeftOut]]:
    """The recordings of a data set with their new names, and the files that are left out.

    Raises:
        InputError: there is no such folder, it has no recordings, or two singers get the same new name.
    """
    name = folder.name.lower()
    recordings: dict[tuple[str, str], Recording] = {}
    homes: dict[str, str] = {}
    left_out = []
    for path in find_audio_files(folder):
        inside = path.relative_to(folder)
        *folders, _ = inside.parts
        if not folders:
            left_out.append(LeftOut(os.fspath(path), "is not in the folder of a singer"))
            continue
        if "vocalset" in name and len(folders) != 3:
            left_out.append(LeftOut(os.fspath(path), "is not three folders deep, as in VocalSet"))
            continue
        source = folders[0].split("#")[0] if "m4singer" in name else folders[0]
        singer = _clean(source)
        stem = _clean(path.stem if "vocalset" in name else "-".join([*folders, path.stem]))
        if homes.setdefault(singer, source) != source:
            raise InputError(
                f"{folder}: without commas and spaces, the folders {homes[singer]!r} and {source!r} have the same name "
                f"{singer!r}; rename one of them"
            )
        taken = recordings.setdefault((singer, stem), Recording(path, singer, stem))
        if taken.path != path:
            left_out.append(LeftOut(os.fspath(path), f"has the same new name as {taken.path}"))
    if not recordings:
        raise InputError(f"{folder}: no recordings; lay it out as {folder.name}/singer/file.wav")
    return list(recordings.values()), left_out


def split(
    recording: Recording, target: Path, seconds: int, sample_rate: int, versions: dict[str, list[int]] | None = None
) -> int:
    """Write the segments of one recording, unless it has all of them.

    Args:
        recording: the source.
        target: folder of the segments.
        seconds: length of a segment.
        sample_rate: of the segments in Hz.
        versions: {recording: its size and time when it was cut}; its entry is brought up to date.

    Returns:
        How many segments the recording has.
    """
    versions = {} if versions is None else versions
    status, name = os.stat(recording.path), f"{recording.singer}/{recording.stem}"
    version = [status.st_size, status.st_mtime_ns]
    names = (
        target / recording.singer / f"{recording.stem}_{start}_{start + seconds}_{seconds}s.wav"
        for start in range(0, 1 << 62, seconds)
    )
    samples = seconds * sample_rate
    with AudioFile(recording.path) as file:
        expected = file.info.frames * sample_rate // (file.info.sample_rate * samples)
        older = versions.get(name, version) != version
        cut_after = 0 if name in versions else status.st_mtime_ns
        if not older and _finished(target / recording.singer, recording, expected, seconds, sample_rate, cut_after):
            versions[name] = version
            return expected
        count = 0
        for clip in _segments(file, samples, sample_rate, max(1, _MAX_SECONDS_IN_MEMORY // seconds)):
            audio.write(next(names), clip, sample_rate, "PCM_16")
            count += 1
    if count:
        versions[name] = version
    return count


def _segments(file: AudioFile, samples: int, sample_rate: int, at_once: int) -> Iterator:
    """The complete segments of a file, `(samples,)` each; `at_once` of them are in memory."""
    start, part = 0, None
    while part is None or len(part) == at_once * samples:
        part = file.read(start, at_once * samples, sample_rate)
        yield from part[: len(part) // samples * samples].reshape(-1, samples)
        start += len(part)


def _finished(
    folder: Path, recording: Recording, expected: int, seconds: int, sample_rate: int, cut_after: int
) -> bool:
    """Whether all segments exist, are not older than a time in ns, and have the size that this rate gives."""
    for start in range(0, expected * seconds, seconds):
        try:
            status = os.stat(folder / f"{recording.stem}_{start}_{start + seconds}_{seconds}s.wav")
        except FileNotFoundError:
            return False
        if status.st_size != _WAV_HEADER + 2 * seconds * sample_rate or status.st_mtime_ns < cut_after:
            return False
    return expected > 0


def keep(recording: Recording, folder: Path) -> None:
    """Copy a whole recording under its new name, unless the copy exists."""
    copy = folder / recording.singer / f"{recording.stem}{recording.path.suffix.lower()}"
    if not copy.exists():
        with write_atomically(copy) as temporary:
            shutil.copyfile(recording.path, temporary)


def _clean(name: str) -> str:
    return name.replace(",", "").replace(" ", "")
