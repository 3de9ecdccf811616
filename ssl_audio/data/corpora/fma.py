"""Free Music Archive (Defferrard et al., ISMIR 2017, https://arxiv.org/abs/1612.01840): genres, licences, splits.

Layout: `root/fma_metadata/tracks.csv` (a header of two levels) and `genres.csv`, and the audio in
`root/fma_<subset>/000/000002.mp3`. The official splits keep each artist on one side.
"""

import csv
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssl_audio.data.corpora.base import Corpus, Missing, Track, make_corpus, named, read_table, require
from ssl_audio.errors import InputError

_HOME = "https://github.com/mdeff/fma"
FILES = {f"fma_metadata/{name}.csv": f"{_HOME}, fma_metadata.zip" for name in ("tracks", "genres")}
SUBSETS = ("small", "medium", "large", "full")
"""Each contains those before it. `large` and `full` have the same tracks: excerpts of 30 s, and whole tracks."""

_SPLITS = {"training": "train", "validation": "valid", "test": "test"}


@dataclass(frozen=True)
class Genre:
    """One line of genres.csv; `parent` is 0 for a genre of the top level."""

    id: int
    title: str
    parent: int


@dataclass(frozen=True)
class Metadata:
    """The columns of tracks.csv that are used, of one track; `genre_top` is empty where a track has several genres."""

    id: int
    subset: str
    split: str
    title: str
    artist: str
    artist_id: int
    album: str
    genre_top: str
    genres_all: tuple[int, ...]
    license: str
    listens: int
    seconds: int

    @property
    def public_domain(self) -> bool:
        """Public Domain Mark or CC0, by the licence's name."""
        return any(words in self.license.lower() for words in ("public domain", "cc0"))


def read_genres(root: str | os.PathLike) -> dict[int, Genre]:
    """All genres by id."""
    path = require("FMA", root, FILES) / "fma_metadata" / "genres.csv"
    rows = read_table(path, ("genre_id", "parent", "title"))
    try:
        genres = [Genre(int(r["genre_id"]), r["title"], int(r["parent"])) for r in rows]
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected the columns genre_id, parent, title ({error})") from error
    return {genre.id: genre for genre in genres}


def read_metadata(root: str | os.PathLike) -> Iterator[Metadata]:
    """The lines of tracks.csv, one at a time."""
    path = require("FMA", root, FILES) / "fma_metadata" / "tracks.csv"
    limit = csv.field_size_limit(1 << 24)  # some artists' biographies are long
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            columns = {pair: i for i, pair in enumerate(zip(next(rows, []), next(rows, []), strict=True))}
            for line in rows:
                if line and line[0] != "track_id":  # the third line names the index alone
                    yield _parse(line, columns, path)
    except (ValueError, csv.Error) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: is not FMA's table of tracks ({error})") from error
    finally:
        csv.field_size_limit(limit)


def _parse(line: list[str], columns: dict[tuple[str, str], int], path: Path) -> Metadata:
    def get(*name: str) -> str:
        return line[columns[name]]  # type: ignore[index]

    try:
        return Metadata(
            id=int(line[0]),
            subset=get("set", "subset"),
            split=_SPLITS[get("set", "split")],
            title=get("track", "title"),
            artist=get("artist", "name"),
            artist_id=int(get("artist", "id")),
            album=get("album", "title"),
            genre_top=get("track", "genre_top"),
            genres_all=tuple(json.loads(get("track", "genres_all"))),
            license=get("track", "license"),
            listens=int(get("track", "listens")),
            seconds=int(get("track", "duration")),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(f"{path}, track {line[0]}: cannot be read ({type(error).__name__}: {error})") from error


def read(
    root: str | os.PathLike,
    subset: str = "small",
    labels: str = "top",
    genres: Sequence[str] | str | None = None,
    licenses: str | Callable[[str], bool] | None = None,
    min_listens: int = 0,
    min_seconds: float = 0,
    missing: Missing = "error",
) -> Corpus:
    """The corpus under its official split; groups are artists.

    Args:
        subset: small (8,000 tracks, 8 balanced genres), medium (25,000, 16), large or full (106,574, 161).
        labels: "top": the one top genre (tracks with none or several are left out); "all": every genre of a track and
            their parents.
        genres: keep only tracks with one of these labels, and only these labels of them.
        licenses: "public_domain", or a function of the licence's name.
        min_listens: keep tracks that were played at least so often on the site.
        min_seconds: keep tracks of at least that length (of the whole track, not of the 30 s excerpt).
        missing: "error" refuses a corpus with tracks without audio, "skip" leaves them out.

    Raises:
        InputError: lists every missing file; unknown subset or genre; no track under these settings.
    """
    if subset not in SUBSETS or labels not in ("top", "all"):
        raise InputError(f"FMA has the subsets {', '.join(SUBSETS)} and the labels top and all, not {subset}, {labels}")
    if isinstance(licenses, str) and licenses != "public_domain":
        raise InputError(f"licenses is {licenses!r}; give 'public_domain' or a function of the licence's name")
    titles = {number: genre.title for number, genre in read_genres(root).items()}
    genres = None if genres is None else named(genres)
    if unknown := sorted(set(genres or ()) - set(titles.values())):
        raise InputError(f"FMA has no genre {', '.join(unknown)}; their names are in genres.csv")
    held = set(SUBSETS[: SUBSETS.index(subset) + 1])
    tracks = []
    for track in read_metadata(root):
        legal = licenses is None or (track.public_domain if licenses == "public_domain" else licenses(track.license))  # type: ignore[operator]
        if track.subset not in held or not legal or track.listens < min_listens or track.seconds < min_seconds:
            continue
        names = _labels(track, titles, labels)
        if genres is not None:
            names = tuple(name for name in names if name in genres)
        if names:
            tracks.append(
                Track(f"{track.id}", _audio(root, subset, track.id), track.split, names, f"{track.artist_id}")
            )
    used = {name for track in tracks for name in track.labels}
    source = f"unpack fma_{subset}.zip of {_HOME} into {os.fspath(root)}"
    return make_corpus(
        "FMA", subset, tracks, sorted(used), multi_label=labels == "all", missing=missing, audio_from=source
    )


def _labels(track: Metadata, titles: dict[int, str], labels: str) -> tuple[str, ...]:
    if labels == "top":
        return (track.genre_top,) if track.genre_top else ()
    names = dict.fromkeys(titles[number] for number in track.genres_all if number in titles)
    return tuple(
        sorted(names, key=lambda name: (name != track.genre_top, list(names).index(name)))
    )  # the top one first


def _audio(root: str | os.PathLike, subset: str, number: int) -> Path:
    name = f"{number:06d}"
    return Path(root) / f"fma_{subset}" / name[:3] / f"{name}.mp3"
