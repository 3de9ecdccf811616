"""VICReg: invariance, variance, covariance (Bardes et al., ICLR 2022); no negatives, no second network."""

from typing import Any

from torch import Tensor

from ssl_audio.losses import covariance_loss, invariance_loss, variance_loss
from ssl_audio.methods.siamese import SiameseMethod


class VICReg(SiameseMethod):
    """Views are pulled together, dimensions vary over the batch, and no two dimensions are correlated.

    Args:
        invariance_weight: weight of `invariance_loss`.
        variance_weight: weight of `variance_loss`, averaged over both views.
        covariance_weight: weight of `covariance_loss`, summed over both views. 100 as in the singer-identity paper; the
            VICReg paper has 1 (with variance and invariance 25).
        gamma: see `variance_loss`; None means 1/sqrt(dim), the largest that L2-normalised projections can reach.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).
    """

    def __init__(
        self,
        invariance_weight: float = 25.0,
        variance_weight: float = 25.0,
        covariance_weight: float = 100.0,
        gamma: float | None = None,
        **network: Any,
    ) -> None:
        super().__init__(**network)
        self.invariance_weight = invariance_weight
        self.variance_weight = variance_weight
        self.covariance_weight = covariance_weight
        self.gamma = gamma

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        gamma = z1.shape[1] ** -0.5 if self.gamma is None else self.gamma
        invariance = invariance_loss(z1, z2)
        variance = (variance_loss(z1, gamma) + variance_loss(z2, gamma)) / 2
        covariance = covariance_loss(z1) + covariance_loss(z2)
        total = (
            self.invariance_weight * invariance + self.variance_weight * variance + self.covariance_weight * covariance
        )
        return {"loss": total, "invariance": invariance, "variance": variance, "covariance": covariance}
