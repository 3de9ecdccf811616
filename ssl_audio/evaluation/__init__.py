"""Scores, errors, ranks and probes of embeddings. Works on arrays: no Lightning here, and no model is known."""

from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.evaluation.ranks import mean_normalized_rank

__all__ = ["equal_error_rate", "mean_normalized_rank"]
