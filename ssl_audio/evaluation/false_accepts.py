"""How often recordings of two different people reach a score, by the length of the clips.

The scores of different people are described by a location and a scale that change with the logarithm of the clips'
length, and by the quantiles of what is left. Short clips score more widely, so that one threshold for all lengths would
give each length another false-accept rate.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError

MINIMUM_ACCEPTED = 10  # different-person trials above a threshold, without which its rate is not stated
_LARGEST, _POINTS = 0.5, 60  # of the grid of rates


@dataclass(frozen=True)
class FalseAccepts:
    """The false-accept rate of every score; a smaller rate is a higher score.

    Attributes:
        mean: (2,) of different people's scores: `mean[0] + mean[1] * x`, where x is the trial's mean log length.
        log_deviation: (2,) the same of the logarithm of their deviation.
        rates: (points,) ascending, from the smallest that the trials can tell to .5.
        quantiles: (points,) the standardised score that is reached at each rate; descending.
    """

    mean: np.ndarray
    log_deviation: np.ndarray
    rates: np.ndarray
    quantiles: np.ndarray

    @property
    def smallest(self) -> float:
        """The smallest rate that can be asked for."""
        return float(self.rates[0])

    def standardized(self, scores: ArrayLike, log_lengths: ArrayLike | float = 0.0) -> np.ndarray:
        """(trials,) scores in deviations above the mean of different people with clips of this length."""
        scores, x = np.asarray(scores, dtype=np.float64), np.asarray(log_lengths, dtype=np.float64)
        return (scores - self.mean[0] - self.mean[1] * x) / np.exp(self.log_deviation[0] + self.log_deviation[1] * x)

    def __call__(self, scores: ArrayLike, log_lengths: ArrayLike | float = 0.0) -> np.ndarray:
        """(trials,) rate at which different people score as high; at the ends of the grid the rate there."""
        reached = self.standardized(scores, log_lengths)
        return np.exp(np.interp(reached, self.quantiles[::-1], np.log(self.rates[::-1])))

    def accepts(self, rate: float, scores: ArrayLike, log_lengths: ArrayLike | float = 0.0) -> np.ndarray:
        """(trials,) bool: whether the score is accepted where `rate` of the different people may be.

        Raises:
            InputError: a rate outside of (0, .5], or smaller than the trials can tell.
        """
        if not 0 < rate <= _LARGEST:
            raise InputError(f"false_accept must lie above 0 and at most at {_LARGEST}, got {rate}")
        if rate < self.smallest * (1 - 1e-9):
            raise InputError(
                f"a false-accept rate of {rate:g} needs about {MINIMUM_ACCEPTED / rate:,.0f} trials of different "
                f"people; this calibration has fewer: ask for {_rounded_up(self.smallest):g} or more, or calibrate on "
                "more recordings"
            )
        quantile = np.interp(np.log(rate), np.log(self.rates), self.quantiles)
        return self.standardized(scores, log_lengths) >= quantile


def _rounded_up(rate: float) -> float:
    """To two digits, so that the number in a message can be asked for."""
    digits = 1 - int(np.floor(np.log10(rate)))
    return float(np.ceil(rate * 10**digits) / 10**digits)


def fit_false_accepts(scores: ArrayLike, log_lengths: ArrayLike | None = None) -> FalseAccepts:
    """Describe the scores of different people.

    Args:
        scores: (trials,) of different people only, finite and not all equal.
        log_lengths: (trials,) mean logarithm of the lengths of both clips, not constant; None where lengths are not
            used.

    Raises:
        InputError: fewer than 40 trials.
    """
    scores = np.asarray(scores, dtype=np.float64)
    needed = 4 * MINIMUM_ACCEPTED
    if len(scores) < needed:
        raise InputError(
            f"{len(scores)} trials of different people are too few for false-accept rates; {needed} are needed: "
            "add recordings"
        )
    if log_lengths is None:
        mean, log_deviation = np.array([scores.mean(), 0.0]), np.array([np.log(scores.std()), 0.0])
    else:
        design = np.stack([np.ones(len(scores)), np.asarray(log_lengths, dtype=np.float64)], axis=1)
        mean = np.linalg.lstsq(design, scores, rcond=None)[0]
        distance = np.abs(scores - design @ mean)
        log_deviation = np.linalg.lstsq(design, np.log(np.maximum(distance, 1e-3 * distance.mean())), rcond=None)[0]
    rates = np.geomspace(MINIMUM_ACCEPTED / len(scores), _LARGEST, _POINTS)
    unfinished = FalseAccepts(mean, log_deviation, rates, np.empty(0))
    reached = unfinished.standardized(scores, 0.0 if log_lengths is None else log_lengths)
    return FalseAccepts(mean, log_deviation, rates, np.quantile(reached, 1 - rates))
