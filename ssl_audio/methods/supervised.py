"""Training with labels, end to end: from random weights as a baseline, or from a pre-trained model (transfer)."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.frontends import Frontend
from ssl_audio.heads import Identity, ProbeHead
from ssl_audio.methods.base import Batch, SiameseMethod


class Supervised(SiameseMethod):
    """Encoder and classifier on labelled clips; one label a clip by cross-entropy, several by a log loss a class.

    The classifier is a `ProbeHead` with the classes of the data, made when training begins. It takes the place of the
    projection, so that `load_model(run, projection=True)` gives the model whose outputs are the named classes.

    Args:
        frontend, encoder, optimizer, lr_scheduler, sample_rate: see `SiameseMethod`.
        augmentation, feature_augmentation: likewise.
        projection: must be None.
        hidden: size of the classifier's hidden layer; None for a linear one.
        weights: a pre-trained model (run folder, checkpoint, saved folder, name) whose frontend and encoder take the
            place of the given ones; None starts from random weights.
    """

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        projection: Callable[[int], nn.Module] | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        sample_rate: int = 44100,
        augmentation: nn.Module | None = None,
        feature_augmentation: nn.Module | None = None,
        hidden: int | None = None,
        weights: str | None = None,
    ) -> None:
        if projection is not None:
            raise InputError("model.projection must be null: the classifier takes its place")
        if weights is not None:
            from ssl_audio.hub import load_model

            model = load_model(weights)
            if model.sample_rate != sample_rate:
                raise InputError(f"{weights} takes audio at {model.sample_rate} Hz; set data.sample_rate to that")
            frontend, encoder = model.frontend, model.encoder
        # A model that was loaded is in evaluation mode, in which batch normalisation and dropout do not learn.
        frontend.train()
        encoder.train()
        super().__init__(
            frontend, encoder, Identity, optimizer, lr_scheduler, sample_rate, augmentation, feature_augmentation
        )
        self.hidden = hidden
        self.weights = weights

    def setup(self, stage: str) -> None:
        """Make the classifier for the classes of the data."""
        if isinstance(self.projection, ProbeHead):
            return
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        if not getattr(data, "classes", None):
            raise InputError(
                f"{type(data).__name__} has no labels; folders class/**/file need no data config on top of supervised"
                " (leave data/folder out), else take a corpus (data/esc10, ...) or set data.class_path to"
                " ssl_audio.data.labelled.LabelledDataModule"
            )
        seconds = data.nr_samples / data.sample_rate
        self.projection = ProbeHead(self.encoder.dim, data.classes, self.hidden, data.multi_label, seconds)

    def check(self, batch_size: int, samples: int) -> None:
        """Refuse clips that are too short for the model before data is read."""
        needed = self.embedding_model().minimum_samples
        if samples < needed:
            raise InputError(f"data.nr_samples is {samples}; this model needs at least {needed}")

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """The loss of a batch of clips and targets."""
        clips = batch["clip"]
        if self.augmentation is not None:
            generator = torch.Generator(clips.device).manual_seed(self.step_seed(batch_idx))
            clips = self.augmentation(clips, self.sample_rate, generator)
        return self._step(clips, batch["target"], "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """As `training_step`, without augmentation."""
        return self._step(batch["clip"], batch["target"], "val")

    def _step(self, clips: Tensor, targets: Tensor, stage: str) -> dict[str, Any]:
        logits = self.projection(self(clips)).float()
        if targets.ndim == 2:
            loss = F.binary_cross_entropy_with_logits(logits, targets)
            right = (logits > 0) == (targets > 0.5)
        else:
            loss = F.cross_entropy(logits, targets)
            right = logits.argmax(dim=1) == targets
        for name, value in (("loss", loss), ("accuracy", right.float().mean())):
            self.log(
                f"{name}/{stage}",
                value.detach(),
                prog_bar=name == "loss" and stage == "train",
                on_step=stage == "train",
                on_epoch=True,
                sync_dist=stage == "val",
                batch_size=len(clips),
            )
        return {"loss": loss}
