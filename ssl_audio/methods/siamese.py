"""Methods over two views of each clip: both go through one network, and a loss compares their projections."""

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ssl_audio.encoders.base import Encoder
from ssl_audio.frontends import Frontend
from ssl_audio.methods.added_losses import added_losses
from ssl_audio.methods.base import Batch, Method, Objective
from ssl_audio.methods.distributed import gather

Views = tuple[Tensor, Tensor]


class SiameseMethod(Method):
    """A new method implements `loss`; one whose step is not "project both views, compare" overrides `objective`.

        class Distance(SiameseMethod):
            def loss(self, z1, z2):
                return {"loss": (z1 - z2).square().mean()}

    Args:
        projection: called with `encoder.dim`, returns the projection head.
        losses: further losses of the projections, added with weights: `{alignment: {weight: 0.5}}` adds half of
            `alignment_loss`. See `ssl_audio.methods.added_losses`.
        frontend, encoder, optimizer, lr_scheduler, sample_rate, augmentation, feature_augmentation, weights: see
            `Method`.

    Attributes:
        views_together: both views in one forward pass, so that batch-norm sees 2 x batch rows at once (as in SimCLR).
            A method whose batch-norm should see one view at a time sets it to False.
    """

    clip_keys: ClassVar[tuple[str, ...]] = ("clip1", "clip2")
    views_together: bool = True

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        projection: Callable[[int], nn.Module],
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        sample_rate: int = 44100,
        augmentation: nn.Module | None = None,
        feature_augmentation: nn.Module | None = None,
        weights: str | None = None,
        losses: dict[str, dict[str, Any] | None] | None = None,
    ) -> None:
        super().__init__(
            frontend, encoder, optimizer, lr_scheduler, sample_rate, augmentation, feature_augmentation, weights
        )
        self.projection = projection(self.encoder.dim)
        self.losses = losses
        self.added = added_losses(losses)

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """(batch, dim) x 2, rows of all ranks, float32 -> named terms; "loss" is minimised, the others are logged."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def batch_objective(self, batch: Batch) -> Objective:
        """See `objective`; the further losses are added."""
        result = self.objective(batch["clip1"], batch["clip2"])
        if not self.added:
            return result
        z1, z2 = map(gather, result.projections) if self.training else result.projections
        with torch.autocast(z1.device.type, enabled=False):
            terms = {name: (weight, loss(z1, z2)) for name, (weight, loss) in self.added.items()}
        total = result.terms["loss"] + sum(weight * value for weight, value in terms.values())
        names = {f"added_{name}": value for name, (_, value) in terms.items()}
        return result._replace(terms={**result.terms, "loss": total, "own": result.terms["loss"], **names})

    def objective(self, clip1: Tensor, clip2: Tensor) -> Objective:
        """(batch, samples) x 2 -> terms, embeddings, projections; in training the loss sees the rows of all ranks.

        In validation each rank scores its own rows, and the log averages over ranks.
        """
        embeddings, projections = self.project(clip1, clip2)
        z1, z2 = map(gather, projections) if self.training else projections
        with torch.autocast(z1.device.type, enabled=False):
            return Objective(self.loss(z1, z2), embeddings, projections)

    def project(self, clip1: Tensor, clip2: Tensor) -> tuple[Views, Views]:
        """(batch, samples) x 2 -> embeddings of both views, projections of both views; float32."""
        if self.views_together:
            embeddings = self(torch.cat([clip1, clip2]))
            e1, e2 = embeddings.float().chunk(2)
            z1, z2 = self.projection(embeddings).float().chunk(2)
        else:
            (e1, z1), (e2, z2) = ((e.float(), self.projection(e).float()) for e in (self(clip1), self(clip2)))
        return (e1, e2), (z1, z2)
