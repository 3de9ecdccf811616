"""Statistics of embeddings that become layers behind an encoder."""

import numpy as np
import torch
from torch import Tensor

from ssl_audio.encoders import NearestMean, Whitening
from ssl_audio.errors import InputError


def mean_layer(rows: Tensor, collection: np.ndarray) -> Whitening:
    """Subtracts the mean of rows `(recordings, dim)`; every collection weighs the same."""
    layer = Whitening(rows.shape[1])
    means = [rows[torch.from_numpy(collection == one)].double().mean(dim=0) for one in np.unique(collection)]
    layer.mean.copy_(torch.stack(means).mean(dim=0))
    return layer


def nearest_mean_layer(rows: Tensor, centre: np.ndarray) -> NearestMean:
    """Subtracts the nearest of several means of rows `(recordings, dim)`; `centre` numbers the mean of each row."""
    means = [rows[torch.from_numpy(centre == one)].double().mean(dim=0) for one in np.unique(centre)]
    layer = NearestMean(rows.shape[1], len(means))
    layer.means.copy_(torch.stack(means))
    return layer


def scatter_layer(rows: Tensor, group: np.ndarray, shrinkage: float = 0.6, power: float = 0.5) -> Whitening:
    """Takes down the directions in which rows of one group differ.

    `S` is the within-class scatter, pooled over groups of two or more rows, divided by its mean variance. A row x
    becomes `((1 - shrinkage) S + shrinkage I)^-power x` (within-class covariance normalisation: Hatch, Kajarekar and
    Stolcke, Interspeech 2006, where power is 1/2).

    Args:
        rows: `(rows, dim)`.
        group: `(rows,)` number of the person, or of the recording whose parts the rows are.
        shrinkage: above 0 and at most 1; 1 changes nothing.
        power: 0 changes nothing.

    Raises:
        InputError: no group has two rows that differ.
    """
    if not 0 < shrinkage <= 1:
        raise InputError(f"shrinkage is {shrinkage}; it must lie above 0 and at most at 1")
    values = rows.double().numpy()
    _, number, counts = np.unique(group, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), values.shape[1]))
    np.add.at(sums, number, values)
    residuals = (values - (sums / counts[:, None])[number])[counts[number] > 1]
    freedom = int(counts[counts > 1].sum() - (counts > 1).sum())
    scatter = residuals.T @ residuals / max(freedom, 1)
    variance = float(np.trace(scatter)) / len(scatter)
    if variance < 1e-12:
        raise InputError("no person and no recording has two embeddings that differ; there is no scatter to take down")
    eigenvalues, vectors = np.linalg.eigh((1 - shrinkage) * scatter / variance + shrinkage * np.eye(len(scatter)))
    layer = Whitening(len(scatter), shrinkage)
    layer.matrix.copy_(torch.from_numpy((vectors * eigenvalues**-power) @ vectors.T))
    return layer


def standardising_layer(rows: Tensor) -> Whitening:
    """Scales each dimension of rows `(recordings, dim)` to zero mean and unit deviation."""
    layer = Whitening(rows.shape[1])
    layer.mean.copy_(rows.double().mean(dim=0))
    layer.matrix.copy_(torch.diag(1 / rows.double().std(dim=0, correction=0).clamp(min=1e-6)))
    return layer
