"""What all methods share: network, start weights, optimiser, the seed of a step, logging, checks and export."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from ssl_audio.config import describe
from ssl_audio.data.batch_spec import BatchSpec, batch_spec_of
from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.whitened import Whitened, Whitening
from ssl_audio.errors import InputError
from ssl_audio.frontends import Frontend, Waveform
from ssl_audio.heads import Identity
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.modes import evaluating

Batch = dict[str, Any]
_MAX_CHECK_SAMPLES = 1 << 18  # cap for the dry run in `check`, so that a typo in nr_samples cannot exhaust memory


class Objective(NamedTuple):
    """The result of one batch.

    Attributes:
        terms: scalars by name; "loss" is minimised, the others are logged.
        embeddings: (batch, dim) of each view, as `embedding_model` returns them.
        projections: (batch, projection dim) of each view, as the loss sees them.
    """

    terms: dict[str, Tensor]
    embeddings: tuple[Tensor, ...]
    projections: tuple[Tensor, ...] = ()


class Method(LightningModule):
    """A network and its training. A subclass sets `clip_keys` and implements `batch_objective`.

    Every step seeds torch's generators from (run seed, step, rank). A resumed run therefore draws the same numbers as
    an uninterrupted one, and no generator state is saved. The run seed is the one that `seed_everything` or
    `torch.manual_seed` set before the fit.

    Args:
        frontend: waveform (batch, samples) -> features; runs in float32 at any trainer precision.
        encoder: features -> (batch, encoder.dim).
        optimizer: called with the trainable parameters.
        lr_scheduler: called with the optimiser; None keeps the learning rate. A schedule of `ssl_audio.schedules` is
            stepped after each step, others after each epoch.
        sample_rate: of the clips, Hz.
        augmentation: batch augmentation, called as `(clips (batch, samples), sample_rate, generator)` on the device, in
            training only; returns clips of the same shape.
        feature_augmentation: augmentation of the frontend's features (see `ssl_audio.augmentations.features`), in
            training only.
        weights: a pre-trained model (run folder, checkpoint, saved folder or name, see `hub.load_model`) whose frontend
            and encoder replace the given ones; None starts from random weights. Heads are always new.

    Attributes:
        clip_keys: keys of a batch that hold clips (batch, samples).
        batch_keys: all keys of a batch that the method reads.
        data_remedy: what to do where the data has other batches.
        projection: the head behind the encoder; `load_model(run, projection=True)` returns the model with it.
        level: the level rule of the clips in the data, which the embedding model keeps; see `ssl_audio.level`.
        whitening: set by `callbacks.Whiten`; follows the encoder in `embedding_model`, never in training.

    Raises:
        InputError: `weights` cannot be loaded or expects another sample rate.
    """

    clip_keys: ClassVar[tuple[str, ...]] = ()
    data_remedy: ClassVar[str] = "set data.class_path to ssl_audio.data.AudioDataModule and data.labels to false"
    projection: nn.Module

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        sample_rate: int = 44100,
        augmentation: nn.Module | None = None,
        feature_augmentation: nn.Module | None = None,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if weights is not None:
            frontend, encoder = _pretrained(weights, sample_rate)
        # A loaded model is in evaluation mode, in which batch normalisation and dropout do not learn.
        self.frontend = frontend.train()
        self.encoder = encoder.train()
        self.projection = Identity(encoder.dim)
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.sample_rate = sample_rate
        self.augmentation = augmentation
        self.feature_augmentation = feature_augmentation
        self.weights = weights
        self.level = "none"
        self.whitening: Whitening | None = None
        self.run_seed = 0

    @property
    def batch_keys(self) -> tuple[str, ...]:
        return self.clip_keys

    def batch_objective(self, batch: Batch) -> Objective:
        """The objective of one batch; augmentation has been applied already."""
        raise NotImplementedError(f"{type(self).__name__} defines no objective")

    def forward(self, clips: Tensor) -> Tensor:
        """(batch, samples) -> embeddings (batch, encoder.dim)."""
        return self.encoder(self.features(clips))

    def features(self, clips: Tensor) -> Tensor:
        """(batch, samples) -> the frontend's features, augmented in training; float32."""
        with torch.autocast(clips.device.type, enabled=False):
            features = self.frontend(clips)
            if self.training and self.feature_augmentation is not None:
                features = self.feature_augmentation(features)
        return features

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Returns the loss and, for callbacks, the detached embeddings and projections of each view."""
        batch = self.augmented(batch, batch_idx)
        return self._report(self.batch_objective(batch), "train", len(batch[self.clip_keys[0]]))

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """As `training_step`, without augmentation."""
        return self._report(self.batch_objective(batch), "val", len(batch[self.clip_keys[0]]))

    def augmented(self, batch: Batch, batch_idx: int) -> Batch:
        """The batch with its clips augmented, all views of it in one call."""
        if self.augmentation is None:
            return batch
        views = [batch[key] for key in self.clip_keys]
        generator = torch.Generator(views[0].device).manual_seed(self.step_seed(batch_idx))
        clips = self.augmentation(torch.cat(views), self.sample_rate, generator)
        return {**batch, **dict(zip(self.clip_keys, clips.chunk(len(views)), strict=True))}

    def _report(self, result: Objective, stage: str, batch_size: int) -> dict[str, Any]:
        # Log tensors, never numbers: converting one would make the host wait for the device at every step.
        for name, value in result.terms.items():
            self.log(
                f"{name}/{stage}",
                value.detach(),
                prog_bar=name == "loss" and stage == "train",
                on_step=stage == "train",
                on_epoch=True,
                sync_dist=stage == "val",
                batch_size=batch_size,
            )
        outputs: dict[str, Any] = {"loss": result.terms["loss"]}
        for name, views in (("embeddings", result.embeddings), ("projections", result.projections)):
            if views:
                outputs[name] = tuple(view.detach() for view in views)
        return outputs

    def check(self, batch_size: int, samples: int) -> None:
        """Run the objective once on noise, without gradient, so that what cannot work fails before data is read.

        Raises:
            InputError: parts that do not fit each other, a clip that is too short, a batch too small for the loss.
        """
        for name in ("encoder", "projection"):
            if (dim := getattr(getattr(self, name), "dim", 1)) < 1:
                raise InputError(f"model.{name} gives {dim} dimensions; it must give at least 1")
        if self.feature_augmentation is not None and isinstance(self.frontend, Waveform):
            raise InputError(
                "model.feature_augmentation changes spectrograms, and Waveform gives samples; set "
                "model.feature_augmentation to null, or take an encoder with a spectrogram"
            )
        generator = torch.Generator().manual_seed(0)
        shortest = self.frontend.samples_for(self.encoder.minimum_frames)
        size = (len(self.clip_keys), min(batch_size, 2), min(samples, max(_MAX_CHECK_SAMPLES, shortest)))
        clips = torch.randn(size, generator=generator).mul_(0.1).to(self.device)
        self._check_feature_augmentation(clips[0])
        try:
            with evaluating(self), torch.no_grad():
                self.dry_run(dict(zip(self.clip_keys, clips, strict=True)))
        except (ValueError, RuntimeError, TypeError) as error:
            reason = " ".join(str(error).split())
            if samples < shortest:
                reason = f"a clip of {samples} samples is too short: the model needs {shortest}; raise data.nr_samples"
                raise InputError(reason) from error
            raise InputError(f"{reason} (trying a batch of {batch_size} clips of {samples} samples)") from error

    def _check_feature_augmentation(self, clips: Tensor) -> None:
        if self.feature_augmentation is None or clips.shape[-1] < self.frontend.minimum_samples:
            return
        with torch.no_grad():
            features = self.frontend(clips)
        if features.ndim != 3:
            raise InputError(
                "model.feature_augmentation needs features of (bands, frames), and this frontend gives "
                f"{tuple(features.shape[1:])}; set model.feature_augmentation to null"
            )

    def dry_run(self, clips: Mapping[str, Tensor]) -> None:
        """Carry out a step on clips of noise, (batch, samples) by the keys of `clip_keys`."""
        self.batch_objective(dict(clips))

    def setup(self, stage: str) -> None:
        """Ask the data module, once, what its batches hold. Raises InputError: see `check_data`."""
        spec = batch_spec_of(self.trainer.datamodule)  # type: ignore[attr-defined]
        if spec is not None:
            self.check_data(spec)

    def check_data(self, spec: BatchSpec) -> None:
        """Refuse batches that this method cannot train on, and take over the level rule of the clips.

        Raises:
            InputError: keys that it needs are missing, or clips have another sample rate than the model.
        """
        missing = [key for key in self.batch_keys if key not in spec.keys]
        if missing:
            raise InputError(
                f"{type(self).__name__} needs batches with {', '.join(missing)}, and those of the data hold "
                f"{', '.join(spec.keys)}; {self.data_remedy}"
            )
        if spec.sample_rate != self.sample_rate:
            raise InputError(
                f"the clips of the data are at {spec.sample_rate} Hz and model.sample_rate is {self.sample_rate}; set "
                "both to the same rate"
            )
        self.level = spec.level

    def on_fit_start(self) -> None:
        self.run_seed = torch.initial_seed()
        self.description()  # a module that cannot be saved must fail now, not at the first checkpoint

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        torch.manual_seed(self.step_seed(batch_idx))  # for dropout; the augmentation has its own generator

    def step_seed(self, batch_idx: int) -> int:
        """The seed of this step on this rank; the same when the run is repeated or resumed."""
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
        monitor = getattr(scheduler, "monitor", "loss/val")
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": interval, "monitor": monitor, "name": "lr"},
        }

    def embedding_model(self, projection: bool = False) -> EmbeddingModel:
        """The part that outlives training: frontend and encoder, whitened; or with the projection head instead."""
        encoder = self.encoder
        if self.whitening is not None and not projection:  # heads were trained on embeddings that are not whitened
            encoder = Whitened(encoder, self.whitening)
        head = self.projection if projection else None
        return EmbeddingModel(self.frontend, encoder, sample_rate=self.sample_rate, head=head, level=self.level)

    def description(self) -> dict[str, Any]:
        """Frontend, encoder, projection, sample rate and level as plain data; `config.build` makes them again."""
        whitening = {} if self.whitening is None else {"whitening": describe(self.whitening)}
        return {
            **whitening,
            "frontend": describe(self.frontend),
            "encoder": describe(self.encoder),
            "projection": describe(self.projection),
            "sample_rate": self.sample_rate,
            "level": self.level,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        # A checkpoint alone rebuilds its model from this; plain data, so that it loads with weights_only=True.
        checkpoint["model"] = self.description()


def _pretrained(weights: str, sample_rate: int) -> tuple[Frontend, Encoder]:
    """Frontend and encoder of a pre-trained model, without the whitening of a finished one.

    Raises:
        InputError: it cannot be loaded, or expects another sample rate.
    """
    from ssl_audio.hub import load_model

    model: Any = load_model(weights)
    if model.sample_rate != sample_rate:
        raise InputError(f"{weights} takes audio at {model.sample_rate} Hz; set data.sample_rate to that")
    encoder: Any = model.encoder
    if isinstance(encoder, Whitened):  # an encoder that is trained through its whitening learns to undo it
        encoder = encoder.encoder
    return model.frontend, encoder
