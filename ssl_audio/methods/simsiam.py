"""SimSiam: predict the other view's projection; a stop-gradient replaces negatives and a second network."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ssl_audio.losses import simsiam_loss
from ssl_audio.methods.base import Objective
from ssl_audio.methods.siamese import SiameseMethod


class SimSiam(SiameseMethod):
    """One network and a predictor, one pass for each view; the target is the other view's projection, detached.

    Chen & He, CVPR 2021, https://arxiv.org/abs/2011.10566. Batch-norm sees one view at a time, as there.

    Args:
        predictor: called with the projection's size, returns the predictor head.
        loss_scale: "cosine" as in the paper: the mean over both directions of -cos, in [-1, 1]. "distance" as in
            wav2rec: the sum over both of 2 - 2 cos, in [0, 8]. The gradients differ by a factor of 4.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).
    """

    views_together = False

    def __init__(
        self,
        predictor: Callable[[int], nn.Module],
        loss_scale: Literal["cosine", "distance"] = "cosine",
        **network: Any,
    ) -> None:
        super().__init__(**network)
        projection_dim: int = self.projection.dim  # type: ignore[assignment]
        self.predictor = predictor(projection_dim)
        self.loss_scale = loss_scale

    def objective(self, clip1: Tensor, clip2: Tensor) -> Objective:
        # The loss is a mean over clips: averaging over ranks, as DDP does, is exact without a gather.
        embeddings, (z1, z2) = self.project(clip1, clip2)
        p1, p2 = self.predictor(z1).float(), self.predictor(z2).float()
        with torch.autocast(clip1.device.type, enabled=False):
            loss = (simsiam_loss(p1, z2) + simsiam_loss(p2, z1)) / 2
        if self.loss_scale == "distance":
            loss = 4 + 4 * loss
        return Objective({"loss": loss}, embeddings, (z1, z2))
