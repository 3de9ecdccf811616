"""SogCLR: contrastive learning that remembers each item's negatives (https://arxiv.org/abs/2202.12387)."""

from typing import Any

import torch
from torch import Tensor

from ssl_audio.data.base import recording_data
from ssl_audio.errors import InputError
from ssl_audio.losses import sogclr_loss
from ssl_audio.methods.base import Batch, Objective
from ssl_audio.methods.distributed import gather
from ssl_audio.methods.siamese import SiameseMethod


class SogCLR(SiameseMethod):
    """As NT-Xent, with a moving average for each recording, so that small batches lose less.

    The averages are part of checkpoints. In validation each batch stands for itself.

    Args:
        temperature, gamma: see `sogclr_loss`.
        parts: number of vectors that lie side by side in a projection; the loss is the mean of theirs.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).
    """

    averages: Tensor

    def __init__(self, temperature: float = 0.1, gamma: float = 0.9, parts: int = 1, **network: Any) -> None:
        super().__init__(**network)
        self.temperature = temperature
        self.gamma = gamma
        self.parts = parts
        self.register_buffer("averages", torch.zeros(0, parts))
        self._items: Tensor | None = None  # of the batch; None outside of training

    @property
    def batch_keys(self) -> tuple[str, ...]:
        return (*self.clip_keys, "index")

    def setup(self, stage: str) -> None:
        """As the base; and make room for the recordings, before a checkpoint is read. Raises InputError."""
        super().setup(stage)
        data = recording_data(self.trainer)
        if data is None:
            raise InputError("SogCLR needs data of recordings, such as data.class_path ssl_audio.data.AudioDataModule")
        if not len(self.averages):
            self.averages = self.averages.new_zeros(len(data.training_entries), self.parts)

    def batch_objective(self, batch: Batch) -> Objective:
        """As the base; in training, the averages of the batch's recordings move."""
        self._items = gather(batch["index"].to(self.averages.device)) if self.training and "index" in batch else None
        return super().batch_objective(batch)

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        known = self._items is not None and len(self.averages) > 0
        before = self.averages[self._items] if known else z1.new_zeros(len(z1), self.parts)
        losses, after = [], []
        for a, b, averages in zip(z1.chunk(self.parts, 1), z2.chunk(self.parts, 1), before.unbind(1), strict=True):
            loss, moved = sogclr_loss(a, b, averages, self.temperature, self.gamma)
            losses.append(loss)
            after.append(moved)
        if known:
            self.averages[self._items] = torch.stack(after, dim=1).to(self.averages)
        return {"loss": torch.stack(losses).mean()}
