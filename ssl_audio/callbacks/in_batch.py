"""Verification metrics from the two views of each clip in a batch, without encoding anything again."""

import math
from collections import defaultdict
from typing import Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.nn.functional import normalize

from ssl_audio.callbacks.outputs import views_of
from ssl_audio.errors import InputError
from ssl_audio.evaluation import equal_error_rate
from ssl_audio.losses import alignment_loss, uniformity_loss


def view_ranks(v1: Tensor, v2: Tensor) -> Tensor:
    """The rank of each clip's second view among all second views, by cosine to its first view.

    Args:
        v1, v2: (batch, dim), L2-normalised, at least 2 rows.

    Returns:
        (batch,) fraction of the other clips that score higher (ties count half): 0 is best, .5 is chance.
    """
    similarity = v1 @ v2.T
    own = similarity.diagonal()[:, None]
    others = ~torch.eye(len(v1), dtype=torch.bool, device=v1.device)
    above = ((similarity > own) & others).sum(1) + ((similarity == own) & others).sum(1) / 2
    return above / (len(v1) - 1)


class InBatchMetrics(Callback):
    """Equal error rate, rank, alignment and uniformity of the views of each batch, over an epoch.

    Logged as `eer`, its standard error `eer_se`, `rank_mean`, `rank_median`, `rank_variance`, `alignment`, `uniformity`
    with a suffix such as `_embeddings/val`. Same-clip trials are the two views of a clip; different-clip trials are its
    first view and the second view of the clip before it. Views of one recording are easier to match than recordings of
    one singer, so the metrics compare epochs of one run, not models. The batches of all ranks count.

    Args:
        of: of "embeddings" and "projections".
        stages: of "val" and "train". Scores stay on the device until the epoch ends.

    Raises:
        InputError: at the first step, a method that does not return two views of each clip.
    """

    def __init__(
        self,
        of: tuple[Literal["embeddings", "projections"], ...] = ("embeddings",),
        stages: tuple[Literal["val", "train"], ...] = ("val",),
    ) -> None:
        self.of = tuple(of)
        self.stages = tuple(stages)
        self._kept: dict[str, dict[str, list[Tensor]]] = defaultdict(lambda: defaultdict(list))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        for of in self.of:  # in any stage: what is wrong must be said at the first step, not after the first epoch
            views_of(outputs, of, 2, "in_batch")
        if "train" in self.stages:
            self._add("train", outputs)

    def on_validation_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        if "val" in self.stages and not trainer.sanity_checking:
            self._add("val", outputs)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log("train", trainer, pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._log("val", trainer, pl_module)

    def _add(self, stage: str, outputs: Any) -> None:
        for of in self.of:
            v1, v2 = (normalize(view.float(), dim=1) for view in views_of(outputs, of, 2, "in_batch"))
            if len(v1) < 2:
                continue  # a batch of one has no other clip to compare with
            kept = self._kept[f"{of}/{stage}"]
            kept["same"].append((v1 * v2).sum(1))
            kept["different"].append((v1 * v2.roll(1, 0)).sum(1))
            kept["rank"].append(view_ranks(v1, v2))
            kept["alignment"].append(alignment_loss(v1, v2)[None])
            kept["uniformity"].append((uniformity_loss(v1) + uniformity_loss(v2))[None] / 2)

    def _log(self, stage: str, trainer: Trainer, pl_module: LightningModule) -> None:
        for name in [name for name in self._kept if name.endswith(f"/{stage}")]:
            scores = {key: _all_ranks(torch.cat(parts)) for key, parts in self._kept.pop(name).items()}
            same, different, rank = (scores[key] for key in ("same", "different", "rank"))
            labels = torch.cat([torch.ones_like(same), torch.zeros_like(different)])
            eer = _eer(labels, torch.cat([same, different]))
            values: dict[str, Any] = {
                "eer": eer,
                "eer_se": math.sqrt(eer * (1 - eer) / len(same)),  # a clip is missed or not: binomial
                "rank_mean": rank.mean(),
                "rank_median": rank.median(),
                "rank_variance": rank.var(unbiased=False),
                "alignment": scores["alignment"].mean(),
                "uniformity": scores["uniformity"].mean(),
            }
            pl_module.log_dict({f"{key}_{name}": value for key, value in values.items()}, sync_dist=True)


def _eer(labels: Tensor, scores: Tensor) -> float:
    """The equal error rate; chance where there is none."""
    try:
        return equal_error_rate(labels.cpu().numpy(), scores.cpu().numpy())[0]
    except InputError:  # all scores equal, or NaN: no threshold separates anything
        return 0.5


def _all_ranks(values: Tensor) -> Tensor:
    """The values of all ranks, which may have unequal numbers of them."""
    from torchmetrics.utilities.distributed import gather_all_tensors

    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return values
    return torch.cat(gather_all_tensors(values))
