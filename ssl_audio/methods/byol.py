"""BYOL: predict what a slowly moving copy of the network makes of the other view (Grill et al., NeurIPS 2020)."""

import copy
import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_audio.errors import InputError
from ssl_audio.losses import byol_loss
from ssl_audio.methods.base import Objective
from ssl_audio.methods.siamese import SiameseMethod


class BYOL(SiameseMethod):
    """Online network with a predictor, target network without gradient.

    Batch-norm: a pass a view, online and target alike, as the paper's views are separate batches. The target
    normalises by the statistics of its own batch while training (a moving average of statistics lags behind moving
    weights, and that is how small-batch BYOL is known to collapse). Its running statistics are no by-product of those
    passes: they follow the online network's by the same moving average as the weights, so `target.eval()` is the moving
    average of `online.eval()` and can be used as an encoder.

    Args:
        predictor: called with the projection's size, gives the predictor head.
        tau: where the moving average's decay starts; it goes to 1 by a cosine over all steps of the training.
        tau_schedule: "cosine" as in the paper, or "constant".
        loss_scale: "mean" is the singer models', the squared difference averaged over all elements and both directions;
            "distance" is the paper's, the sum over both directions of 2 - 2 cos, in [0, 8]. The former is the latter by
            twice the projection's dimensions, which an optimiser with a large eps would notice.
        ema_every: move the target each optimiser "step" (the paper), or once an "epoch" (WaveBYOL's published runs).
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).
    """

    views_together = False

    def __init__(
        self,
        predictor: Callable[[int], nn.Module],
        tau: float = 0.99,
        tau_schedule: Literal["cosine", "constant"] = "cosine",
        ema_every: Literal["step", "epoch"] = "step",
        loss_scale: Literal["mean", "distance"] = "mean",
        **network: Any,
    ) -> None:
        super().__init__(**network)
        if not 0 <= tau <= 1:
            raise InputError(f"model.tau must be from 0 to 1, got {tau}")
        projection_dim: int = self.projection.dim  # type: ignore[assignment]
        self.predictor = predictor(projection_dim)
        self.tau = tau
        self.tau_schedule = tau_schedule
        self.ema_every = ema_every
        self.loss_scale = loss_scale
        online = {"encoder": self.encoder, "projection": self.projection}
        self.target = nn.ModuleDict({name: copy.deepcopy(module) for name, module in online.items()})
        self.target.requires_grad_(False)
        for module in self.target.modules():
            if isinstance(module, _BatchNorm):
                module.momentum = 0.0  # its passes leave the running statistics alone; `move_target` sets them

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """(batch, dim) predictions and the other view's target projections -> one direction."""
        return {"loss": byol_loss(z1, z2)}

    def objective(self, clip1: Tensor, clip2: Tensor) -> Objective:
        # A mean over clips needs no gather: averaging over ranks, as DDP does, is already exact.
        features = self.features(clip1), self.features(clip2)
        e1, e2 = (self.encoder(view) for view in features)
        z1, z2 = self.projection(e1), self.projection(e2)
        with torch.no_grad():
            t1, t2 = (self.target["projection"](self.target["encoder"](view)).float() for view in features)
        p1, p2 = self.predictor(z1).float(), self.predictor(z2).float()
        with torch.autocast(clip1.device.type, enabled=False):
            loss = (self.loss(p1, t2)["loss"] + self.loss(p2, t1)["loss"]) / 2
        if self.loss_scale == "distance":
            loss = 2 * p1.shape[1] * loss
        return Objective({"loss": loss}, (e1.float(), e2.float()), (z1.float(), z2.float()))

    def current_tau(self) -> float:
        """`1 - (1 - tau) (cos(pi step / total steps) + 1) / 2`."""
        if self.tau_schedule == "constant":
            return self.tau
        total = self.trainer.estimated_stepping_batches
        progress = min(self.global_step / total, 1.0)  # an endless training (inf) stays at tau
        return 1 - (1 - self.tau) * (math.cos(math.pi * progress) + 1) / 2

    @torch.no_grad()
    def move_target(self, tau: float) -> None:
        """target = tau target + (1 - tau) online, for parameters and floating-point buffers alike."""
        for name, target in self.target.items():
            source = getattr(self, name)
            old = [*target.parameters(), *(b for b in target.buffers() if b.is_floating_point())]
            new = [*source.parameters(), *(b for b in source.buffers() if b.is_floating_point())]
            torch._foreach_lerp_(old, new, 1 - tau)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        # Here and not at the batch's end: a checkpoint of this step must already hold the moved target.
        super().optimizer_step(*args, **kwargs)
        if self.ema_every == "step":
            self.move_target(self.current_tau())

    def on_train_epoch_start(self) -> None:
        if self.ema_every == "epoch" and self.current_epoch > 0:
            self.move_target(self.current_tau())
