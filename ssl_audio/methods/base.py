"""What all methods over two views share: the passes, the gather, the log, the optimiser, the seed of a step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ssl_audio.config import describe
from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.whitened import Whitened, Whitening
from ssl_audio.errors import InputError
from ssl_audio.frontends import Frontend
from ssl_audio.methods.distributed import gather
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.modes import evaluating

Views = tuple[Tensor, Tensor]
Batch = dict[str, Any]
_MAX_CHECK_SAMPLES = 1 << 18  # cap for the dry run in `check`, so that a typo in nr_samples cannot exhaust memory


class Objective(NamedTuple):
    """What one batch came to.

    Attributes:
        terms: scalars by name; "loss" is minimised, the rest is logged.
        embeddings: (batch, dim) of each view, what `embedding_model` returns.
        projections: (batch, projection dim) of each view, what the loss looks at.
    """

    terms: dict[str, Tensor]
    embeddings: Views
    projections: Views


class SiameseMethod(LightningModule):
    """Two views of each clip through one network; a loss compares their projections.

    A new method implements `loss`; one whose step is not "project both views, compare" overrides `objective`.

    Every step seeds torch's generators from (run seed, step, rank), so a run that is resumed draws what it would have
    drawn without the interruption, and no generator state needs saving. The run seed is the one that
    `seed_everything` or `torch.manual_seed` set before the fit.

    Args:
        frontend: waveform (batch, samples) -> features; runs in float32 at any trainer precision.
        encoder: features -> (batch, encoder.dim).
        projection: called with `encoder.dim`, gives the projection head.
        optimizer: called with the trainable parameters.
        lr_scheduler: called with the optimiser; None keeps the learning rate. One of `ssl_audio.schedules` is stepped
            each step, others each epoch.
        sample_rate: of the clips, Hz.
        augmentation: optional batch augmentation, called as `(clips (batch, samples), sample_rate, generator)` on the
            device, in training only; gives clips of the same shape.
        feature_augmentation: optional augmentation of the frontend's features, of `ssl_audio.augmentations.features`,
            in training only.

    Attributes:
        views_together: both views in one forward pass, so that batch-norm sees 2 x batch rows at once (as in SimCLR).
            A method whose batch-norm should see one view at a time sets it to False.
        whitening: set by `callbacks.Whiten`; stands behind the encoder of `embedding_model`, never in training.
    """

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
    ) -> None:
        super().__init__()
        self.frontend = frontend
        self.encoder = encoder
        self.projection = projection(encoder.dim)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.sample_rate = sample_rate
        self.augmentation = augmentation
        self.feature_augmentation = feature_augmentation
        self.whitening: Whitening | None = None
        self.run_seed = 0

    def loss(self, z1: Tensor, z2: Tensor) -> dict[str, Tensor]:
        """(batch, dim) x 2, rows of all ranks, float32 -> named terms; "loss" is minimised, the rest is logged."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def objective(self, clip1: Tensor, clip2: Tensor) -> Objective:
        """(batch, samples) x 2 -> terms, embeddings, projections; in training the loss sees the rows of all ranks.

        In validation each rank scores its own rows, and the log averages over ranks.
        """
        embeddings, projections = self.project(clip1, clip2)
        z1, z2 = map(gather, projections) if self.training else projections
        with torch.autocast(z1.device.type, enabled=False):
            return Objective(self.loss(z1, z2), embeddings, projections)

    def forward(self, clips: Tensor) -> Tensor:
        """(batch, samples) -> embeddings (batch, encoder.dim)."""
        return self.encoder(self.features(clips))

    def features(self, clips: Tensor) -> Tensor:
        """(batch, samples) -> what the frontend makes of them, augmented in training; float32."""
        with torch.autocast(clips.device.type, enabled=False):
            features = self.frontend(clips)
            if self.training and self.feature_augmentation is not None:
                features = self.feature_augmentation(features)
        return features

    def project(self, clip1: Tensor, clip2: Tensor) -> tuple[Views, Views]:
        """(batch, samples) x 2 -> embeddings of both views, projections of both views; float32."""
        if self.views_together:
            embeddings = self(torch.cat([clip1, clip2]))
            e1, e2 = embeddings.float().chunk(2)
            z1, z2 = self.projection(embeddings).float().chunk(2)
        else:
            (e1, z1), (e2, z2) = ((e.float(), self.projection(e).float()) for e in (self(clip1), self(clip2)))
        return (e1, e2), (z1, z2)

    def check(self, batch_size: int, samples: int) -> None:
        """Run the objective once on noise, without gradient, so that what cannot work fails before data is read.

        Raises:
            InputError: parts that do not fit each other, a clip too short, a batch too small for the loss.
        """
        for name in ("encoder", "projection"):
            if (dim := getattr(getattr(self, name), "dim", 1)) < 1:
                raise InputError(f"model.{name} gives {dim} dimensions; it must give at least 1")
        generator = torch.Generator().manual_seed(0)
        shortest = self.frontend.samples_for(self.encoder.minimum_frames)
        noise = torch.randn(2, min(batch_size, 2), min(samples, max(_MAX_CHECK_SAMPLES, shortest)), generator=generator)
        clips = noise.mul_(0.1).to(self.device)
        try:
            with evaluating(self), torch.no_grad():
                self.objective(*clips)
        except (ValueError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())
            if samples < shortest:
                reason = f"a clip of {samples} samples is too short: the model needs {shortest}; raise data.nr_samples"
                raise InputError(reason) from error
            raise InputError(f"{reason} (trying a batch of {batch_size} clips of {samples} samples)") from error

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns the loss and, for callbacks, the detached embeddings and projections of both views."""
        clip1, clip2 = batch["clip1"], batch["clip2"]
        if self.augmentation is not None:
            generator = torch.Generator(clip1.device).manual_seed(self.step_seed(batch_idx))
            clips = self.augmentation(torch.cat([clip1, clip2]), self.sample_rate, generator)
            clip1, clip2 = clips.chunk(2)
        return self._report(self.objective(clip1, clip2), "train")

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """As `training_step`, without augmentation."""
        return self._report(self.objective(batch["clip1"], batch["clip2"]), "val")

    def _report(self, result: Objective, stage: str) -> dict[str, Any]:
        # Tensors, never numbers: a number would make the host wait for the device at every step.
        for name, value in result.terms.items():
            self.log(
                f"{name}/{stage}",
                value.detach(),
                prog_bar=name == "loss" and stage == "train",
                on_step=stage == "train",
                on_epoch=True,
                sync_dist=stage == "val",
                batch_size=len(result.embeddings[0]),
            )
        return {
            "loss": result.terms["loss"],
            "embeddings": tuple(view.detach() for view in result.embeddings),
            "projections": tuple(view.detach() for view in result.projections),
        }

    def on_fit_start(self) -> None:
        self.run_seed = torch.initial_seed()
        self.description()  # a module that cannot be saved should fail now, not at the first checkpoint

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(self.step_seed(batch_idx))  # dropout; the augmentation has a generator of its own

    def step_seed(self, batch_idx: int) -> int:
        """A seed for this step and this rank; the same when the run is repeated or resumed."""
        key = [self.run_seed, self.global_step, batch_idx, self.global_rank]
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer([parameter for parameter in self.parameters() if parameter.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        if hasattr(scheduler, "bind"):  # ours need the length of the training
            scheduler.bind(self.trainer)
        interval = getattr(scheduler, "interval", "epoch")
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": interval, "monitor": "loss/val", "name": "lr"},
        }

    def embedding_model(self, projection: bool = False) -> EmbeddingModel:
        """The part that outlives training: frontend and encoder, whitened, or with the projection head if asked for."""
        encoder = self.encoder
        if self.whitening is not None and not projection:  # heads were trained on embeddings as they are
            encoder = Whitened(encoder, self.whitening)
        head = self.projection if projection else None
        return EmbeddingModel(self.frontend, encoder, sample_rate=self.sample_rate, head=head)

    def description(self) -> dict[str, Any]:
        """Frontend, encoder, projection and sample rate as plain data, from which `config.build` makes them again."""
        whitening = {} if self.whitening is None else {"whitening": describe(self.whitening)}
        return {
            **whitening,
            "frontend": describe(self.frontend),
            "encoder": describe(self.encoder),
            "projection": describe(self.projection),
            "sample_rate": self.sample_rate,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # With this a checkpoint alone rebuilds its model; plain data, so that it loads with weights_only=True.
        checkpoint["model"] = self.description()
