"""Embeddings whose dimensions are not correlated, around any encoder."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError


class Whitening(nn.Module):
    """Centre rows and take the correlation of their dimensions away, by the statistics of training clips.

    A row x becomes `sqrt(1 + shrinkage) * L^-1 (x - mean)`, where `L L^T` is the covariance in units of its mean
    variance v, plus `shrinkage` on the diagonal, and x is in units of sqrt(v). Cosines of such rows are those of ZCA
    whitening (Kessy et al., 2018), which differs by a rotation. Directions in which all clips of a collection differ
    from those of another (its room, its microphones) have the largest variance and would rule the cosines.

    It stands behind the encoder of a finished model; `callbacks.Whiten` fits it. Trained through, an encoder learns to
    undo it.

    Args:
        dim: of a row.
        shrinkage: added to every variance, in units of the mean variance; the smaller, the more directions of little
            variance weigh; the larger, the less is changed.

    Raises:
        InputError: shrinkage not above 0.
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
        """(batch, dim) -> (batch, dim), float32 under any autocast."""
        with torch.autocast(rows.device.type, enabled=False):
            return (rows.float() - self.mean) @ self.matrix

    @torch.no_grad()
    def fit(self, collections: Sequence[Tensor]) -> None:
        """Take mean and covariance of rows (clips, dim), each collection of them weighing the same.

        Raises:
            InputError: no rows, or rows that are not finite.
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


class Whitened(Encoder):
    """Any encoder, its embeddings whitened by a `Whitening` that was fitted.

    Args:
        encoder: features -> `(batch, dim)`; its frames stay as they are.
        whitening: of `encoder.dim`.

    Raises:
        InputError: the whitening is of another size.
    """

    def __init__(self, encoder: Encoder, whitening: Whitening) -> None:
        super().__init__()
        if whitening.dim != encoder.dim:
            raise InputError(f"the whitening takes {whitening.dim} dimensions and the encoder gives {encoder.dim}")
        self.encoder, self.whitening = encoder, whitening
        self.dim, self.frame_dim = encoder.dim, encoder.frame_dim
        self.minimum_frames = encoder.minimum_frames

    def forward(self, features: Tensor) -> Tensor:
        """Features -> (batch, dim)."""
        return self.whitening(self.encoder(features))

    def frames(self, features: Tensor) -> Tensor:
        """Features -> (batch, frames, frame_dim) of the encoder."""
        return self.encoder.frames(features)
