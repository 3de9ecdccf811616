"""Embeddings and trials in, every verification figure with its interval out: the engine of `eval.py` and `evaluate`."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.backend import Scorer
from ssl_audio.evaluation.bootstrap import (
    DRAWS,
    bootstrap_class_means,
    bootstrap_mean,
    bootstrap_verification,
    interval,
    singer_multiplicities,
)
from ssl_audio.evaluation.calibration import cllr, costs_in_bits, min_cllr
from ssl_audio.evaluation.metrics import USUAL_PRIORS, ErrorCurve, accuracy_at, error_curve
from ssl_audio.evaluation.ranks import draw_paper_pairs, normalized_ranks, paper_normalized_ranks
from ssl_audio.evaluation.trials import Trials, check_decidable

RANK_PROTOCOLS = ("exact", "paper")
DET_RATES = np.geomspace(1e-3, 0.9, 60)  # false-accept rates at which a DET curve gets its band
Interval = tuple[float, float]


@dataclass(frozen=True)
class Verification:
    """One model on one set of trials. A figure that was not asked for is None.

    Attributes:
        n_trials, n_files, n_singers: what the figures rest on; `n_paired_singers`: those with same-singer trials. The
            others are only impostors, so that misses, and how far intervals can be believed, rest on these.
        eer, threshold, accuracy, auc: see `metrics`; the threshold is on the scale of the scores, accuracy is at it.
        min_dcf: at a prior of .01, `min_dcf_05` at .05.
        mnr: mean normalised rank by cosine, 0 is best; `n_ranks` pairs.
        *_interval: 95 %, by bootstrap over singers.
        score: what a score is ("cosine", "s-norm", ...), `cohort`: what it was normalised with.
        cllr: cost of the calibrated scores in bits, 0 is best, 1 says nothing; `min_cllr`: of the best calibration of
            these very trials; `calibrated_on`, `calibration_scale`, `calibration_offset`: the line from score to
            log-likelihood ratio and what it was fitted on; `calibration_note`: why there is none.
        scores: (trials,); `ranks`: (n_ranks,) normalised ranks.
        curve: error rates at every score.
        draws: bootstrap draws of "eer", "min_dcf", "mnr" (draws,), "miss" (draws, DET_RATES), for paired tests.
    """

    n_trials: int
    n_files: int
    n_singers: int
    n_paired_singers: int
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
    score: str = "cosine"
    cohort: str = ""
    cllr: float | None = None
    cllr_interval: Interval | None = None
    min_cllr: float | None = None
    calibrated_on: str = ""
    calibration_scale: float | None = None
    calibration_offset: float | None = None
    calibration_note: str = ""
    scores: np.ndarray | None = field(default=None, repr=False)
    ranks: np.ndarray | None = field(default=None, repr=False)
    curve: ErrorCurve | None = field(default=None, repr=False)
    draws: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def figures(self) -> dict[str, Any]:
        """The numbers alone, ready for JSON."""
        arrays = ("scores", "ranks", "curve", "draws")
        return {name: value for name, value in self.__dict__.items() if name not in arrays}


def check_before(trials: Trials, rank_protocol: str | None = None, seed: int = 0) -> None:
    """InputError for whatever would stop `verify` on these trials, whatever the model; costs nothing."""
    check_decidable(trials)
    if rank_protocol == "paper":
        draw_paper_pairs(trials.singers, trials.same_singer_pairs(), np.random.default_rng(seed))


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
    scorer: Scorer | None = None,
) -> Verification:
    """Score trials and compute what is asked for.

    Args:
        embeddings: (files, dim) of `trials.files`.
        trials: pairs and labels; the pairs of two recordings that are labelled 1 are also the pairs of the rank.
        seed: of the bootstrap, and of the paper's rank protocol.
        draws: of the bootstrap; 0 gives no intervals.
        rank_protocol: "exact" or "paper".
        eer, mnr: which figures to compute.
        curve: error curve of all pairs, when `trials` are only a sample of them: the figures then come from the curve,
            the intervals from the sample. Of cosines.
        scorer: None scores by cosine.

    Raises:
        InputError: degenerate trials or embeddings (see `check_trials`), or fewer than two singers.
    """
    if rank_protocol not in RANK_PROTOCOLS:
        raise InputError(f"no rank protocol {rank_protocol!r}; there are {' and '.join(RANK_PROTOCOLS)}")
    scorer = scorer or Scorer()
    codes, names = trials.singer_codes()
    times = singer_multiplicities(len(names), draws, seed) if draws else None
    figures: dict[str, Any] = {}
    drawn: dict[str, np.ndarray] = {}
    if eer:
        figures |= _eer_figures(scorer(embeddings, trials.pairs), trials, curve)
        figures |= {"score": scorer.name, "cohort": scorer.cohort_name}
        if times is not None:
            drawn |= bootstrap_verification(trials.labels, figures["scores"], codes, times, USUAL_PRIORS[0], DET_RATES)
            figures |= {f"{name}_interval": interval(drawn[name]) for name in ("eer", "min_dcf")}
        if scorer.calibrates:
            figures |= _calibration_figures(scorer, trials, figures["scores"], times, seed)
    if mnr:
        positives = trials.same_singer_pairs()
        ranker = normalized_ranks if rank_protocol == "exact" else paper_normalized_ranks
        options = {} if rank_protocol == "exact" else {"seed": seed}
        pairs, ranks = ranker(embeddings, trials.singers, positives, **options)  # type: ignore[operator]
        figures |= {"mnr": float(ranks.mean()), "n_ranks": len(ranks), "ranks": ranks}
        if times is not None:
            number = {name: i for i, name in enumerate(names)}
            whose = np.array([number[trials.singers[anchor]] for anchor in pairs[:, 0]])
            drawn["mnr"] = bootstrap_mean(ranks, whose, times)
            figures["mnr_interval"] = interval(drawn["mnr"])
    paired = len(np.unique(codes[trials.labels & ~trials.of_one_file()]))
    return Verification(len(trials), len(trials.files), len(names), paired, draws=drawn, **figures)


def _calibration_figures(
    scorer: Scorer, trials: Trials, scores: np.ndarray, times: np.ndarray | None, seed: int
) -> dict[str, Any]:
    """Cllr and the line; scores that cannot be calibrated leave a note, because everything else still holds."""
    figures: dict[str, Any] = {"min_cllr": min_cllr(trials.labels, scores)}
    try:
        ratios, line = scorer.calibrate(trials, scores, seed)
    except InputError as error:
        return figures | {"calibration_note": str(error)}
    figures |= {"cllr": cllr(trials.labels, ratios), **line}
    if times is not None:
        costs = costs_in_bits(trials.labels, ratios)
        drawn = bootstrap_class_means(trials.labels, costs, trials.singer_codes()[0], times)
        figures["cllr_interval"] = interval(drawn)
    return figures


def _eer_figures(scores: np.ndarray, trials: Trials, curve: ErrorCurve | None) -> dict[str, Any]:
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
