"""Training with labels, end to end: from random weights as a baseline, or from a pre-trained model (transfer)."""

from collections.abc import Mapping
from typing import ClassVar

import torch
import torch.nn.functional as F
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ssl_audio.data.batch_spec import batch_spec_of
from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.frontends import Frontend
from ssl_audio.heads import ProbeHead
from ssl_audio.methods.base import Batch, Method, Objective


class Supervised(Method):
    """Encoder and classifier on labelled clips: cross-entropy where a clip has one label, else a log loss per class.

    The classifier is a `ProbeHead` with the classes of the data, made when training begins. It takes the place of the
    projection, so that `load_model(run, projection=True)` returns the model whose outputs are the named classes.

    Args:
        frontend, encoder, optimizer, lr_scheduler, sample_rate: see `Method`.
        projection: must be None. (The key is there so that a config can take away the projection of the config below.)
        augmentation, feature_augmentation: see `Method`.
        hidden: size of the classifier's hidden layer; None for a linear classifier.
        weights: see `Method`.

    Raises:
        InputError: a projection is given; what `Method` raises.
    """

    clip_keys: ClassVar[tuple[str, ...]] = ("clip",)
    data_remedy: ClassVar[str] = "set data.labels to true (--config supervised does)"

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        projection: None = None,
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
        super().__init__(
            frontend, encoder, optimizer, lr_scheduler, sample_rate, augmentation, feature_augmentation, weights
        )
        self.hidden = hidden

    @property
    def batch_keys(self) -> tuple[str, ...]:
        return ("clip", "target")

    def setup(self, stage: str) -> None:
        """As the base, and make the classifier for the classes of the data."""
        super().setup(stage)
        if isinstance(self.projection, ProbeHead):
            return
        spec = batch_spec_of(self.trainer.datamodule)  # type: ignore[attr-defined]
        if spec is None or not spec.classes:
            raise InputError(f"the data names no classes; {self.data_remedy}")
        classes, seconds = list(spec.classes), spec.samples / spec.sample_rate
        self.projection = ProbeHead(self.encoder.dim, classes, self.hidden, spec.multi_label, seconds)

    def dry_run(self, clips: Mapping[str, Tensor]) -> None:
        """Embed the clips; the classifier is made after the labels are read."""
        self(clips["clip"])

    def batch_objective(self, batch: Batch) -> Objective:
        """The loss and the accuracy of a batch of clips and targets."""
        embeddings, targets = self(batch["clip"]), batch["target"]
        logits = self.projection(embeddings).float()
        if targets.ndim == 2:
            loss = F.binary_cross_entropy_with_logits(logits, targets)
            right = (logits > 0) == (targets > 0.5)
        else:
            loss = F.cross_entropy(logits, targets)
            right = logits.argmax(dim=1) == targets
        return Objective({"loss": loss, "accuracy": right.float().mean()}, (embeddings.float(),))
