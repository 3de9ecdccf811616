"""Evaluation of embeddings: scores, error rates, ranks, probes. It works on arrays; it knows no model, no Lightning."""

from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.evaluation.ranks import mean_normalized_rank

__all__ = ["equal_error_rate", "mean_normalized_rank"]
