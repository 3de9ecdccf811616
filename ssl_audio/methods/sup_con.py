"""SupCon: all views of a group are positives (Khosla et al., NeurIPS 2020, https://arxiv.org/abs/2004.11362)."""

from typing import Any

from torch import Tensor

from ssl_audio.methods.added_losses import sup_con
from ssl_audio.methods.siamese import SiameseMethod


class SupCon(SiameseMethod):
    """Minimises `sup_con_loss` with the groups of the data; `data.positives: same_group` gives them.

    With `data.positives: same_recording` every clip is a group, and the loss is that of `NTXent`.

    Args:
        temperature: see `sup_con_loss`.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).
    """

    def __init__(self, temperature: float = 0.1, **network: Any) -> None:
        super().__init__(**network)
        self.temperature = temperature

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        return {"loss": sup_con(z1, z2, self.temperature, self.groups)}
