"""Whitening of embeddings, around any encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError


class Whitening(nn.Module):
    """Center and decorrelate embeddings with statistics of the training set.

    Directions that separate whole collections (their room, their microphones) have the largest variance and would
    otherwise dominate cosine similarity.

    A row x becomes `sqrt(1 + shrinkage) * L^-1 (x - mean) / sqrt(v)`. Here v is the mean variance, and `L L^T` is the
    covariance divided by v, with `shrinkage` added to its diagonal. The cosines equal those of ZCA whitening (Kessy,
    Lewin and Strimmer, 2018, https://arxiv.org/abs/1512.00809), which differs by a rotation.

    It comes after the encoder of a finished model, and `callbacks.Whiten` fits it. It is not for training: an encoder
    that is trained through it learns to undo it.

    Args:
        dim: size of a row.
        shrinkage: added to every variance, in units of the mean variance. A small value gives much weight to directions
            of little variance; a large value changes little.

    Raises:
        InputError: `shrinkage` is not above 0.
    """

    mean: Tensor
    matrix: Tensor

    def __init__(self, dim: int, shrinkage: float = 4.0) -> None:
        super().__init__()
        if shrinkage <= 0:
            raise InputError(f"Whitening.shrinkage is {shrinkage}; it must be above 0")
        self.dim, self.shrinkage = dim, shrinkage
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("matrix", torch.eye(dim))

    def forward(self, rows: Tensor) -> Tensor:
        """`(batch, dim)` -> `(batch, dim)`; float32, also under autocast."""
        with torch.autocast(rows.device.type, enabled=False):
            return (rows.float() - self.mean) @ self.matrix

    @torch.no_grad()
    def fit(self, collections: Sequence[Tensor]) -> None:
        """Compute mean and covariance from the rows of each collection, `(clips, dim)`; all collections weigh the same.

        Raises:
            InputError: there are no rows, or rows are not finite.
        """
        rows = torch.cat([one.double() for one in collections])
        weights = torch.cat([torch.full((len(one), 1), 1 / (len(one) * len(collections))) for one in collections])
        weights = weights.to(rows)
        if not len(rows) or not torch.isfinite(rows).all():
            raise InputError("whitening needs finite embeddings of at least one clip; has the training diverged?")
        mean = (weights * rows).sum(0)
        covariance = ((rows - mean) * weights).T @ (rows - mean)
        variance = covariance.diagonal().mean().clamp(min=1e-12)
        one = torch.eye(self.dim).to(rows)
        lower = torch.linalg.cholesky(covariance / variance + self.shrinkage * one)
        inverse = torch.linalg.solve_triangular(lower, one, upper=False)
        self.mean.copy_(mean)
        self.matrix.copy_(inverse.T * ((1 + self.shrinkage) / variance).sqrt())


class NearestMean(nn.Module):
    """Subtract from each row the nearest of several means, such as those of collections.

    Args:
        dim: size of a row.
        count: number of means.
    """

    means: Tensor

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.dim, self.count = dim, count
        self.register_buffer("means", torch.zeros(count, dim))

    def forward(self, rows: Tensor) -> Tensor:
        """`(batch, dim)` -> `(batch, dim)`."""
        distances = (rows.unsqueeze(1) - self.means).square().sum(dim=2)
        return rows - self.means[distances.argmin(dim=1)]


class Whitened(Encoder):
    """An encoder whose embeddings pass through fitted statistics: a `Whitening` or a `NearestMean`.

    Args:
        encoder: features -> `(batch, dim)`. Its frames are not whitened.
        whitening: a layer of size `encoder.dim`.

    Raises:
        InputError: the sizes differ.
    """

    def __init__(self, encoder: Encoder, whitening: Whitening | NearestMean) -> None:
        super().__init__()
        if whitening.dim != encoder.dim:
            raise InputError(f"the whitening takes {whitening.dim} dimensions and the encoder gives {encoder.dim}")
        self.encoder, self.whitening = encoder, whitening
        self.dim, self.frame_dim = encoder.dim, encoder.frame_dim
        self.minimum_frames = encoder.minimum_frames

    def forward(self, features: Tensor) -> Tensor:
        """Features -> `(batch, dim)`."""
        return self.whitening(self.encoder(features))

    def frames(self, features: Tensor) -> Tensor:
        """Features -> `(batch, frames, frame_dim)`, not whitened."""
        return self.encoder.frames(features)
