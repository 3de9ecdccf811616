"""Data sets in a few large files, for network file systems and object stores.

A shard is a tar file in WebDataset's form. For each recording it has `<key>.npy`, mono samples as 16 bit integers at
one rate, and `<key>.json`, facts about the recording. Any WebDataset pipeline reads shards. `index.json` beside them
gives the shard and the first byte of each recording's samples. With it, training reads only the parts that it needs, in
an order that is as exact, resumable and evenly split over processes as that of a folder of files.

webdataset writes the tar files and opens addresses (`TarWriter`, `gopen`); nothing else of it is used.
"""

import fcntl
import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from ssl_audio.audio import AudioError
from ssl_audio.data.dataset import NoAudioError
from ssl_audio.data.index import AudioEntry, AudioIndex, Group, LeftOut, ShardSlice
from ssl_audio.data.int16 import Int16Recording
from ssl_audio.data.store import StoredFile, copy
from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_atomically, write_text

INDEX = "index.json"
VERSION = 1
_REMEDY = "write or fetch the shards again"


class Shard(NamedTuple):
    """A shard's file name and its size in bytes."""

    name: str
    size: int


def write_shards(
    folder: str | os.PathLike,
    output: str | os.PathLike,
    sample_rate: int,
    shard_bytes: int = 256_000_000,
    seed: int = 0,
    progress: bool = True,
) -> tuple[int, int, list[LeftOut]]:
    """Write the recordings of `folder/singer/**/file` into shards, in a random order, so that each shard is a mix.

    Args:
        shard_bytes: about the size of a shard.
        seed: decides the order.

    Returns:
        (recordings written, shards, recordings left out).

    Raises:
        InputError: the folder has nothing usable, or `output` holds shards already.
        OSError: the disk is full. The index is written last, and shards without an index are not used.
    """
    import webdataset

    output = Path(output)
    if (output / INDEX).exists():
        raise InputError(f"{output} holds shards already; give another --output, or remove it")
    index = AudioIndex.scan([folder], progress=progress)
    entries = [(group, entry) for group in index.groups for entry in group.entries]
    order = np.random.default_rng(seed).permutation(len(entries))
    todo = tqdm([entries[i] for i in order], "writing shards", unit="file", disable=None if progress else True)
    left_out: list[LeftOut] = list(index.left_out)
    shards, recordings = [], []
    # The names depend on the content, so that a cache never confuses shards of other or older data sets with these.
    versions = [(os.path.relpath(entry.path, folder), entry.version) for _, entry in entries]
    name_of_all = hashlib.sha256(json.dumps([sample_rate, seed, shard_bytes, versions]).encode()).hexdigest()[:8]
    for number, samples in enumerate(_batches(todo, folder, sample_rate, shard_bytes, left_out)):
        name = f"{name_of_all}-{number:06d}.tar"
        with write_atomically(output / name) as temporary:
            with open(temporary, "wb") as file, webdataset.TarWriter(file, encoder=False, mtime=0.0) as writer:
                for sample in samples:
                    writer.write(sample)
            with tarfile.open(temporary) as tar:
                places = {member.name: member for member in tar}
        for sample in samples:
            facts = json.loads(sample["json"])
            member = places[f"{sample['__key__']}.npy"]
            start = member.offset_data + member.size - 2 * facts["samples"]  # the samples end the file
            recordings.append({**facts, "shard": number, "start": start})
        shards.append({"name": name, "size": (output / name).stat().st_size})
    if not recordings:
        raise InputError(f"{folder}: none of its recordings could be decoded; the first: {' '.join(left_out[0])}")
    content = {"version": VERSION, "sample_rate": sample_rate, "shards": shards, "recordings": recordings}
    write_text(output / INDEX, json.dumps(content) + "\n")
    return len(recordings), len(shards), left_out


