"""DINO: a student of many crops follows the prototypes that its own moving average gives to the long ones."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ssl_audio.data.batch_spec import BatchSpec
from ssl_audio.errors import InputError
from ssl_audio.losses import dino_center, dino_loss, dino_statistics
from ssl_audio.methods.averaging import follow, frozen_copy
from ssl_audio.methods.base import Batch, Method, Objective
from ssl_audio.methods.distributed import gather
from ssl_audio.schedules import linear, warmup_cosine
from ssl_audio.utils.gradients import clip_each, drop_gradients
from ssl_audio.utils.modes import evaluating


class DINO(Method):
    """Teacher and student with a `DINOHead` each. The teacher is what is evaluated and saved.

    Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294. The teacher sees the long crops (`clip1`, `clip2`, ...),
    the student these and the short ones (`local1`, ...): all of the long crops in one pass, all of the short ones in
    another. The data says how many there are: `data.views`, `data.local_views`, `data.nr_samples_local`.

    `encoder` and `projection` are the teacher's, and `student` has the two that are trained. The teacher is in training
    mode in training, as in the paper's code: its batch-norm uses the batch, and keeps the statistics of its own passes.

    Each step: the loss with the present centre; the new centre; gradients clipped for each tensor, those of the
    prototypes dropped while they are frozen; the optimiser; the teacher. Weight decay is for tensors with two or more
    dimensions.

    Logged: `loss`, `divergence` (the loss without the teacher's entropy), `teacher_entropy`, `mean_teacher_entropy` and
    `teacher_deviation` (see `dino_statistics`). `CollapseMonitor` warns by the entropies.

    Args:
        projection: called with `encoder.dim`, returns the head; it must have `prototypes`, as `heads.DINOHead`.
        student_temperature: above 0.
        teacher_temperature: at the end of its warm-up; above 0.07 it is mostly unstable.
        warmup_teacher_temperature: at the start.
        warmup_teacher_epochs: epochs from one to the other; 0: no warm-up.
        momentum: of the teacher at the start; it rises to 1 by a cosine over the training. Smaller batches want more.
        center_momentum: of the centre. 1 leaves it at 0, which shows what it is worth.
        clip: largest norm of the gradient of each tensor; None: gradients are not clipped.
        freeze_last_layer: epochs in which the prototypes stay as they are.
        weight_decay_end: the optimiser's weight decay goes there by a cosine over the training; None: it is constant.
        **network: frontend, encoder, optimizer, lr_scheduler, ... (see `Method`).

    Raises:
        InputError: a value out of its range, a head without prototypes.
    """

    clip_keys: ClassVar[tuple[str, ...]] = ("clip1",)
    center: Tensor

    def __init__(
        self,
        projection: Callable[[int], nn.Module],
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        warmup_teacher_temperature: float = 0.04,
        warmup_teacher_epochs: int = 0,
        momentum: float = 0.996,
        center_momentum: float = 0.9,
        clip: float | None = 3.0,
        freeze_last_layer: int = 1,
        weight_decay_end: float | None = None,
        **network: Any,
    ) -> None:
        super().__init__(**network)
        for name, value in (("momentum", momentum), ("center_momentum", center_momentum)):
            if not 0 <= value <= 1:
                raise InputError(f"model.{name} is {value}; it must be from 0 to 1")
        temperatures = {
            "student_temperature": student_temperature,
            "teacher_temperature": teacher_temperature,
            "warmup_teacher_temperature": warmup_teacher_temperature,
        }
        for name, value in [*temperatures.items(), ("clip", 1.0 if clip is None else clip)]:
            if value <= 0:
                raise InputError(f"model.{name} is {value}; it must be above 0")
        head: Any = projection(self.encoder.dim)
        if not hasattr(head, "prototypes"):
            raise InputError(
                f"{type(head).__name__} has no prototypes; set model.projection to ssl_audio.heads.DINOHead"
            )
        self.student = nn.ModuleDict({"encoder": self.encoder, "projection": head})
        self.encoder: Any = frozen_copy(self.encoder)
        self.projection = frozen_copy(head)
        self.register_buffer("center", torch.zeros(head.dim))
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.warmup_teacher_temperature = warmup_teacher_temperature
        self.warmup_teacher_epochs = warmup_teacher_epochs
        self.momentum = momentum
        self.center_momentum = center_momentum
        self.clip = clip
        self.freeze_last_layer = freeze_last_layer
        self.weight_decay_end = weight_decay_end
        self.local_samples: int | None = None

    def batch_objective(self, batch: Batch) -> Objective:
        """Embeddings are the teacher's of each long crop, projections its cosines with the prototypes."""
        crops, short = _crops(batch, "clip"), _crops(batch, "local")
        features = self.features(torch.cat(crops))
        embeddings, teacher = self._teach(features, len(crops))
        student = [self.student["encoder"](features)]
        if short:
            student.append(self.student["encoder"](self.features(torch.cat(short))))
        outputs = self.student["projection"](torch.cat(student)).float().unflatten(0, (len(crops) + len(short), -1))
        temperature = self.current_teacher_temperature()
        with torch.autocast(outputs.device.type, enabled=False):
            # The loss is a mean over clips: averaging over ranks, as DDP does, is exact without a gather.
            loss = dino_loss(outputs, teacher, self.center, self.student_temperature, temperature)
            statistics = dino_statistics(teacher, self.center, temperature)
            if self.training:
                everywhere = gather(teacher.mean(dim=(0, 1))[None])
                self.center.copy_(dino_center(self.center, everywhere, self.center_momentum))
        terms = {"loss": loss, "divergence": loss.detach() - statistics["teacher_entropy"], **statistics}
        return Objective(terms, tuple(embeddings), tuple(teacher))

    @torch.no_grad()
    def _teach(self, features: Tensor, crops: int) -> tuple[Tensor, Tensor]:
        """Features of all long crops -> embeddings (crops, batch, dim), outputs (crops, batch, prototypes); float32."""
        embeddings = self.encoder(features)
        outputs = self.projection(embeddings)
        return embeddings.float().unflatten(0, (crops, -1)), outputs.float().unflatten(0, (crops, -1))

    def augmented(self, batch: Batch, batch_idx: int) -> Batch:
        """As the base, with a call for each length."""
        if self.augmentation is None:
            return batch
        generator = torch.Generator(batch["clip1"].device).manual_seed(self.step_seed(batch_idx))
        changed = dict(batch)
        for kind in ("clip", "local"):
            if names := _names(batch, kind):
                clips = self.augmentation(torch.cat([batch[name] for name in names]), self.sample_rate, generator)
                changed |= dict(zip(names, clips.chunk(len(names)), strict=True))
        return changed

    def check_data(self, spec: BatchSpec) -> None:
        """As the base. Raises InputError: one crop alone makes no pair; short crops are too short for the model."""
        super().check_data(spec)
        if sum(key.startswith(("clip", "local")) for key in spec.keys) < 2:
            raise InputError("DINO compares two crops or more, and the data gives one; raise data.views to 2")
        self.local_samples = spec.local_samples
        shortest = self.frontend.samples_for(self.encoder.minimum_frames)
        if spec.local_samples is not None and spec.local_samples < shortest:
            raise InputError(
                f"a short crop of {spec.local_samples} samples is too short: the model needs {shortest}; raise "
                "data.nr_samples_local"
            )

    def dry_run(self, clips: Mapping[str, Tensor]) -> None:
        """A step on two long crops of noise, and on a short one where the data has some."""
        clip = clips["clip1"]
        batch = {"clip1": clip, "clip2": clip}
        if self.local_samples is not None:
            batch["local1"] = clip[:, : self.local_samples]
        with evaluating(self):
            self.batch_objective(batch)

    def current_teacher_temperature(self) -> float:
        """Linear over the epochs of its warm-up."""
        start, final = self.warmup_teacher_temperature, self.teacher_temperature
        return linear(self.current_epoch, self.warmup_teacher_epochs, start, final)

    def scheduled(self, start: float, final: float) -> float:
        """Half a cosine from `start` to `final` over the steps of the training, at this step."""
        total = self.trainer.estimated_stepping_batches
        return start if total == float("inf") else warmup_cosine(self.global_step, int(total), start, final=final)

    def configure_optimizers(self) -> Any:
        """As the base; weight decay is for the first group of parameters, those with two or more dimensions."""
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        decayed = [parameter for parameter in trained if parameter.ndim > 1]
        others = [parameter for parameter in trained if parameter.ndim < 2]
        return self.optimized([{"params": decayed}, {"params": others, "weight_decay": 0.0}])

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        super().on_train_batch_start(batch, batch_idx)
        if self.weight_decay_end is not None:
            optimizer: Any = self.optimizers(use_pl_optimizer=False)
            start = optimizer.defaults["weight_decay"]
            optimizer.param_groups[0]["weight_decay"] = self.scheduled(start, self.weight_decay_end)

    def configure_gradient_clipping(self, optimizer: Any, *arguments: Any, **options: Any) -> None:
        """The trainer's own clipping, that of each tensor, and no gradient for prototypes that are frozen."""
        super().configure_gradient_clipping(optimizer, *arguments, **options)
        if self.clip is not None:
            clip_each(self.parameters(), self.clip)
        if self.current_epoch < self.freeze_last_layer:
            head: Any = self.student["projection"]
            drop_gradients([head.prototypes])

    def move_teacher(self, momentum: float) -> None:
        """teacher = momentum teacher + (1 - momentum) student, for parameters."""
        follow(self.encoder, self.student["encoder"], momentum)
        follow(self.projection, self.student["projection"], momentum)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        # Before the batch ends, so that a checkpoint of this step has it.
        momentum = self.scheduled(self.momentum, 1.0)
        super().optimizer_step(*args, **kwargs)
        self.move_teacher(momentum)


def _names(batch: Batch, kind: str) -> list[str]:
    """The keys of the crops of a kind, in order of their numbers."""
    return sorted((key for key in batch if key.removeprefix(kind).isdigit()), key=lambda key: int(key[len(kind) :]))


def _crops(batch: Batch, kind: str) -> list[Tensor]:
    return [batch[name] for name in _names(batch, kind)]
