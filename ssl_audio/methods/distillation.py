"""Distillation: a small network learns to predict the embeddings of a large one, without labels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from pytorch_lightning.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ssl_audio.callbacks.collapse import collapse_metrics
from ssl_audio.data.base import recording_data
from ssl_audio.data.batch_spec import BatchSpec, batch_spec_of
from ssl_audio.data.taught import CHANGES_TARGET
from ssl_audio.encoders.base import Encoder
from ssl_audio.encoders.outside import PathEncoder
from ssl_audio.errors import InputError, suggest
from ssl_audio.frontends import Frontend
from ssl_audio.heads import TeacherHead
from ssl_audio.level import leveled
from ssl_audio.losses import (
    contrastive_distillation_loss,
    cosine_distillation_loss,
    mse_distillation_loss,
    similarity_distillation_loss,
)
from ssl_audio.methods.base import Batch, Method, Objective
from ssl_audio.methods.distributed import gather
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint

LOSSES: dict[str, Callable[..., Tensor]] = {
    "cosine": cosine_distillation_loss,
    "contrastive": contrastive_distillation_loss,
    "kl": similarity_distillation_loss,
    "mse": mse_distillation_loss,
}
WITH_TEMPERATURE = ("contrastive", "kl")
MOST_EQUAL = 1e-6  # share of the teacher's energy around its mean below which its embeddings are all alike
_MOST_ROWS = 4096  # embeddings of a validation of which the effective rank is taken


class Distillation(Method):
    """Each teacher has a head behind the student's encoder, and the losses compare head and teacher.

    The targets come from one of two places:

    - **tables**, written by `ssl-audio embed --window` and read by `data.class_path ssl_audio.data.TaughtDataModule`.
      The teacher runs once. A stored embedding belongs to the clip as it was, so that only augmentations are accepted
      which should not change it (noise, equalisation, masks).
    - **online**: `teachers` names models, which hear every clip as `augmentation` made it, in evaluation mode, without
      gradient, at their own rate and level. Augmentations may be strong: a shifted voice is one more voice.

    `load_model(run)` returns the student alone; `load_model(run, projection=True)` the student with its first head,
    whose output lies in the space of the first teacher.

    Logged: the loss and each of its parts; "cosine" of student and teacher in the teacher's space, beside "floor", the
    cosine of the teacher's mean and the teacher, which a constant reaches; in validation also the "effective_rank" of
    the student's embeddings. With several teachers, the names end in _2, _3, ... from the second on.

    Args:
        frontend, encoder, optimizer, lr_scheduler, sample_rate, augmentation, feature_augmentation, weights: see
            `Method`.
        projection: must be None. (The key is there so that a config can take away the projection of the config below.)
        teachers: models that `load_model` loads, to ask online. None: the data has their embeddings.
        loss_weights: of each loss: cosine, contrastive, kl, mse. Losses of several teachers are added.
        temperature: of contrastive and kl.
        hidden: size of the heads' hidden layer; None for linear heads.
        centre: predict the difference from the teacher's mean. The mean is that of the table; of an online teacher,
            that of a clip of each of 1,000 training recordings.
        student_augmentation: batch augmentation that the student alone hears, after `augmentation`.

    Raises:
        InputError: a projection is given, a loss is unknown, no weight is above 0, or a teacher cannot teach.
    """

    clip_keys: ClassVar[tuple[str, ...]] = ("clip1",)
    data_remedy: ClassVar[str] = (
        "name model.teachers, or set data.class_path to ssl_audio.data.TaughtDataModule with data.tables"
    )

    def __init__(
        self,
        frontend: Frontend,
        encoder: Encoder,
        projection: None = None,
        teachers: Sequence[str] | None = None,
        loss_weights: dict[str, float] | None = None,
        temperature: float = 0.07,
        hidden: int | None = None,
        centre: bool = True,
        student_augmentation: nn.Module | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        sample_rate: int = 44100,
        augmentation: nn.Module | None = None,
        feature_augmentation: nn.Module | None = None,
        weights: str | None = None,
    ) -> None:
        if projection is not None:
            raise InputError("model.projection must be null: the heads of the teachers take its place")
        super().__init__(
            frontend, encoder, optimizer, lr_scheduler, sample_rate, augmentation, feature_augmentation, weights
        )
        self.loss_weights = _checked(loss_weights or {"cosine": 1.0})
        self.temperature = temperature
        self.hidden = hidden
        self.centre = centre
        self.student_augmentation = student_augmentation
        self.others = nn.ModuleList()  # the heads of the second teacher and of those after it
        # In a tuple, so that checkpoints do not hold the teachers.
        self.online: tuple[EmbeddingModel, ...] = tuple(_teacher(name, sample_rate) for name in teachers or ())
        self.fingerprints = [fingerprint(teacher) for teacher in self.online]
        self._validated: list[Tensor] = []
        if self.online:
            self.make_heads([teacher.dim for teacher in self.online])

    def make_heads(self, dims: Sequence[int]) -> None:
        """A new head for each teacher, of the size of its embedding."""
        normalize = not self.loss_weights.get("mse")
        heads = [TeacherHead(self.encoder.dim, dim, self.hidden, normalize) for dim in dims]
        self.projection, self.others = heads[0], nn.ModuleList(heads[1:])

    @property
    def heads(self) -> list[TeacherHead]:
        """Of the teachers, in their order; empty before the tables are read."""
        heads = [self.projection, *self.others]
        return [head for head in heads if isinstance(head, TeacherHead)]

    @property
    def batch_keys(self) -> tuple[str, ...]:
        return self.clip_keys if self.online else (*self.clip_keys, "targets")

    def check_data(self, spec: BatchSpec) -> None:
        """As the base.

        Raises:
            InputError: also targets from two places, clips without their level, an augmentation that a stored target
                does not follow.
        """
        super().check_data(spec)
        if self.online and spec.targets:
            raise InputError("targets come from data.tables or from model.teachers; leave one of them out")
        if spec.level != "none" and any(teacher.level == "none" for teacher in self.online):
            raise InputError(
                "the clips of the data are scaled to a peak of 1, and the teacher expects the level of the recording; "
                "set data.normalize to false, or take windows (--config data/windows)"
            )
        names = [type(part).__name__ for part in self.augmentation.modules()] if self.augmentation is not None else []
        heard = [name for name in names if name in CHANGES_TARGET]
        if heard and not self.online:
            raise InputError(
                f"model.augmentation has {heard[0]}, which a stored target does not follow; leave it out, or name "
                "model.teachers to ask the teacher online"
            )

    def setup(self, stage: str) -> None:
        """As the base; and make the heads for the teachers of the tables."""
        super().setup(stage)
        spec = batch_spec_of(self.trainer.datamodule)  # type: ignore[attr-defined]
        if self.online or self.heads or spec is None:
            return
        self.make_heads([len(target.mean) for target in spec.targets])
        self.fingerprints = [target.fingerprint for target in spec.targets]
        for head, target in zip(self.heads, spec.targets, strict=True):
            mean = torch.from_numpy(target.mean)
            self._fit(head, mean, target.length, target.name)

    def on_fit_start(self) -> None:
        """As the base; and take the mean of an online teacher, on the first process for all."""
        super().on_fit_start()
        data = recording_data(self.trainer)
        if not self.online or data is None:
            return
        for number, (head, teacher) in enumerate(zip(self.heads, self.online, strict=True)):
            found = _mean_of(teacher, data, self.device) if self.trainer.is_global_zero else None
            shared: Any = self.trainer.strategy.broadcast(found, src=0)
            self._fit(head, shared[0].to(self.device), shared[1], f"teacher {number + 1}")

    def _fit(self, head: TeacherHead, mean: Tensor, length: float, name: str) -> None:
        """Centre a head. Raises InputError: the teacher gives the same for all clips."""
        energy = length**2 + mean.square().sum().item()
        if length**2 <= MOST_EQUAL * energy:
            raise InputError(
                f"{name}: the embeddings of all clips are nearly equal ({length**2 / max(energy, 1e-30):.1e} of their "
                "energy is around their mean); this teacher has collapsed, take another"
            )
        if self.centre:
            head.fit(mean, length)
        else:
            head.fit(torch.zeros_like(mean), energy**0.5)
        head.floor = mean.clone()  # type: ignore[assignment]  # a constant student's best output

    def augmented(self, batch: Batch, batch_idx: int) -> Batch:
        """As the base; "student" is what the student hears instead of "clip1", if that is something else."""
        batch = super().augmented(batch, batch_idx)
        if self.student_augmentation is None:
            return batch
        clips = batch["clip1"]
        generator = torch.Generator(clips.device).manual_seed(self.step_seed(batch_idx) ^ 1)
        return {**batch, "student": self.student_augmentation(clips, self.sample_rate, generator)}

    def dry_run(self, clips: Mapping[str, Tensor]) -> None:
        """A step with online teachers; with tables, whose sizes are not known yet, the student and the losses."""
        if self.online:
            super().dry_run(clips)
            return
        embeddings = self(clips["clip1"])
        self._compare(embeddings.float(), embeddings.float())

    def batch_objective(self, batch: Batch) -> Objective:
        """The losses of all teachers, added; in training they see the rows of all ranks."""
        targets = self._asked(batch["clip1"]) if self.online else batch["targets"].float().split(self._dims(), dim=1)
        embeddings = self(batch.get("student", batch["clip1"]))
        terms: dict[str, Tensor] = {}
        losses, predictions = [], []
        for number, (head, target) in enumerate(zip(self.heads, targets, strict=True), start=1):
            predicted = head.net(embeddings).float()
            end = f"_{number}" if number > 1 else ""
            with torch.autocast(predicted.device.type, enabled=False):
                mine, theirs = predicted, head.units(target)
                if self.training:
                    mine, theirs = gather(mine), gather(theirs)
                parts = self._compare(mine, theirs)
                losses.append(sum(self.loss_weights[name] * value for name, value in parts.items()))
                terms |= {f"{name}_loss{end}": value for name, value in parts.items() if len(parts) > 1}
                with torch.no_grad():
                    terms[f"cosine{end}"] = cosine_similarity(head.in_space(predicted), target, dim=1).mean()
                    if (floor := getattr(head, "floor", None)) is not None:
                        floor = floor.to(target).expand_as(target)
                        terms[f"floor{end}"] = cosine_similarity(floor, target, dim=1).mean()
            predictions.append(predicted)
        total: Any = sum(losses)
        return Objective({"loss": total, **terms}, (embeddings.float(),), (predictions[0],))

    def _dims(self) -> list[int]:
        return [head.dim for head in self.heads]

    def _compare(self, mine: Tensor, theirs: Tensor) -> dict[str, Tensor]:
        """(rows, dim) predicted and true -> each loss, not weighted."""
        return {
            name: LOSSES[name](mine, theirs, **({"temperature": self.temperature} if name in WITH_TEMPERATURE else {}))
            for name in self.loss_weights
        }

    @torch.no_grad()
    def _asked(self, clips: Tensor) -> list[Tensor]:
        """The online teachers' embeddings of clips, [(batch, dim)] float32."""
        with torch.autocast(clips.device.type, enabled=False):
            return [teacher(leveled(teacher.to(clips.device), clips)).float() for teacher in self.online]

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """As the base; the embeddings are kept for their rank."""
        outputs = super().validation_step(batch, batch_idx)
        if sum(map(len, self._validated)) < _MOST_ROWS:
            self._validated.append(outputs["embeddings"][0].cpu())
        return outputs

    def on_validation_epoch_end(self) -> None:
        rows = torch.cat(self._validated) if self._validated else torch.empty(0, 1)
        self._validated = []
        if len(rows) > 1:
            rank = torch.tensor(collapse_metrics(rows)["effective_rank"], device=self.device)
            self.log("effective_rank/val", rank, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["teachers"] = list(self.fingerprints)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse to continue with another teacher. Raises InputError."""
        super().on_load_checkpoint(checkpoint)
        before = checkpoint.get("teachers", self.fingerprints)
        if self.fingerprints and before != self.fingerprints:
            raise InputError(
                f"the checkpoint was taught by {', '.join(before)}, and the teachers here are "
                f"{', '.join(self.fingerprints)}; continue with the teachers that it began with"
            )


def _checked(losses: Mapping[str, float]) -> dict[str, float]:
    """The losses with a weight above 0. Raises InputError: an unknown one, a negative weight, or none."""
    for name, weight in losses.items():
        if name not in LOSSES:
            raise InputError(f"model.loss_weights has {name!r}, which is none{suggest(name, LOSSES)}")
        if not weight >= 0:
            raise InputError(f"model.loss_weights.{name} is {weight}; a weight is at least 0")
    used = {name: float(weight) for name, weight in losses.items() if weight}
    if not used:
        raise InputError("model.loss_weights has no weight above 0; {cosine: 1.0} is the usual one")
    return used


def _teacher(name: str, sample_rate: int) -> EmbeddingModel:
    """A frozen model for clips at `sample_rate`, whatever its own rate is.

    Raises:
        InputError: it cannot be loaded, or holds embeddings of files.
    """
    from ssl_audio.hub import load_model

    teacher = load_model(name, input_sr=sample_rate, calibration=False)
    if any(isinstance(part, PathEncoder) for part in teacher.modules()):
        raise InputError(f"model.teachers: {name} holds embeddings of files; give its file as data.tables")
    return teacher.requires_grad_(False).eval()


@torch.no_grad()
def _mean_of(teacher: EmbeddingModel, data: Any, device: torch.device) -> tuple[Tensor, float]:
    """Mean (dim,) and root mean square distance from it of a clip of each of 1,000 training recordings."""
    rows = []
    teacher.to(device)
    for dataset in data.plain_training_sets(1000):
        for start in range(0, len(dataset), 32):
            clips = [dataset[i]["clip1"] for i in range(start, min(start + 32, len(dataset)))]
            rows.append(teacher(leveled(teacher, torch.stack(clips).to(device))).double().cpu())
    embeddings = torch.cat(rows)
    mean = embeddings.mean(dim=0)
    return mean.float(), (embeddings - mean).square().sum(dim=1).mean().sqrt().item()
