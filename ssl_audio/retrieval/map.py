"""A map of a library as one HTML file that needs no network. Near points sound similar; a click plays the track."""

import html
import json
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from ssl_audio.errors import InputError
from ssl_audio.evaluation.projection import project
from ssl_audio.retrieval.index import Index


def map_positions(embeddings: np.ndarray, projection: str = "pca") -> np.ndarray:
    """Positions of the tracks on the map.

    Args:
        embeddings: `(tracks, dim)`.
        projection: "pca" or "umap", see `project`.

    Returns:
        `(tracks, 2)` in [-1, 1].
    """
    flat = project(embeddings, projection)
    middle = (flat.max(0) + flat.min(0)) / 2
    return (flat - middle) / max(float(np.abs(flat - middle).max()), 1e-12)


def map_page(
    index: Index,
    folder: str | os.PathLike,
    projection: str = "pca",
    title: str | None = None,
    kind: str = "folder",
    lists: Sequence[tuple[str, Sequence[tuple[int, str]]]] = (),
) -> str:
    """The HTML of the map.

    Args:
        index: the index of the library.
        folder: folder of the HTML file; audio files are linked relative to it.
        projection: "pca" or "umap", see `project`.
        title: title of the page; default: the name of the library's folder.
        kind: what the groups of the index are, in the singular.
        lists: shown before anything is played or searched: (title, (position of a track, note) of each entry).

    Raises:
        InputError: the index is empty, or the projection is unknown.
    """
    if not len(index):
        raise InputError("the index is empty; add files first")
    places = map_positions(index.embeddings, projection)
    position = {track_id: place for place, track_id in enumerate(index.ids.tolist())}
    near = []
    for start in tqdm(range(0, len(index), 1000), desc="neighbours", disable=len(index) < 10_000):
        near += index.recommend(index.ids[start : start + 1000].tolist(), 6, on_missing=lambda path: None)
    groups = sorted(set(index.groups))
    number = {group: i for i, group in enumerate(groups)}
    tracks = [
        {
            "name": Path(path).stem,
            "group": number[group],
            "x": round(float(x), 4),
            "y": round(float(y), 4),
            "url": _url(path, folder),
            "near": [[position[hit.id], round(hit.score, 3)] for hit in hits],
        }
        for path, group, (x, y), hits in zip(index.paths, index.groups, places, near, strict=True)
    ]
    root = index.settings["root"]
    title = html.escape(title or f"Map of {Path(root).name if root else 'the library'}")
    content = {"tracks": tracks, "groups": groups, "kind": kind, "lists": lists}
    data = json.dumps(content).replace("<", "\\u003c")  # a file name may hold `</script>`
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return page.replace("__TITLE__", title).replace("__TRACKS__", data)


def _url(path: str, folder: str | os.PathLike) -> str:
    try:
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    except ValueError:  # on another drive of Windows
        return Path(os.path.abspath(path)).as_uri()
    return "./" + quote(relative.replace(os.sep, "/").encode("utf-8", "surrogateescape"))
