"""A feature map pooled over time but not over all rows: the input of WaveBYOL's downstream classifiers."""

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError


class RowPooled(Encoder):
    """Divide the rows of a feature map into `rows` groups, take maximum plus mean over each group and over time.

    The vector has unit length. WaveBYOL's layout h2 with 10 rows gives the 10,240 values on which its downstream
    classifiers are trained.

    Args:
        encoder: an encoder with `feature_map(features) -> (batch, channels, rows, columns)`, such as `WaveBYOL`.
        rows: number of groups.

    Raises:
        InputError: the encoder has no feature map, or `rows` is below 1.
    """

    def __init__(self, encoder: nn.Module, rows: int = 10) -> None:
        super().__init__()
        if not hasattr(encoder, "feature_map"):
            raise InputError(f"{type(encoder).__name__} has no feature map to pool; use WaveBYOL, which has one")
        if rows < 1:
            raise InputError(f"rows is {rows}; it must be at least 1")
        self.encoder = encoder
        self.rows = rows
        self.dim = int(encoder.dim) * rows  # type: ignore[arg-type]
        self.minimum_frames = int(encoder.minimum_frames)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, channels * rows)`."""
        x = self.encoder.feature_map(features)  # type: ignore[operator]
        pooled = F.adaptive_max_pool2d(x, (self.rows, 1)) + F.adaptive_avg_pool2d(x, (self.rows, 1))
        return F.normalize(pooled.flatten(1).float(), dim=1)
