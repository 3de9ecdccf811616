"""NT-Xent: the symmetric contrastive objective of SimCLR and CLMR (https://arxiv.org/abs/2103.09410)."""

from typing import Any

import torch
from torch import Tensor

from ssl_audio.losses import nt_xent_loss
from ssl_audio.methods.siamese import SiameseMethod


class NTXent(SiameseMethod):
    """Each of the 2N views of all ranks is to find its partner among the 2N - 1 others.

    Args:
        temperature: see `nt_xent_loss`.
        parts: number of vectors that lie side by side in a projection; the loss is the mean of theirs.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).
    """

    def __init__(self, temperature: float = 0.5, parts: int = 1, **network: Any) -> None:
        super().__init__(**network)
        self.temperature = temperature
        self.parts = parts

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        pairs = zip(z1.chunk(self.parts, dim=1), z2.chunk(self.parts, dim=1), strict=True)
        return {"loss": torch.stack([nt_xent_loss(a, b, self.temperature, self.groups) for a, b in pairs]).mean()}
