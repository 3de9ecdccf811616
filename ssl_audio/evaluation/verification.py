"""Verification: all metrics with intervals, from embeddings and trials. `eval.py` and `ssl-audio evaluate` use it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.backend import Scorer
from ssl_audio.evaluation.bootstrap import (
    RESAMPLES,
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
DET_RATES = np.geomspace(1e-3, 0.9, 60)  # false-accept rates at which a DET curve has an interval
Interval = tuple[float, float]


@dataclass(frozen=True)
class VerificationResult:
    """Verification metrics of one model on one set of trials. A metric that was not computed is None.

    Attributes:
        n_trials, n_files, n_singers: numbers of trials, files and singers.
        n_paired_singers: number of singers with same-singer trials. The other singers are only impostors. The miss rate
            and the width of the intervals depend on these singers alone.
        eer, auc: equal error rate and area under the ROC curve.
        eer_closest: equal error rate by another convention, see `metrics.CONVENTIONS`.
        threshold: threshold of the EER, on the scale of the scores.
        accuracy: fraction of correct decisions at this threshold.
        min_dcf, min_dcf_05: normalised minimum detection cost at a prior of .01 and of .05.
        mnr: mean normalised rank by cosine; 0 is best.
        n_ranks: number of pairs that were ranked.
        *_interval: 95 % interval, by a bootstrap over singers.
        score: kind of score: "cosine", "z-norm", "s-norm" or "adaptive s-norm".
        cohort: description of the cohort that the scores were normalised with.
        cllr: cost of the calibrated scores in bits. 0 is best; 1 means that the scores carry no information.
        min_cllr: Cllr of the best calibration of the same trials.
        calibrated_on: description of the trials that the calibration was fitted on.
        calibration_scale, calibration_offset: `scale * score + offset` is the log-likelihood ratio.
        calibration_note: the reason if there is no calibration.
        scores: (trials,).
        ranks: (n_ranks,) normalised ranks.
        curve: error rates at every score.
        resampled: values of every bootstrap resample, for paired tests: "eer", "min_dcf" and "mnr" (resamples,),
            "miss" (resamples, len(DET_RATES)).
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
    eer_closest: float | None = None
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
    resampled: dict[str, np.ndarray] = field(default_factory=dict, repr=False)

    def metrics(self) -> dict[str, Any]:
        """All attributes that are not arrays, ready for JSON."""
        arrays = ("scores", "ranks", "curve", "resampled")
        return {name: value for name, value in self.__dict__.items() if name not in arrays}


def check_before(trials: Trials, rank_protocol: str | None = None, seed: int = 0) -> None:
    """Check the trials before any model is loaded.

    Args:
        trials: see `verify`.
        rank_protocol: "exact", "paper", or None without ranks.
        seed: see `verify`.

    Raises:
        InputError: `verify` would fail on these trials with every model.
    """
    check_decidable(trials)
    if rank_protocol == "paper":
        draw_paper_pairs(trials.singers, trials.same_singer_pairs(), np.random.default_rng(seed))


def verify(
    embeddings: np.ndarray,
    trials: Trials,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    rank_protocol: str = "exact",
    eer: bool = True,
    mnr: bool = True,
    curve: ErrorCurve | None = None,
    scorer: Scorer | None = None,
) -> VerificationResult:
    """Score the trials and compute the metrics.

    Args:
        embeddings: (files, dim) of `trials.files`.
        trials: pairs and labels. The same-singer pairs of two recordings are also the pairs of the ranks.
        seed: of the bootstrap, the calibration folds and the paper's rank protocol.
        resamples: bootstrap resamples; 0 for no intervals.
        rank_protocol: "exact" or "paper".
        eer: whether to compute the EER and the other metrics of the scores.
        mnr: whether to compute the mean normalised rank.
        curve: error curve of the cosines of all pairs, if `trials` are only a sample of all pairs. The metrics then
            come from the curve, and the intervals from the sample.
        scorer: default: cosine.

    Raises:
        InputError: trials or embeddings are degenerate (see `check_trials`), or there are fewer than two singers.
    """
    if rank_protocol not in RANK_PROTOCOLS:
        raise InputError(f"unknown rank protocol {rank_protocol!r}; choose {' or '.join(RANK_PROTOCOLS)}")
    scorer = scorer or Scorer()
    codes, names = trials.singer_codes()
    times = singer_multiplicities(len(names), resamples, seed) if resamples else None
    metrics: dict[str, Any] = {}
    resampled: dict[str, np.ndarray] = {}
    if eer:
        metrics |= _score_metrics(scorer(embeddings, trials.pairs), trials, curve)
        metrics |= {"score": scorer.name, "cohort": scorer.cohort_name}
        if times is not None:
            resampled |= bootstrap_verification(
                trials.labels, metrics["scores"], codes, times, USUAL_PRIORS[0], DET_RATES
            )
            metrics |= {f"{name}_interval": interval(resampled[name]) for name in ("eer", "min_dcf")}
        if scorer.calibrates:
            metrics |= _calibration_metrics(scorer, trials, metrics["scores"], times, seed)
    if mnr:
        positives = trials.same_singer_pairs()
        ranker = normalized_ranks if rank_protocol == "exact" else paper_normalized_ranks
        options = {} if rank_protocol == "exact" else {"seed": seed}
        pairs, ranks = ranker(embeddings, trials.singers, positives, **options)  # type: ignore[operator]
        metrics |= {"mnr": float(ranks.mean()), "n_ranks": len(ranks), "ranks": ranks}
        if times is not None:
            number = {name: i for i, name in enumerate(names)}
            singer_of_rank = np.array([number[trials.singers[anchor]] for anchor in pairs[:, 0]])
            resampled["mnr"] = bootstrap_mean(ranks, singer_of_rank, times)
            metrics["mnr_interval"] = interval(resampled["mnr"])
    paired = len(np.unique(codes[trials.labels & ~trials.of_one_file()]))
    return VerificationResult(len(trials), len(trials.files), len(names), paired, resampled=resampled, **metrics)


def _calibration_metrics(
    scorer: Scorer, trials: Trials, scores: np.ndarray, times: np.ndarray | None, seed: int
) -> dict[str, Any]:
    """Cllr and the calibration; if the scores cannot be calibrated, a note with the reason."""
    metrics: dict[str, Any] = {"min_cllr": min_cllr(trials.labels, scores)}
    try:
        ratios, line = scorer.calibrate(trials, scores, seed)
    except InputError as error:  # the other metrics are still valid
        return metrics | {"calibration_note": str(error)}
    metrics |= {"cllr": cllr(trials.labels, ratios), **line}
    if times is not None:
        costs = costs_in_bits(trials.labels, ratios)
        metrics["cllr_interval"] = interval(
            bootstrap_class_means(trials.labels, costs, trials.singer_codes()[0], times)
        )
    return metrics


def _score_metrics(scores: np.ndarray, trials: Trials, curve: ErrorCurve | None) -> dict[str, Any]:
    """The metrics of the scores, from the given error curve or from the curve of the trials."""
    own = error_curve(trials.labels, scores)
    curve = curve or own
    rate, threshold = curve.equal_error_rate()
    return {
        "eer": rate,
        "eer_closest": curve.closest_error_rate(),
        "threshold": threshold,
        "accuracy": accuracy_at(threshold, trials.labels, scores),
        "auc": curve.area_under_roc(),
        "min_dcf": curve.min_dcf(USUAL_PRIORS[0])[0],
        "min_dcf_05": curve.min_dcf(USUAL_PRIORS[1])[0],
        "scores": scores,
        "curve": curve,
    }