def _batches(
    entries: Any, folder: str | os.PathLike, sample_rate: int, shard_bytes: int, left_out: list[LeftOut]
) -> Iterator[list[dict[str, Any]]]:
    """WebDataset's samples, as many as fill a shard; recordings that cannot be decoded are added to `left_out`."""
    batch: list[dict[str, Any]] = []
    size = count = 0
    with tempfile.TemporaryDirectory() as scratch:
        for group, entry in entries:
            path = os.path.join(scratch, "recording.int16")
            try:
                copy(entry, path, sample_rate)
            except AudioError as error:
                left_out.append(LeftOut(error.path, error.reason))
                continue
            with StoredFile(path) as stored:
                header = stored.header
            with io.BytesIO() as array:
                np.save(array, np.fromfile(path, "<i2", offset=os.path.getsize(path) - 2 * header.samples))
                samples = array.getvalue()
            facts = {
                "path": os.path.relpath(entry.path, folder), "group": group.name, "key": group.key,
                "samples": header.samples, "scale": header.scale,
            }  # fmt: skip
            if batch and size + len(samples) > shard_bytes:
                yield batch
                batch, size = [], 0
            batch.append({"__key__": f"{count:08d}", "npy": samples, "json": json.dumps(facts).encode()})
            size, count = size + len(samples), count + 1
    if batch:
        yield batch


def _checked_facts(facts: dict[str, Any], shards: int) -> dict[str, Any]:
    """The facts of a recording; KeyError, TypeError or ValueError if they are not what `write_shards` writes."""
    if not 0 <= facts["shard"] < shards or facts["start"] < 0 or facts["samples"] < 1 or not facts["scale"] > 0:
        raise ValueError(f"recording {facts['path']!r}")
    if not all(isinstance(facts[name], str) for name in ("path", "key", "group")):
        raise TypeError(f"names of recording {facts['path']!r}")
    return facts


