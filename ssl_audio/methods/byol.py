"""BYOL: predict the projection of the other view by a moving average of the network (Grill et al., NeurIPS 2020)."""

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

    Batch-norm sees one view at a time, online and target alike, as the paper's views are separate batches. In training
    the target normalises by the statistics of its own batch: a moving average of statistics lags behind the moving
    weights, which is known to make small-batch BYOL collapse. These passes leave the target's running statistics alone.
    They follow the online network's by the same moving average as the weights, so that `target.eval()` is the moving
    average of `online.eval()` and can be used as an encoder.

    Args:
        predictor: called with the projection's size, returns the predictor head.
        tau: decay of the moving average at the start.
        tau_schedule: "cosine" as in the paper: tau rises to 1 over all steps of the training; or "constant".
        ema_every: move the target each optimiser "step" (the paper), or once an "epoch" (WaveBYOL's published runs).
        loss_scale: "mean" as in the singer models: the squared difference averaged over all elements and both
            directions. "distance" as in the paper: the sum over both directions of 2 - 2 cos, in [0, 8]. `distance` =
            2 x projection dim x `mean`; Adam ignores a constant factor except through `eps`.
        **network: frontend, encoder, projection, optimizer, lr_scheduler, ... (see `SiameseMethod`).

    Raises:
        InputError: tau is not in [0, 1].
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
                module.momentum = 0.0  # forward passes leave the running statistics alone; `move_target` sets them

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """(batch, dim) predictions and the other view's target projections -> the loss of one direction."""
        return {"loss": byol_loss(z1, z2)}

    def objective(self, clip1: Tensor, clip2: Tensor) -> Objective:
        # The loss is a mean over clips: averaging over ranks, as DDP does, is exact without a gather.
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
        # Move the target before the batch ends, so that a checkpoint of this step has it.
        super().optimizer_step(*args, **kwargs)
        if self.ema_every == "step":
            self.move_target(self.current_tau())

    def on_train_epoch_start(self) -> None:
        if self.ema_every == "epoch" and self.current_epoch > 0:
            self.move_target(self.current_tau())
