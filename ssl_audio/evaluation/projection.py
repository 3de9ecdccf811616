"""Projection of embeddings to two dimensions, for maps."""

import numpy as np

from ssl_audio.errors import InputError

PROJECTIONS = ("pca", "umap")
_NEIGHBOURS = 15  # UMAP's default
_FULL_SOLUTION = 10  # below this dimension all eigenvectors are computed


def project(embeddings: np.ndarray, method: str = "pca", seed: int = 0) -> np.ndarray:
    """Project embeddings to two dimensions.

    Args:
        embeddings: (items, dim).
        method: "pca", the two directions of largest variance; or "umap" (McInnes et al. 2018,
            https://arxiv.org/abs/1802.03426, with cosine distance), which keeps neighbourhoods but not distances. Up to
            three items are always projected by PCA, because UMAP needs more.
        seed: of UMAP; PCA is deterministic.

    Returns:
        (items, 2).

    Raises:
        InputError: the method is unknown.
    """
    if method not in PROJECTIONS:
        raise InputError(f"unknown projection {method!r}; choose one of {', '.join(PROJECTIONS)}")
    return _umap(embeddings, seed) if method == "umap" and len(embeddings) > 3 else _pca(embeddings)


def _umap(embeddings: np.ndarray, seed: int) -> np.ndarray:
    from umap import UMAP

    neighbours = min(_NEIGHBOURS, len(embeddings) - 1)
    return UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1).fit_transform(embeddings)


def _pca(embeddings: np.ndarray) -> np.ndarray:
    from scipy.linalg import eigh
    from scipy.sparse.linalg import eigsh

    centred = embeddings.astype(np.float64) - embeddings.mean(axis=0, dtype=np.float64)
    covariance, dim = centred.T @ centred, centred.shape[1]
    values, vectors = eigh(covariance) if dim < _FULL_SOLUTION else eigsh(covariance, k=2, v0=np.ones(dim))
    vectors = vectors[:, np.argsort(-values)[:2]]
    largest = np.abs(vectors).argmax(axis=0)
    vectors *= np.sign(vectors[largest, np.arange(vectors.shape[1])])  # the same map on every machine
    flat = centred @ vectors
    return np.pad(flat, ((0, 0), (0, 2 - flat.shape[1])))  # a one-dimensional embedding lies on a line
