"""Search in 100,000 embeddings of size 256, opening the index, and what indexing adds to embedding.

The embeddings are synthetic: 1,000 Gaussian clusters, spread .5 of the distance between centres. Real libraries
cluster too; on unstructured noise any graph does worse.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ssl_audio import audio
from ssl_audio.embedding import embed_files
from ssl_audio.encoders import CompactCNN
from ssl_audio.frontends import LogMelSpectrogram
from ssl_audio.model import EmbeddingModel
from ssl_audio.retrieval import Index
from ssl_audio.retrieval.search import make_searcher, normalize

Row = tuple[str, float | None, float, str]
TRACKS, DIM, QUERIES, N = 100_000, 256, 1000, 10


def rows() -> Iterator[Row]:
    library, queries = clusters()
    names = [f"artist {i // 12}/album/song {i}.flac" for i in range(TRACKS)]
    index = Index.from_embeddings(library, names, search="hnsw")
    yield from search_rows(library, queries, index)
    yield from opening_rows(library, names, index)
    yield from building_rows()


def clusters() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((1000, DIM), np.float32)
    picked = centres[rng.integers(0, 1000, TRACKS + QUERIES)]
    x = normalize(picked + 0.5 * rng.standard_normal(picked.shape, np.float32), "cosine")
    return x[:TRACKS], x[TRACKS:]


def search_rows(library: np.ndarray, queries: np.ndarray, index: Index) -> Iterator[Row]:
    exact = make_searcher(library, search="exact")
    plain, _ = timed(lambda: [np.argsort(-(library @ query))[:N] for query in queries[:20]])
    batch, (_, true) = timed(lambda: exact.nearest(queries, N))
    name = f"top {N} of {QUERIES:,} queries in {TRACKS:,} x {DIM}"
    yield f"{name}, exact", plain * QUERIES / 20, batch, "plain: a product and a sort a query (20 measured)"
    building, graph = timed(lambda: index._state.searcher)
    together, (_, found) = timed(lambda: graph.nearest(queries, N))
    recall = np.mean([len(set(a) & set(b)) / N for a, b in zip(true, found, strict=True)])
    note = f"recall at {N} {recall:.3f}; graph built in {building:.0f} s"
    yield f"{name}, HNSW against exact, all queries at once", batch, together, note
    one, _ = timed(lambda: [exact.nearest(query[None], N) for query in queries[:100]])
    alone, _ = timed(lambda: [graph.nearest(query[None], N) for query in queries])
    note = f"{100 / one:,.0f} against {QUERIES / alone:,.0f} queries a second"
    yield "the same, one query at a time, as people ask", one * QUERIES / 100, alone, note


def opening_rows(library: np.ndarray, names: list[str], index: Index) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        np.save(f"{folder}/plain.npy", library)
        Path(f"{folder}/plain.json").write_text(json.dumps(names))
        index.save(f"{folder}/music.index")

        def plain() -> tuple:
            return np.load(f"{folder}/plain.npy"), json.loads(Path(f"{folder}/plain.json").read_text())

        reading, _ = timed(plain)
        opening, _ = timed(lambda: Index.load(f"{folder}/music.index"))
        yield (
            f"open an index of {TRACKS:,}",
            reading,
            opening,
            "plain: np.load and json; ours compares checksums and maps",
        )
        unchecked, _ = timed(lambda: Index.load(f"{folder}/music.index", verify=False))
        yield "the same, verify=False", reading, unchecked, ""


def building_rows() -> Iterator[Row]:
    torch.manual_seed(0)
    frontend = LogMelSpectrogram(sample_rate=16000, n_fft=512, hop_length=256, n_mels=64)
    model = EmbeddingModel(frontend, CompactCNN(), sample_rate=16000).eval()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for i in range(40):
            noise = rng.standard_normal(16000 * 10).astype(np.float32) * 0.1
            audio.write(f"{folder}/{i}.wav", noise, 16000)
        paths = audio.find_audio_files(folder)
        settings: dict[str, Any] = {"window_seconds": 5.0, "batch_size": 4, "workers": 2}
        list(embed_files(model, paths, **settings))
        embedding, _ = timed(lambda: list(embed_files(model, paths, **settings)))
        indexing, _ = timed(lambda: Index.build(model, folder, progress=False, **settings))
        note = "plain: embedding them alone, so 1 is the best possible"
        yield "index 40 files of 10 s (CompactCNN)", embedding, indexing, note


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of one call, and its result."""
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result
