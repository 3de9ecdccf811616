"""What a model needs to turn two embeddings into a decision: it is fitted once, and travels with the model.

A trial's log-likelihood ratio is a logistic regression on its score, its clips' lengths and their product. The lengths
make short clips less certain (quality measures: Mandasari et al., IEEE Trans. Audio, Speech and Language Processing
21(11), 2013). The uncertainty of the fit itself comes from refits on resampled people.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ssl_audio.errors import InputError
from ssl_audio.evaluation.backend import Scorer
from ssl_audio.evaluation.calibration import Calibration
from ssl_audio.evaluation.false_accepts import FalseAccepts

CONFIDENCE = 0.95
_ROWS = 1 << 14  # trials whose intervals are computed at once


@dataclass(frozen=True)
class ModelCalibration:
    """Scores, ratios, rates and their uncertainty for one model.

    Attributes:
        line: from score and length inputs to the log-likelihood ratio.
        false_accepts: from score and length to the rate at which different people score as high.
        refits: (resamples, 2 + inputs) scale, offset and weights of refits on resampled people.
        score_range: lowest and highest score that the fit saw; ratios beyond are those at the ends.
        length_range: shortest and longest clip in seconds that the fit saw; longer and shorter clips count as these.
        uses_length: whether the lengths are inputs.
        normalization: None for cosines, else "z", "s" or "as".
        cohort: (recordings, dim) embeddings for the normalisation.
        people: (people,) digests of the people's names; `audio`: (recordings,) digests of the audio that was used,
            cohort included. They tell whether a test shares people or recordings, and give no names away.
        facts: what it was fitted on and how well it did on people left out, ready for JSON; see `docs/decisions.md`.
    """

    line: Calibration
    false_accepts: FalseAccepts
    refits: np.ndarray
    score_range: tuple[float, float]
    length_range: tuple[float, float]
    uses_length: bool
    normalization: str | None = None
    cohort: np.ndarray | None = None
    people: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    audio: np.ndarray = field(default_factory=lambda: np.empty(0, np.int64), repr=False)
    facts: Mapping[str, Any] = field(default_factory=dict)

    def scorer(self) -> Scorer:
        """From embeddings and pairs of them to scores."""
        return Scorer(self.normalization, self.cohort)

    def ratios(self, scores: ArrayLike, lengths: ArrayLike) -> np.ndarray:
        """(trials,) scores and (trials, 2) seconds -> (trials,) natural log-likelihood ratios."""
        clipped, inputs = self._inputs(scores, lengths)
        return self.line(clipped, inputs)

    def ratio_matrix(self, scores: np.ndarray, lengths: np.ndarray, other_lengths: np.ndarray) -> np.ndarray:
        """(files, others) scores of clips of (files,) and (others,) seconds -> log-likelihood ratios, as `ratios`."""
        ratios = np.clip(scores, *self.score_range)  # from here on in place: this is done for all pairs of many files
        if not self.uses_length:
            ratios *= self.line.scale
            ratios += self.line.offset
            return ratios
        logs, others = (
            log_lengths(np.clip(x, *self.length_range)).astype(scores.dtype) for x in (lengths, other_lengths)
        )
        of_mean, of_difference, of_product = (*self.line.weights, 0.0, 0.0, 0.0)[:3]
        mean = (logs[:, None] + others) / 2
        ratios *= self.line.scale + of_product * mean
        mean *= of_mean
        ratios += mean
        np.subtract(logs[:, None], others, out=mean)
        np.abs(mean, out=mean)
        mean *= of_difference
        ratios += mean
        ratios += self.line.offset
        return ratios

    def intervals(self, scores: ArrayLike, lengths: ArrayLike) -> np.ndarray:
        """(trials, 2) between which 95 % of the refits on resampled people put each ratio; arguments as `ratios`."""
        clipped, inputs = self._inputs(scores, lengths)
        columns = [clipped, np.ones(len(clipped)), *(inputs.T if inputs is not None else ())]
        design = np.stack(columns, axis=1)
        tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        blocks = (design[first : first + _ROWS] for first in range(0, len(design), _ROWS))
        found = [np.quantile(block @ self.refits.T, tails, axis=1).T for block in blocks]
        return np.concatenate(found) if found else np.empty((0, 2))

    def false_accept_rates(self, scores: ArrayLike, lengths: ArrayLike) -> np.ndarray:
        """(trials,) rate at which recordings of different people score as high; arguments as `ratios`."""
        return self.false_accepts(scores, self._log_lengths(lengths))

    def accepts(self, rate: float, scores: ArrayLike, lengths: ArrayLike) -> np.ndarray:
        """(trials,) bool: accepted where `rate` of the trials of different people may be; see `FalseAccepts`."""
        return self.false_accepts.accepts(rate, scores, self._log_lengths(lengths))

    def outside(self, scores: ArrayLike) -> np.ndarray:
        """(trials,) bool: whether the score lies beyond what the fit saw."""
        scores = np.asarray(scores)
        return (scores < self.score_range[0]) | (scores > self.score_range[1])

    def table(self) -> dict[str, Any]:
        """Everything but the arrays, ready for JSON."""
        rates = self.false_accepts
        return {
            **self.facts,
            "scale": self.line.scale,
            "offset": self.line.offset,
            "weights": list(self.line.weights),
            "score_range": list(self.score_range),
            "length_range": list(self.length_range),
            "uses_length": self.uses_length,
            "normalization": self.normalization,
            "different_people": {name: getattr(rates, name).tolist() for name in rates.__dataclass_fields__},
        }

    def exported(self) -> dict[str, Any]:
        """What a program needs to use it without this package, ready for JSON: `table` with refits and cohort."""
        arrays = {"refits": self.refits, "cohort": self.cohort}
        return {**self.table(), **{name: None if x is None else np.round(x, 6).tolist() for name, x in arrays.items()}}

    def _log_lengths(self, lengths: ArrayLike) -> np.ndarray | float:
        if not self.uses_length:
            return 0.0
        return log_lengths(np.clip(np.asarray(lengths, dtype=np.float64), *self.length_range)).mean(axis=1)

    def _inputs(self, scores: ArrayLike, lengths: ArrayLike) -> tuple[np.ndarray, np.ndarray | None]:
        clipped = np.clip(np.asarray(scores, dtype=np.float64), *self.score_range)
        if not self.uses_length:
            return clipped, None
        seconds = np.clip(np.asarray(lengths, dtype=np.float64), *self.length_range)
        return clipped, length_inputs(clipped, seconds)[:, : len(self.line.weights)]


def log_lengths(lengths: np.ndarray) -> np.ndarray:
    """Natural logarithm of lengths in seconds.

    Raises:
        InputError: a length is not above 0.
    """
    if not (lengths > 0).all():
        raise InputError("a clip has no known length, which this calibration needs; give recordings, not a table")
    return np.log(lengths)


def length_inputs(scores: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(trials, 3) inputs of trials with (trials, 2) lengths: mean log length, log ratio of the lengths, score x mean.

    The log ratio is without sign, so that the order of the clips does not matter.
    """
    logs = log_lengths(lengths)
    mean = logs.mean(axis=1)
    return np.stack([mean, np.abs(logs[:, 0] - logs[:, 1]), mean * scores], axis=1)
