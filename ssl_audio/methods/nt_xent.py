"""NT-Xent: the symmetric contrastive objective of SimCLR and CLMR (https://arxiv.org/abs/2103.09410)."""

from typing import Any

from torch import Tensor

from ssl_audio.losses import nt_xent_loss
from ssl_audio.methods.siamese import SiameseMethod


class NTXent(SiameseMethod):
    """Each of the 2N views of all ranks is to find its partner among the 2N - 1 others.

    Args:
        temperature: see `nt_xent_loss`.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).
    """

    def __init__(self, temperature: float = 0.5, **network: Any) -> None:
        super().__init__(**network)
        self.temperature = temperature

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        return {"loss": nt_xent_loss(z1, z2, self.temperature, self.groups)}
