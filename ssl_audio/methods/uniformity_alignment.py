"""Alignment of the views and uniformity of the clips (Wang and Isola, ICML 2020)."""

from typing import Any

from torch import Tensor
from torch.nn.functional import normalize

from ssl_audio.losses import alignment_loss, uniformity_loss
from ssl_audio.methods.siamese import SiameseMethod


class UniformityAlignment(SiameseMethod):
    """Both terms are computed on the unit sphere, where they are defined.

    Args:
        alignment_weight: weight of `alignment_loss`.
        uniformity_weight: weight of `uniformity_loss`, averaged over both views.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).
    """

    def __init__(self, alignment_weight: float = 1.0, uniformity_weight: float = 1.0, **network: Any) -> None:
        super().__init__(**network)
        self.alignment_weight = alignment_weight
        self.uniformity_weight = uniformity_weight

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        z1, z2 = normalize(z1, dim=1), normalize(z2, dim=1)
        alignment = alignment_loss(z1, z2)
        uniformity = (uniformity_loss(z1) + uniformity_loss(z2)) / 2
        total = self.alignment_weight * alignment + self.uniformity_weight * uniformity
        return {"loss": total, "alignment": alignment, "uniformity": uniformity}
