"""Contrastive learning with decoupled NT-Xent, and optionally variance and covariance terms (contrastive-vc)."""

from typing import Any

from torch import Tensor

from ssl_audio.losses import contrastive_loss, covariance_loss, variance_loss
from ssl_audio.methods.siamese import SiameseMethod


class Contrastive(SiameseMethod):
    """Attract the views of a clip, repel other clips of the batch (all ranks together).

    Args:
        temperature, num_negatives, decoupled: see `contrastive_loss`.
        variance_weight: weight of `variance_loss`, averaged over both views; 0 leaves the term out.
        covariance_weight: weight of `covariance_loss`, summed over both views; 0 leaves the term out.
        gamma: see `variance_loss`; None means 1/sqrt(dim), the largest that L2-normalised projections can reach.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).
    """

    def __init__(
        self,
        temperature: float = 0.2,
        num_negatives: int = 250,
        decoupled: bool = True,
        variance_weight: float = 0.0,
        covariance_weight: float = 0.0,
        gamma: float | None = None,
        **network: Any,
    ) -> None:
        super().__init__(**network)
        self.temperature = temperature
        self.num_negatives = num_negatives
        self.decoupled = decoupled
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.gamma = gamma

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        contrastive = contrastive_loss(z1, z2, self.temperature, self.num_negatives, self.decoupled, self.groups)
        if not (self.variance_weight or self.covariance_weight):
            return {"loss": contrastive}
        gamma = z1.shape[1] ** -0.5 if self.gamma is None else self.gamma
        variance = (variance_loss(z1, gamma) + variance_loss(z2, gamma)) / 2
        covariance = covariance_loss(z1) + covariance_loss(z2)
        total = contrastive + self.variance_weight * variance + self.covariance_weight * covariance
        return {"loss": total, "contrastive": contrastive, "variance": variance, "covariance": covariance}
