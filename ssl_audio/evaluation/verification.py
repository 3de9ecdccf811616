"""Embeddings and trials in, every verification figure with its interval out: the engine of `eval.py` and `evaluate`."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.bootstrap import (
    DRAWS,
    bootstrap_mean,
    bootstrap_verification,
    interval,
    singer_multiplicities,
)
from ssl_audio.evaluation.metrics import USUAL_PRIORS, ErrorCurve, accuracy_at, error_curve
from ssl_audio.evaluation.ranks import normalized_ranks, paper_normalized_ranks
from ssl_audio.evaluation.scoring import score_trials
from ssl_audio.evaluation.trials import Trials

RANK_PROTOCOLS = ("exact", "paper")
DET_RATES = np.geomspace(1e-3, 0.9, 60)  # false-accept rates at which a DET curve gets its band
Interval = tuple[float, float]


@dataclass(frozen=True)
class Verification:
    """One model on one set of trials. A figure that was not asked for is None.

    Attributes:
        n_trials, n_files, n_singers: what the figures rest on.
        eer, threshold, accuracy, auc: see `metrics`; the threshold is a cosine, accuracy is at it.
        min_dcf: at a prior of .01, `min_dcf_05` at .05.
        mnr: mean normalised rank, 0 is best; `n_ranks` pairs.
        *_interval: 95 %, by bootstrap over singers.
        scores: (trials,) cosines; `ranks`: (n_ranks,) normalised ranks.
        curve: error rates at every score.
        draws: bootstrap draws of "eer", "min_dcf", "mnr" (draws,), "miss" (draws, DET_RATES), for paired tests.
    """

    n_trials: int
    n_files: int
    n_singers: int
    eer: float | None = None
    eer_interval: Interval | None = None
    threshold: float | None = None
    accuracy: float | None = None
    auc: float | None = None
    min_dcf: float | None = None
    min_dcf_interval: Interval | None = None
    min_dcf_05: float | None = None
    mnr: float | None = None
    mnr_interval: Interval | None = None
    n_ranks: int = 0
    scores: np.ndarray | None = field(default=None, repr=False)
    ranks: np.ndarray | None = field(default=None, repr=False)
    curve: ErrorCurve | None = field(default=None, repr=False)
    draws: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def figures(self) -> dict[str, Any]:
        """The numbers alone, ready for JSON."""
        arrays = ("scores", "ranks", "curve", "draws")
        return {name: value for name, value in self.__dict__.items() if name not in arrays}


def verify(
    embeddings: np.ndarray,
    trials: Trials,
    *,
    seed: int = 0,
    draws: int = DRAWS,
    rank_protocol: str = "exact",
    eer: bool = True,
    mnr: bool = True,
    curve: ErrorCurve | None = None,
) -> Verification:
    """Score trials and compute what is asked for.

    Args:
        embeddings: (files, dim) of `trials.files`.
        trials: pairs and labels; the pairs labelled 1 are also the pairs of the rank.
        seed: of the bootstrap, and of the paper's rank protocol.
        draws: of the bootstrap; 0 gives no intervals.
        rank_protocol: "exact" or "paper".
        eer, mnr: which figures to compute.
        curve: error curve of all pairs, when `trials` are only a sample of them: the figures then come from the curve,
            the intervals from the sample.

    Raises:
        InputError: degenerate trials or embeddings (see `check_trials`), or fewer than two singers.
    """
    if rank_protocol not in RANK_PROTOCOLS:
        raise InputError(f"no rank protocol {rank_protocol!r}; there are {' and '.join(RANK_PROTOCOLS)}")
    codes, names = trials.singer_codes()
    times = singer_multiplicities(len(names), draws, seed) if draws else None
    figures: dict[str, Any] = {}
    drawn: dict[str, np.ndarray] = {}
    if eer:
        figures |= _eer_figures(embeddings, trials, curve)
        if times is not None:
            drawn |= bootstrap_verification(trials.labels, figures["scores"], codes, times, USUAL_PRIORS[0], DET_RATES)
            figures |= {f"{name}_interval": interval(drawn[name]) for name in ("eer", "min_dcf")}
    if mnr:
        positives = trials.pairs[trials.labels]
        ranker = normalized_ranks if rank_protocol == "exact" else paper_normalized_ranks
        options = {} if rank_protocol == "exact" else {"seed": seed}
        pairs, ranks = ranker(embeddings, trials.singers, positives, **options)  # type: ignore[operator]
        figures |= {"mnr": float(ranks.mean()), "n_ranks": len(ranks), "ranks": ranks}
        if times is not None:
            number = {name: i for i, name in enumerate(names)}
            whose = np.array([number[trials.singers[anchor]] for anchor in pairs[:, 0]])
            drawn["mnr"] = bootstrap_mean(ranks, whose, times)
            figures["mnr_interval"] = interval(drawn["mnr"])
    return Verification(len(trials), len(trials.files), len(names), draws=drawn, **figures)


def _eer_figures(embeddings: np.ndarray, trials: Trials, curve: ErrorCurve | None) -> dict[str, Any]:
    scores = score_trials(embeddings, trials.pairs)
    own = error_curve(trials.labels, scores)
    curve = curve or own
    rate, threshold = curve.equal_error_rate()
    return {
        "eer": rate,
        "threshold": threshold,
        "accuracy": accuracy_at(threshold, trials.labels, scores),
        "auc": curve.area_under_roc(),
        "min_dcf": curve.min_dcf(USUAL_PRIORS[0])[0],
        "min_dcf_05": curve.min_dcf(USUAL_PRIORS[1])[0],
        "scores": scores,
        "curve": curve,
    }
