"""A feature map pooled along time alone: what WaveBYOL's downstream heads see."""

import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError


class RowPooled(Encoder):
    """Maximum plus mean of a feature map over `rows` bands of its rows and all of time, of unit length.

    10 rows of the map of WaveBYOL's h2 give the 10,240 numbers that its downstream classifiers are trained on.

    Args:
        encoder: has `feature_map(features) -> (batch, channels, rows, columns)`, as `WaveBYOL`.
        rows: that remain.
    """

    def __init__(self, encoder: nn.Module, rows: int = 10) -> None:
        super().__init__()
        if not hasattr(encoder, "feature_map"):
            raise InputError(f"{type(encoder).__name__} has no feature map to pool; WaveBYOL has")
        if rows < 1:
            raise InputError(f"rows is {rows}; at least one must remain")
        self.encoder = encoder
        self.rows = rows
        self.dim = int(encoder.dim) * rows  # type: ignore[arg-type]
        self.minimum_frames = int(encoder.minimum_frames)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """(batch, samples) -> (batch, channels * rows)."""
        x = self.encoder.feature_map(features)  # type: ignore[operator]
        pooled = F.adaptive_max_pool2d(x, (self.rows, 1)) + F.adaptive_avg_pool2d(x, (self.rows, 1))
        return F.normalize(pooled.flatten(1).float(), dim=1)
