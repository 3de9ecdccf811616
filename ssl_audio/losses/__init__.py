"""Objectives as pure functions, one file each: `(batch, dim)` tensors in, a scalar out. They have no state."""

from ssl_audio.losses.byol import byol_loss
from ssl_audio.losses.contrastive import contrastive_loss, nt_xent_loss, replace_positives
from ssl_audio.losses.cpc import cpc_loss, sample_negatives
from ssl_audio.losses.dino import dino_center, dino_loss, dino_statistics
from ssl_audio.losses.distillation import (
    contrastive_distillation_loss,
    cosine_distillation_loss,
    mse_distillation_loss,
    similarity_distillation_loss,
)
from ssl_audio.losses.margin import aam_cosines, am_cosines, inter_top_k_cosines
from ssl_audio.losses.moco import moco_loss
from ssl_audio.losses.noisy_labels import corrected_loss, fit_loss_gate, gated_loss, predicted_classes
from ssl_audio.losses.simsiam import simsiam_loss
from ssl_audio.losses.sogclr import sogclr_loss
from ssl_audio.losses.sup_con import sup_con_loss
from ssl_audio.losses.uniformity_alignment import alignment_loss, uniformity_loss
from ssl_audio.losses.vicreg import covariance_loss, invariance_loss, variance_loss

__all__ = [
    "aam_cosines",
    "alignment_loss",
    "am_cosines",
    "byol_loss",
    "contrastive_distillation_loss",
    "contrastive_loss",
    "corrected_loss",
    "cosine_distillation_loss",
    "covariance_loss",
    "cpc_loss",
    "dino_center",
    "dino_loss",
    "dino_statistics",
    "fit_loss_gate",
    "gated_loss",
    "inter_top_k_cosines",
    "invariance_loss",
    "moco_loss",
    "mse_distillation_loss",
    "nt_xent_loss",
    "predicted_classes",
    "replace_positives",
    "sample_negatives",
    "similarity_distillation_loss",
    "simsiam_loss",
    "sogclr_loss",
    "sup_con_loss",
    "uniformity_loss",
    "variance_loss",
]
