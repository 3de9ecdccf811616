"""Warns when representations collapse: all clips alike, or all variation in a few dimensions."""

import math
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.utilities import rank_zero_warn
from torch import Tensor
from torch.nn.functional import normalize

from ssl_audio.callbacks.outputs import views_of
from ssl_audio.callbacks.timing import Stopwatch
from ssl_audio.errors import InputError

FEWEST_PROTOTYPES = 1.5  # that a batch should use, as the exponential of an entropy
UNIFORM = 0.99  # of the largest entropy; a new head of 65,536 prototypes has 0.9


def collapse_metrics(z: Tensor) -> dict[str, float]:
    """How far a batch of representations is from collapse.

    Args:
        z: (batch, dim), at least 2 rows.

    Returns:
        std: mean over dimensions of the standard deviation of L2-normalised rows, times sqrt(dim); 1 when clips point
            everywhere, 0 when all point one way (Chen and He, CVPR 2021, section 4.1).
        mean_cosine: over pairs of different clips, in [-1, 1].
        effective_rank: exponential of the entropy of the normalised singular values of the centred rows (Roy and
            Vetterli, EUSIPCO 2007); from 1 to min(batch - 1, dim). 0 when all rows are equal.
    """
    n, dim = z.shape
    z = z.float()
    unit = normalize(z, dim=1)
    std = unit.std(0).mean() * math.sqrt(dim)
    mean_cosine = (unit.sum(0).square().sum() - unit.square().sum()) / (n * (n - 1))
    centred = (z - z.mean(0)).double()  # the root below would make 3e-4 of a rounding error of 1e-7
    gram = centred @ centred.T if n <= dim else centred.T @ centred  # the smaller of the two has the same spectrum
    singular = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    total = singular.sum()
    scale = z.norm()
    if not total.isfinite() or total <= 1e-6 * scale:
        rank = torch.zeros(())
    else:
        rank = torch.special.entr(singular / total).sum().exp()
    return {"std": float(std), "mean_cosine": float(mean_cosine), "effective_rank": float(rank)}


class CollapseMonitor(Callback):
    """Logs `collapse/std`, `collapse/mean_cosine`, `collapse/effective_rank`; warns once for each kind of collapse.

    A method with prototypes (DINO) also collapses when all clips get one of them (`mean_teacher_entropy` near 0), or
    when its teacher is uniform (`teacher_entropy` at the logarithm of their number, and so the loss).

    `collapse/time_share` is the fraction of the run that this took.

    Args:
        every_n_steps: how often to look at a training batch.
        of: "embeddings" or "projections", first view.
        after_steps: no warning before; an untrained network looks collapsed too.
        max_mean_cosine: warn above it.
        min_effective_rank: warn below it; in small batches, below 1 + a tenth of the dimensions that they can fill.
            EfficientNet-B0 in BYOL stays at 2.5 of 31 when it collapses; networks that learn were seen at 13 and more.

    Raises:
        InputError: `every_n_steps` is below 1; at the first step, a method that returns no such representations.
    """

    def __init__(
        self,
        every_n_steps: int = 50,
        of: Literal["embeddings", "projections"] = "embeddings",
        after_steps: int = 200,
        max_mean_cosine: float = 0.99,
        min_effective_rank: float = 3.0,
    ) -> None:
        if every_n_steps < 1:
            raise InputError(f"CollapseMonitor's every_n_steps is {every_n_steps}; it must be at least 1")
        self.every_n_steps = every_n_steps
        self.of = of
        self.after_steps = after_steps
        self.max_mean_cosine = max_mean_cosine
        self.min_effective_rank = min_effective_rank
        self._warned: set[str] = set()
        self._clock = Stopwatch()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._clock.restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        z = views_of(outputs, self.of, 1, "collapse")[0]
        if trainer.global_step % self.every_n_steps or len(z) < 2:
            return
        with self._clock.measure():
            metrics = collapse_metrics(z)
            if trainer.is_global_zero and trainer.global_step >= self.after_steps:
                self._warn(metrics, trainer.global_step, min(len(z) - 1, z.shape[1]))
                if "teacher_entropy" in (terms := outputs.get("terms", {})):
                    prototypes = outputs["projections"][0].shape[1]
                    entropies = float(terms["teacher_entropy"]), float(terms["mean_teacher_entropy"])
                    self._warn_of_prototypes(*entropies, prototypes, trainer.global_step)
        metrics["time_share"] = self._clock.fraction
        pl_module.log_dict({f"collapse/{key}": value for key, value in metrics.items()}, on_step=True, on_epoch=False)

    def _warn(self, metrics: dict[str, float], step: int, possible: int) -> None:
        if metrics["mean_cosine"] > self.max_mean_cosine or not math.isfinite(metrics["mean_cosine"]):
            self._warn_once(
                "direction",
                f"step {step}: the {self.of} of all clips point the same way (mean cosine between different clips "
                f"{metrics['mean_cosine']:.3f}); the representation is collapsing. A lower learning rate, a longer "
                "warm-up, a larger batch or stronger negatives and variance terms usually help",
            )
        if metrics["effective_rank"] < min(self.min_effective_rank, 1 + possible / 10):
            self._warn_once(
                "rank",
                f"step {step}: the {self.of} vary in few dimensions (effective rank {metrics['effective_rank']:.1f} of "
                f"{possible} possible in this batch); the representation is collapsing. A covariance term, a wider "
                "projection or weaker augmentation usually help",
            )

    def _warn_of_prototypes(self, entropy: float, of_mean: float, prototypes: int, step: int) -> None:
        """Warn by the teacher's mean entropy and the entropy of its mean distribution."""
        if math.exp(of_mean) < FEWEST_PROTOTYPES or not math.isfinite(of_mean):
            self._warn_once(
                "prototype",
                f"step {step}: the teacher gives all clips of the batch the same prototype (entropy of its mean "
                f"distribution {of_mean:.3f}); the representation is collapsing. A momentum of the teacher nearer to "
                "1, a center_momentum below 1 or a lower learning rate usually help",
            )
        if entropy > UNIFORM * math.log(prototypes):
            self._warn_once(
                "uniform",
                f"step {step}: the teacher is uniform over the {prototypes} prototypes (entropy {entropy:.3f} of "
                f"{math.log(prototypes):.3f}, and the loss stays there); lower model.teacher_temperature",
            )

    def _warn_once(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            rank_zero_warn(message)

    def state_dict(self) -> dict[str, Any]:
        return {"warned": sorted(self._warned)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._warned = set(state_dict["warned"])
