"""Fit a `ModelCalibration` on labelled scores, and judge it on people that each fit has not seen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.bootstrap import (
    bootstrap_class_means,
    bootstrap_different,
    bootstrap_mean,
    bootstrap_verification,
    interval,
    singer_multiplicities,
)
from ssl_audio.evaluation.calibration import (
    cllr,
    costs_in_bits,
    cross_calibrate,
    fit_calibration,
    min_cllr,
    people_folds,
)
from ssl_audio.evaluation.false_accepts import FalseAccepts, fit_false_accepts
from ssl_audio.evaluation.metrics import check_trials, equal_error_rate
from ssl_audio.evaluation.model_calibration import ModelCalibration, length_inputs, log_lengths

RESAMPLES = 200
RATES = (0.1, 0.05, 0.01, 0.001)  # false-accept rates that are tried on people left out
MINIMUM_PEOPLE, MINIMUM_PAIRED = 5, 3  # in all, and with two recordings
_SPREAD = 1.1  # lengths that differ by less than this factor are one length


@dataclass(frozen=True)
class ScoredTrials:
    """Trials with everything that a calibration is fitted on.

    Attributes:
        labels: (trials,) bool, True for one person.
        scores: (trials,).
        lengths: (trials, 2) seconds of both clips; 0 where they are not known.
        people: (trials, 2) number of the person on each side, from 0.
        kinds: (trials,) nominal length of both clips, for the figures by length; NaN where they have different ones.
    """

    labels: np.ndarray
    scores: np.ndarray
    lengths: np.ndarray
    people: np.ndarray
    kinds: np.ndarray

    def at(self, chosen: np.ndarray) -> "ScoredTrials":
        """Those of a (trials,) bool array."""
        return ScoredTrials(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


def fit_model_calibration(
    trials: ScoredTrials, *, seed: int = 0, resamples: int = RESAMPLES, **parts: Any
) -> ModelCalibration:
    """The calibration of these trials, with `facts` on how it does on people left out.

    Args:
        trials: of at least a handful of people, some with several recordings.
        seed: of folds and resampling.
        resamples: number of refits on resampled people.
        **parts: further attributes of `ModelCalibration`; `facts` are completed.

    Raises:
        InputError: scores that are NaN, constant or do not overlap, or too few people.
    """
    check_trials(trials.labels, trials.scores)
    ratios = left_out_ratios(trials, seed)
    inputs = ratios.inputs
    uses_length = inputs is not None
    line = fit_calibration(trials.labels, trials.scores, inputs=inputs)
    logs = log_lengths(trials.lengths).mean(axis=1) if uses_length else None
    rates = _false_accepts(trials, logs)
    facts = {**parts.pop("facts", {}), **judge_across_people(trials, ratios, logs, seed, resamples)}
    return ModelCalibration(
        line=line,
        false_accepts=rates,
        refits=_refits(trials, inputs, seed, resamples),
        score_range=(float(trials.scores.min()), float(trials.scores.max())),
        length_range=(float(trials.lengths.min()), float(trials.lengths.max())),
        uses_length=uses_length,
        facts=facts,
        **parts,
    )


@dataclass(frozen=True)
class LeftOut:
    """Ratios of trials from fits on other people.

    Attributes:
        ratios: (trials,) with the inputs that are best.
        by_inputs: {"cllr": (trials,) with the lengths, "cllr_without_length": (trials,)}; the former only where lengths
            vary.
        inputs: (trials, inputs) of the best; None where the score alone is.
    """

    ratios: np.ndarray
    by_inputs: Mapping[str, np.ndarray]
    inputs: np.ndarray | None


def left_out_ratios(trials: ScoredTrials, seed: int) -> LeftOut:
    """Fit with the lengths and without, always on other people; the lengths stay if Cllr is lower with them.

    Raises:
        InputError: too few people to leave some out, or scores that hardly overlap.
    """
    labels, people = trials.labels, trials.people
    fit_calibration(labels, trials.scores)  # all trials together first: its message is the clearer one
    try:
        plain = cross_calibrate(labels, trials.scores, people, seed)
        if not _lengths_vary(trials.lengths):
            return LeftOut(plain, {"cllr_without_length": plain}, None)
        inputs = _usable_inputs(trials)
        ratios = cross_calibrate(labels, trials.scores, people, seed, inputs=inputs)
    except InputError as error:
        raise InputError(
            f"a calibration cannot be judged on people left out, because {len(np.unique(people))} people, "
            f"{len(np.unique(people[labels]))} of them with two recordings, are too few; add people"
        ) from error
    by_inputs = {"cllr": ratios, "cllr_without_length": plain}
    if cllr(labels, ratios) < cllr(labels, plain):
        return LeftOut(ratios, by_inputs, inputs)
    return LeftOut(plain, by_inputs, None)


def _lengths_vary(lengths: np.ndarray) -> bool:
    means = np.exp(np.log(lengths).mean(axis=1)) if (lengths > 0).all() else np.zeros(1)
    return bool(means.max() > _SPREAD * max(means.min(), 1e-9)) if means.max() > 0 else False


def _usable_inputs(trials: ScoredTrials) -> np.ndarray:
    """(trials, inputs) length inputs, without the product with the score if it would turn the line round somewhere.

    At every length that was seen, a higher score must mean a higher ratio.
    """
    inputs = length_inputs(trials.scores, trials.lengths)
    line = fit_calibration(trials.labels, trials.scores, inputs=inputs)
    if min(line.scale + line.weights[2] * x for x in (inputs[:, 0].min(), inputs[:, 0].max())) > 0:
        return inputs
    return inputs[:, :2]


def _false_accepts(trials: ScoredTrials, logs: np.ndarray | None) -> FalseAccepts:
    different = ~trials.labels
    return fit_false_accepts(trials.scores[different], None if logs is None else logs[different])


def _refits(trials: ScoredTrials, inputs: np.ndarray | None, seed: int, resamples: int) -> np.ndarray:
    """(resamples, 2 + inputs) coefficients of fits on resampled people; resamples without a fit are left out.

    A trial of one person counts as often as that person was drawn, one of two people as often as the product.
    """
    found = []
    for times in singer_multiplicities(int(trials.people.max()) + 1, resamples, seed):
        first, second = times[trials.people].T
        try:
            counts = np.where(trials.labels, first, first * second)
            line = fit_calibration(trials.labels, trials.scores, inputs=inputs, counts=counts)
        except InputError:
            continue
        found.append([line.scale, line.offset, *line.weights])
    if len(found) < resamples / 2:
        raise InputError(
            f"no calibration can be fitted in {resamples - len(found)} of {resamples} resamples of the people; there "
            "are too few people with several recordings, or the scores hardly overlap: add people"
        )
    return np.array(found)


def judge_across_people(
    trials: ScoredTrials, left_out: LeftOut, logs: np.ndarray | None, seed: int, resamples: int
) -> dict[str, Any]:
    """Figures of fits that have not seen the people whom they are judged on.

    Returns:
        `cllr`, `min_cllr`, `eer` with `*_interval`; `rates`: for each false-accept rate asked for, what was reached;
        `by_length`: Cllr at each length, with lengths as inputs and without.
    """
    labels, people, ratios = trials.labels, trials.people, left_out.ratios
    accepted = _accepted(trials, logs, seed)
    times = singer_multiplicities(int(people.max()) + 1, resamples, seed)
    costs = costs_in_bits(labels, ratios)
    drawn = bootstrap_verification(labels, trials.scores, people, times)
    return {
        "cllr": cllr(labels, ratios),
        "cllr_interval": interval(bootstrap_class_means(labels, costs, people, times)),
        "min_cllr": min_cllr(labels, trials.scores),
        "eer": equal_error_rate(labels, trials.scores)[0],
        "eer_interval": interval(drawn["eer"]),
        "rates": [reached(trials, rate, hits, times) for rate, hits in accepted.items()],
        "by_length": _by_length(trials, left_out.by_inputs),
    }


def reached(trials: ScoredTrials, rate: float, hits: np.ndarray, times: np.ndarray) -> dict[str, Any]:
    """What was asked for and what came out of (trials,) bool decisions, with intervals over people."""
    labels, people = trials.labels, trials.people
    false_accepts = bootstrap_different(hits[~labels], people[~labels], times)
    misses = bootstrap_mean(~hits[labels], people[labels, 0], times)
    return {
        "asked": rate,
        "false_accept": float(hits[~labels].mean()),
        "false_accept_interval": interval(false_accepts),
        "miss": float((~hits[labels]).mean()),
        "miss_interval": interval(misses),
    }


def _accepted(trials: ScoredTrials, logs: np.ndarray | None, seed: int) -> dict[float, np.ndarray]:
    """{rate: (trials,) bool} by thresholds of other people, for each of `RATES` that all folds can tell."""
    found = {rate: np.zeros(len(trials.labels), dtype=bool) for rate in RATES}
    for judged, others in people_folds(trials.people, seed):
        here = None if logs is None else logs[judged]
        fitted = _false_accepts(trials.at(others), None if logs is None else logs[others])
        for rate in list(found):
            if rate < fitted.smallest:
                del found[rate]
            else:
                found[rate][judged] = fitted.accepts(rate, trials.scores[judged], 0.0 if here is None else here)
    return found


def _by_length(trials: ScoredTrials, ratios: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    rows = []
    for kind in np.unique(trials.kinds[np.isfinite(trials.kinds)]).tolist():
        here = trials.kinds == kind
        labels = trials.labels[here]
        if labels.any() and not labels.all() and np.ptp(trials.scores[here]) > 0:
            figures = {name: cllr(labels, values[here]) for name, values in ratios.items()}
            rows.append({"seconds": kind, "trials": int(here.sum()), **figures})
    return rows


def check_people(people: Sequence[str], recording: Sequence[str], name: str) -> None:
    """InputError unless there are enough people with two recordings.

    Args:
        people: (files,) who is heard; recording: (files,) what was recorded in one go; name: for the message.
    """
    takes: dict[str, set[str]] = {}
    for person, take in zip(people, recording, strict=True):
        takes.setdefault(person, set()).add(take)
    paired = sum(len(found) > 1 for found in takes.values())
    if len(takes) < MINIMUM_PEOPLE or paired < MINIMUM_PAIRED:
        raise InputError(
            f"{name}: a calibration needs at least {MINIMUM_PEOPLE} people, {MINIMUM_PAIRED} of them with two or more "
            f"recordings; here are {len(takes)}, {paired} of them with two or more; add recordings of other people"
        )
