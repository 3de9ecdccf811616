"""A map of a library as one HTML file: near points sound alike, a click plays. No network, no other files."""

import html
import json
import os
from pathlib import Path
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from ssl_audio.errors import InputError
from ssl_audio.retrieval.index import Index

PROJECTIONS = ("pca", "umap")


def project(embeddings: np.ndarray, projection: str = "pca", seed: int = 0) -> np.ndarray:
    """`(tracks, dim)` embeddings -> `(tracks, 2)` in [-1, 1].

    Args:
        projection: "pca" (the two directions of largest variance) or "umap" (McInnes et al. 2018,
            https://arxiv.org/abs/1802.03426, cosine), which keeps neighbourhoods but not distances.
        seed: of UMAP; PCA has nothing random.
    """
    if projection not in PROJECTIONS:
        raise InputError(f"projection is {projection!r}; it must be one of {', '.join(PROJECTIONS)}")
    if projection == "umap" and len(embeddings) > 3:
        from umap import UMAP

        neighbours = min(15, len(embeddings) - 1)
        start = "spectral" if len(embeddings) > 2 * neighbours else "random"
        flat = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1, init=start).fit_transform(
            embeddings
        )
    else:
        centred = embeddings.astype(np.float64) - embeddings.mean(0, dtype=np.float64)
        _, directions = np.linalg.eigh(centred.T @ centred)
        flat = centred @ directions[:, ::-1][:, :2]
        flat = np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))
    middle = (flat.max(0) + flat.min(0)) / 2
    return (flat - middle) / max(float(np.abs(flat - middle).max()), 1e-12)


def map_page(index: Index, folder: str | os.PathLike, projection: str = "pca", title: str | None = None) -> str:
    """The page's HTML.

    Args:
        folder: where the page will lie; audio is linked relative to it.
        title: by default the name of the library's folder.
    """
    if not len(index):
        raise InputError("the index is empty; there is nothing to draw")
    places = project(index.embeddings, projection)
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
    data = json.dumps({"tracks": tracks, "groups": groups}).replace("<", "\\u003c")  # no `</script>` in a file name
    page = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")
    return page.replace("__TITLE__", title).replace("__TRACKS__", data)


def _url(path: str, folder: str | os.PathLike) -> str:
    try:
        relative = os.path.relpath(os.path.abspath(path), os.path.abspath(folder))
    except ValueError:  # another drive
        return Path(os.path.abspath(path)).as_uri()
    return "./" + quote(relative.replace(os.sep, "/").encode("utf-8", "surrogateescape"))
