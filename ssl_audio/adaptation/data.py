"""The recordings that a model is adapted to: who is heard, in which collection, and the embeddings of all of them."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from ssl_audio import audio
from ssl_audio.baselines import MelStatistics
from ssl_audio.decisions.calibrating import check_clips
from ssl_audio.embedding import embed_files
from ssl_audio.encoders import Views
from ssl_audio.errors import InputError
from ssl_audio.evaluation.recordings import Recordings, find_recordings
from ssl_audio.frontends import Waveform
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import short_digest
from ssl_audio.utils.files import write_atomically

FOLDERS, NONE = "folders", "none"
PART_SECONDS = 1.0  # length of the parts of a recording; one starts every half of it


@dataclass(frozen=True)
class Voices:
    """Recordings of one or more collections. Arrays have one entry a recording.

    Attributes:
        names: of the collections.
        paths: of the recordings.
        collection: number of the collection.
        people: number of the person; of different collections, different numbers. -1 where nobody is known.
        takes: number of what was recorded in one go.
        seconds: length.
        digests: of the audio.
        person_names: of the people, in the order of their numbers.
        copies: recordings that were left out, because the same audio is there already.
    """

    names: list[str]
    paths: list[Path]
    collection: np.ndarray
    people: np.ndarray
    takes: np.ndarray
    seconds: np.ndarray
    digests: np.ndarray
    person_names: list[str]
    copies: int

    def __len__(self) -> int:
        return len(self.paths)

    def people_in(self, collection: int) -> int:
        """Number of people of a collection."""
        return len(np.unique(self.people[self.collection == collection]))

    def digest(self) -> str:
        """SHA-256 of audio, people and collections."""
        arrays = (self.digests, self.people, self.collection, self.takes)
        return hashlib.sha256(b"".join(np.ascontiguousarray(x, np.int64).tobytes() for x in arrays)).hexdigest()


def find_voices(folders: Sequence[str | os.PathLike], model: EmbeddingModel, groups: str = FOLDERS) -> Voices:
    """List and check the recordings of collections `person/**/file`; each folder is a collection.

    Args:
        folders: of the collections.
        model: which must be able to embed each recording.
        groups: "folders": the first folder below a collection, or its `manifest.csv`, names the person; "none": nobody
            is known; else a table with the columns path and speaker.

    Raises:
        InputError: a folder twice, unreadable or too short recordings, one piece of audio under two people.
    """
    places = [Path(folder).resolve() for folder in folders]
    if len(set(places)) < len(places):
        raise InputError(f"{folders[0]}: a folder is given twice; give each collection once")
    found = [_listed(Path(folder), groups) for folder in folders]
    clips = [clip for recordings in found for clip in check_clips(recordings, model)]
    paths = [path for recordings in found for path in recordings.paths()]
    collection = np.repeat(np.arange(len(found)), [len(recordings) for recordings in found])
    people = [f"{i}/{name}" for i, recordings in enumerate(found) for name in recordings.singers]
    takes = [f"{i}/{name}" for i, recordings in enumerate(found) for name in recordings.recording]
    first: dict[int, int] = {}
    for i, clip in enumerate(clips):
        other = first.setdefault(clip.digest, i)
        if groups != NONE and people[other] != people[i]:
            raise InputError(
                f"{paths[other]} and {paths[i]} hold the same audio under two people; remove the wrong one"
            )
    kept = sorted(first.values())
    names, numbers = np.unique([people[i] for i in kept], return_inverse=True)
    return Voices(
        names=_names(places),
        paths=[paths[i] for i in kept],
        collection=collection[kept],
        people=np.full(len(kept), -1) if groups == NONE else numbers,
        takes=np.unique([takes[i] for i in kept], return_inverse=True)[1],
        seconds=np.array([clips[i].seconds for i in kept]),
        digests=np.array([clips[i].digest for i in kept], dtype=np.int64),
        person_names=[] if groups == NONE else [name.partition("/")[2] for name in names.tolist()],
        copies=len(clips) - len(kept),
    )


def _names(places: Sequence[Path]) -> list[str]:
    """Names of folders; whole paths where two folders have one name."""
    short = [place.name for place in places]
    return short if len(set(short)) == len(short) else [str(place) for place in places]


def _listed(folder: Path, groups: str) -> Recordings:
    if groups != NONE:
        return find_recordings(folder, None if groups == FOLDERS else groups)
    paths = audio.find_audio_files(folder)
    if not paths:
        raise InputError(f"{folder}: no audio files; give a folder of recordings")
    files = [path.relative_to(folder).as_posix() for path in paths]
    return Recordings(folder, files, [""] * len(files), files)


def check_apart(voices: Voices, others: Voices) -> None:
    """InputError if people or recordings that a model was adapted to are among those that it is verified on."""
    heard = set(voices.digests.tolist())
    twice = [path for path, digest in zip(others.paths, others.digests.tolist(), strict=True) if digest in heard]
    if twice:
        raise InputError(f"{twice[0]}: this audio is among the recordings, too; --verify needs other recordings")
    shared = sorted(set(voices.person_names) & set(others.person_names))
    if shared:
        raise InputError(f"{shared[0]} is a person of the recordings, too; --verify needs other people (or rename it)")


class Embedded:
    """Embeddings of recordings, computed when they are first asked for and kept in a folder.

    Args:
        voices: the recordings.
        start: the model.
        folder: where they are kept, so that an interrupted run does not compute them again.
        **options: `batch_size`, `device` of `embed_files`.
    """

    def __init__(self, voices: Voices, start: EmbeddingModel, folder: Path, **options: Any) -> None:
        self.voices, self.start, self.folder, self.options = voices, start, folder, options
        self._kept: dict[str, np.ndarray] = {}

    def rows(self, views: Sequence[str]) -> np.ndarray:
        """(recordings, dim) float32 of unit length: what `Views(start, views)` gives."""
        found = [self._once(view, partial(self._files, on_waveforms(self.start, [view]))) for view in views]
        mean = torch.from_numpy(np.stack(found)).mean(dim=0)
        return F.normalize(mean, dim=1).numpy()

    def parts(self, views: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """((parts, dim) embeddings of overlapping windows, (parts,) the recording of each)."""
        name = "parts-" + "-".join(views)
        values = self._once(name, partial(self._windows, views))
        return values[:, :-1].astype(np.float32), values[:, -1].astype(np.int64)

    def mel(self) -> np.ndarray:
        """(recordings, 40) mean and deviation of MFCCs."""
        return self._once("mfcc", partial(self._files, mel_statistics(self.start)))

    def _files(self, model: Any) -> np.ndarray:
        found = [result.embedding for result in embed_files(model, self.voices.paths, **self.options)]
        return finite(np.stack(found), self.voices.paths)  # type: ignore[arg-type]

    def _windows(self, views: Sequence[str]) -> np.ndarray:
        model = on_waveforms(self.start, views)
        seconds = max(PART_SECONDS, model.minimum_samples / model.sample_rate)
        results = embed_files(model, self.voices.paths, window_seconds=seconds, hop_seconds=seconds / 2, **self.options)
        rows = [np.r_[np.asarray(result.embedding, np.float64), result.index] for result in results]
        return np.stack(rows)

    def _once(self, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
        if name not in self._kept:
            path = self.folder / f"{name}.npy"
            if not path.is_file():
                with write_atomically(path) as temporary, open(temporary, "wb") as file:
                    np.save(file, compute())
            self._kept[name] = np.load(path)
        return self._kept[name]


def on_waveforms(start: EmbeddingModel, views: Sequence[str]) -> EmbeddingModel:
    """The start through `Views`, as a model."""
    return wrapped(start, Views(start, views))


def wrapped(start: EmbeddingModel, encoder: Any) -> EmbeddingModel:
    """A model of waveforms around an encoder that contains the start; its level is set where the start's is."""
    inside = start.level_in_forward
    model = EmbeddingModel(
        Waveform(), encoder, start.sample_rate, level="none" if inside else start.level, level_in_forward=inside
    )
    model.licence, model.checkpoint = start.licence, start.checkpoint
    return model.eval()


def mel_statistics(start: EmbeddingModel) -> MelStatistics:
    """The second embedding, of clips at the level at which the start gets them."""
    model = MelStatistics(start.sample_rate, n_mfcc=20, deviation=True)
    model.level = "none" if start.level_in_forward else start.level  # type: ignore[assignment]
    return model


def finite(rows: np.ndarray, paths: Sequence[Path]) -> np.ndarray:
    """The rows; InputError names the first recording whose embedding is NaN, infinite or zero."""
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1) | (np.abs(rows).sum(axis=1) == 0))
    if len(bad):
        raise InputError(f"{paths[bad[0]]}: its embedding is NaN, infinite or zero; remove it, or choose another model")
    return rows


def people_digests(voices: Voices) -> np.ndarray:
    """Digests of the people's names, sorted."""
    return np.array(sorted({short_digest(name.encode()) for name in voices.person_names}), dtype=np.int64)
