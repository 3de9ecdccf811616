"""Objectives as pure functions: `(batch, dim)` tensors in, a scalar out; no state, no module, one objective a file."""

from ssl_audio.losses.byol import byol_loss
from ssl_audio.losses.contrastive import contrastive_loss, nt_xent_loss
from ssl_audio.losses.cpc import cpc_loss, sample_negatives
from ssl_audio.losses.simsiam import simsiam_loss
from ssl_audio.losses.uniformity_alignment import alignment_loss, uniformity_loss
from ssl_audio.losses.vicreg import covariance_loss, invariance_loss, variance_loss

__all__ = [
    "alignment_loss",
    "byol_loss",
    "contrastive_loss",
    "covariance_loss",
    "cpc_loss",
    "invariance_loss",
    "nt_xent_loss",
    "sample_negatives",
    "simsiam_loss",
    "uniformity_loss",
    "variance_loss",
]