class ShardSet:
    """Shards in a folder, or at an address from which they are fetched when they are needed.

    Args:
        root: a folder, or an address as WebDataset's `gopen` takes it: `https://...`, `gs://...`, `hf://...`,
            `pipe:aws s3 cp s3://bucket/voices/{} -`, where {} stands for the file's name.
        cache: folder for fetched shards; the processes of a machine share it.
        room: size limit of that folder, bytes; the shards that were used longest ago are removed.

    Raises:
        InputError: there is no index, or one of another version; an address is given without a cache.
    """

    def __init__(self, root: str, cache: str | None = None, room: int = 50_000_000_000) -> None:
        self.root, self.cache, self.room = root, cache, room
        self.remote = "://" in root or root.startswith("pipe:")
        if self.remote and cache is None:
            raise InputError(f"the key cache is missing: name a folder for the shards that are fetched from {root}")
        path = self._fetched(INDEX, None) if self.remote else os.path.join(root, INDEX)
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({error}); make shards with: ssl-audio shard") from error
        if not isinstance(content, dict) or not {"version", "shards", "recordings"} <= content.keys():
            raise InputError(f"{path} is no index of shards; make shards with: ssl-audio shard")
        if content["version"] != VERSION:
            raise InputError(f"{path} is of version {content['version']}, not {VERSION}; write the shards again")
        try:
            self.sample_rate = int(content["sample_rate"])
            self.shards = [Shard(str(shard["name"]), int(shard["size"])) for shard in content["shards"]]
            self.recordings = [_checked_facts(facts, len(self.shards)) for facts in content["recordings"]]
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{path} is damaged ({error!r}); write the shards again with: ssl-audio shard") from error

    def index(self) -> AudioIndex:
        """The recordings in their groups."""
        groups: dict[str, list[tuple[str, AudioEntry]]] = {}
        names = {}
        for facts in self.recordings:
            location = ShardSlice(facts["shard"], facts["start"], facts["scale"])
            entry = AudioEntry(f"{self.root}/{facts['path']}", facts["samples"], self.sample_rate, location=location)
            groups.setdefault(facts["key"], []).append((facts["path"], entry))
            names[facts["key"]] = facts["group"]
        return AudioIndex([
            Group(names[key], key, 0, tuple(entry for _, entry in sorted(members)), self.root)
            for key, members in sorted(groups.items())
        ])  # fmt: skip

    def missing(self) -> list[str]:
        """Paths of shards in a folder that are missing or of another size; [] at an address, where fetching tells."""
        if self.remote:
            return []
        paths = [(os.path.join(self.root, shard.name), shard.size) for shard in self.shards]
        return [path for path, size in paths if not os.path.isfile(path) or os.path.getsize(path) != size]

    def open(self, entry: AudioEntry) -> Int16Recording:
        """One recording, read in place. Raises NoAudioError if its shard cannot be had."""
        location = entry.location
        assert isinstance(location, ShardSlice)
        name, size = self.shards[location.shard]
        while True:
            path = self._fetched(name, size) if self.remote else os.path.join(self.root, name)
            try:
                file = FileIO(path)
            except OSError as error:
                if self.remote and isinstance(error, FileNotFoundError):
                    continue  # another process has just removed it to make room
                raise NoAudioError(f"{path}: {error.strerror}; is the disk still there?") from error
            return Int16Recording(
                file, entry.path, location.start, entry.frames, location.scale, entry.sample_rate, _REMEDY
            )

    def _fetched(self, name: str, size: int | None) -> str:
        """The path of a file in the cache; the first process that asks for it fetches it."""
        import webdataset

        assert self.cache is not None
        path = os.path.join(self.cache, name)
        with suppress(FileNotFoundError):
            if size is not None:
                os.utime(path)  # `_make_room` removes the shards that were used longest ago
                return path
        os.makedirs(self.cache, exist_ok=True)
        address = self.root.replace("{}", name) if "{}" in self.root else f"{self.root.rstrip('/')}/{name}"
        with open(f"{path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if size is not None and os.path.exists(path):
                return path
            self._make_room(name, size or 0)
            try:
                with write_atomically(path) as temporary, webdataset.gopen(address) as source:
                    with open(temporary, "wb") as target:
                        while part := source.read(1 << 20):
                            target.write(part)
                    if size is not None and temporary.stat().st_size != size:
                        raise OSError(f"{temporary.stat().st_size} bytes came of {size}")
            except Exception as error:  # each protocol raises errors of its own
                raise NoAudioError(f"{address} cannot be fetched: {' '.join(str(error).split())}") from error
        return path

    def _make_room(self, name: str, size: int) -> None:
        """Remove the shards used longest ago until this one fits beside those that other processes are fetching."""
        with open(os.path.join(str(self.cache), "room.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two processes at once would count the same room twice
            present, used = [], size
            for shard in getattr(self, "shards", ()):
                path = os.path.join(str(self.cache), shard.name)
                # The lock is checked before the file, so that a shard finished in between is still counted.
                used += shard.size if (fetching := shard.name != name and _is_locked(f"{path}.lock")) else 0
                with suppress(FileNotFoundError):
                    present.append((os.stat(path).st_mtime, shard.size, path))
                    used += 0 if fetching else shard.size
            for _, freed, path in sorted(present):
                if used <= self.room:
                    return
                Path(path).unlink(missing_ok=True)
                used -= freed


def _is_locked(path: str) -> bool:
    """Whether a process holds this lock; False if there is no such file."""
    with suppress(FileNotFoundError), open(path) as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def windows(sizes: Sequence[int], order: Sequence[int], budget: int) -> Iterator[list[int]]:
    """The shards in the given order, in groups that fit into `budget` bytes.

    Raises:
        InputError: one shard alone does not fit.
    """
    if max(sizes) > budget:
        raise InputError(f"the largest shard has {max(sizes)} bytes, more than the budget of {budget} for shuffling")
    window: list[int] = []
    used = 0
    for shard in order:
        if used + sizes[shard] > budget:
            yield window
            window, used = [], 0
        window.append(shard)
        used += sizes[shard]
    yield window
