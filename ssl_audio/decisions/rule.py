"""When a log-likelihood ratio means "the same": by prior and costs, or by a wished false-accept rate."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.model_calibration import ModelCalibration


@dataclass(frozen=True)
class Rule:
    """A decision rule.

    Attributes:
        prior: probability of one person before the recordings are heard, between 0 and 1.
        false_accept: accepted share of the pairs of different people, above 0 and at most .5; None decides by prior
            and costs, so that the expected cost is least.
        cost_miss, cost_false_accept: price of each error.

    Raises:
        InputError: a value out of its range.
    """

    prior: float = 0.5
    false_accept: float | None = None
    cost_miss: float = 1.0
    cost_false_accept: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.prior < 1:
            raise InputError(f"prior must lie between 0 and 1, got {self.prior:g}")
        if self.false_accept is not None and not 0 < self.false_accept <= 0.5:
            raise InputError(f"false_accept must lie above 0 and at most at 0.5, got {self.false_accept:g}")
        costs = (self.cost_miss, self.cost_false_accept)
        if not all(0 < cost < np.inf for cost in costs):
            raise InputError(
                f"an error must cost more than nothing and less than infinity, got {costs[0]:g}, {costs[1]:g}"
            )

    @property
    def threshold(self) -> float:
        """The log-likelihood ratio from which on "same" costs less (Bayes): log(C_fa (1 - prior) / (C_miss prior))."""
        return float(np.log(self.cost_false_accept * (1 - self.prior) / (self.cost_miss * self.prior)))

    def probability(self, ratios: ArrayLike) -> np.ndarray:
        """Posterior probability of one person at each log-likelihood ratio."""
        log_odds = np.asarray(ratios, dtype=np.float64) + np.log(self.prior / (1 - self.prior))
        return np.exp(-np.logaddexp(0, -log_odds))

    def same(self, calibration: ModelCalibration, scores: ArrayLike, lengths: ArrayLike) -> np.ndarray:
        """(trials,) bool; `scores` (trials,), `lengths` (trials, 2) in seconds.

        Raises:
            InputError: a false-accept rate smaller than the calibration can tell.
        """
        if self.false_accept is not None:
            return calibration.accepts(self.false_accept, scores, lengths)
        return calibration.ratios(scores, lengths) >= self.threshold

    def __str__(self) -> str:
        if self.false_accept is not None:
            return f"at {100 * self.false_accept:g} % false accepts"
        if self.cost_miss == self.cost_false_accept:
            return f"at a prior of {self.prior:g}, both errors equally costly"
        return (
            f"at a prior of {self.prior:g}, a miss costing {self.cost_miss:g} and a false accept "
            f"{self.cost_false_accept:g}"
        )
