"""Compare recordings: score, log-likelihood ratio, probability, decision, and what to be careful about."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ssl_audio.audio import AudioError
from ssl_audio.decisions.clips import Clip, inspect, inspect_files, same_audio
from ssl_audio.decisions.corrections import Corrections
from ssl_audio.decisions.rule import Rule
from ssl_audio.embedding import embed_files
from ssl_audio.embedding.look_up import path_encoder
from ssl_audio.errors import InputError
from ssl_audio.evaluation.model_calibration import ModelCalibration
from ssl_audio.evaluation.scoring import score_trials
from ssl_audio.model import EmbeddingModel

MAX_PAIRS = 500_000
Audio = str | os.PathLike[str] | np.ndarray | Tensor
_NO_CALIBRATION = (
    "the model has no calibration, so that neither a probability nor a decision can be given; make one with "
    "ssl-audio calibrate --model MODEL --data FOLDER, of recordings of other people"
)


@dataclass(frozen=True)
class Comparison:
    """Two recordings compared. What needs a calibration is None without one.

    Attributes:
        a, b: names of the recordings.
        score: cosine, or normalised score where the calibration has a cohort.
        llr: natural logarithm of P(recordings | one person) / P(recordings | two people).
        llr_interval: 95 %, over the people of the calibration.
        probability: that both are one person, at `prior`; `probability_interval` as that of `llr`.
        same: the decision.
        false_accept: share of the pairs of different people that score as high.
        prior: probability of one person before the recordings are heard.
        warnings: sentences.
    """

    a: str
    b: str
    score: float
    llr: float | None
    llr_interval: tuple[float, float] | None
    probability: float | None
    probability_interval: tuple[float, float] | None
    same: bool | None
    false_accept: float | None
    prior: float
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def compare(
    a: Audio,
    b: Audio,
    model: EmbeddingModel,
    *,
    prior: float = 0.5,
    false_accept: float | None = None,
    cost_miss: float = 1.0,
    cost_false_accept: float = 1.0,
) -> Comparison:
    """Compare two recordings.

        >>> compare("a.wav", "b.wav", load_model("my-model")).probability  # doctest: +SKIP
        0.97

    Args:
        a, b: paths, or samples `(samples,)` at the model's rate.
        model: with a calibration (`ssl-audio calibrate`); without one only `score` and warnings are given.
        prior, false_accept, cost_miss, cost_false_accept: see `Rule`.

    Raises:
        InputError: a recording that cannot be read or is too short, or a wrong value.
    """
    rule = Rule(prior, false_accept, cost_miss, cost_false_accept)
    names = [os.fspath(x) if isinstance(x, (str, os.PathLike)) else f"clip {n}" for x, n in ((a, 1), (b, 2))]
    if all(isinstance(x, (str, os.PathLike)) for x in (a, b)):
        found, failed = compare_files([Path(name) for name in names], np.array([[0, 1]]), model, rule)
        if failed:
            raise AudioError(*failed[0])
        return found[0]
    clips, values = [], []
    for x, name in zip((a, b), names, strict=True):
        if isinstance(x, (str, os.PathLike)):
            clips += inspect_files([Path(x)], None)
        else:
            samples = np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x)
            if samples.ndim != 1:
                raise InputError(f"{name} has the shape {samples.shape}; give one clip, (samples,)")
            clips.append(inspect(samples, model.sample_rate))
        values.append(model.embed(x))
    return _compare(names, clips, np.stack(values), np.array([[0, 1]]), model.calibration, rule)[0]


def compare_files(
    paths: Sequence[Path],
    pairs: np.ndarray,
    model: EmbeddingModel,
    rule: Rule | None = None,
    corrections: Corrections | None = None,
    **embedding: Any,
) -> tuple[list[Comparison], list[tuple[Path, str]]]:
    """Compare pairs of files.

    Args:
        paths: each file once.
        pairs: (pairs, 2) positions in `paths`.
        model: see `compare`.
        rule: of the decision; None decides at a prior of .5.
        corrections: what a person has heard; it replaces the decision on these pairs, with a warning.
        **embedding: `batch_size`, `device` of `embed_files`.

    Returns:
        The comparisons in the order of the pairs, without those of files that cannot be used; and these, with why.

    Raises:
        InputError: too many pairs, or a false-accept rate that the calibration cannot tell.
    """
    if len(pairs) > MAX_PAIRS:
        raise InputError(f"{len(pairs):,} pairs are too many; give fewer recordings, at most {MAX_PAIRS:,} pairs")
    rule = rule or Rule()
    if model.calibration is not None:
        rule.same(model.calibration, [0.0], [[1.0, 1.0]])  # refused before anything is read
    clips, values, failed = embed_clips(paths, model, **embedding)
    if failed:
        pairs = pairs[~np.isin(pairs, list(failed)).any(axis=1)]
    found = _compare([str(path) for path in paths], clips, values, pairs, model.calibration, rule)
    if corrections is not None:
        found = _corrected(found, pairs, corrections, paths)
    return found, [(paths[i], reason) for i, reason in sorted(failed.items())]


def _corrected(
    found: list[Comparison], pairs: np.ndarray, corrections: Corrections, paths: Sequence[Path]
) -> list[Comparison]:
    known = {}
    for places, same in zip(corrections.places([str(path) for path in paths], paths, True), (True, False), strict=True):
        known.update({frozenset(pair): same for pair in places.tolist()})
    result = []
    for one, pair in zip(found, pairs.tolist(), strict=True):
        if frozenset(pair) in known:
            same = known[frozenset(pair)]
            said = f"decided by {corrections.source}: {'the same' if same else 'not the same'}"
            one = replace(one, same=same, warnings=(*one.warnings, said))
        result.append(one)
    return result


def embed_clips(
    paths: Sequence[Path], model: EmbeddingModel, **embedding: Any
) -> tuple[list[Clip | None], np.ndarray, dict[int, str]]:
    """((files,) facts, (files, dim) embeddings, {position: why} of files that cannot be used, whose rows are 0).

    Facts are None where embeddings come from a table, which needs no audio.
    """
    clips: list[Clip | None] = [None] * len(paths)
    if path_encoder(model) is None:
        clips = list(inspect_files(paths))
    failed = {i: clip.error for i, clip in enumerate(clips) if clip is not None and clip.error is not None}
    usable = [i for i in range(len(paths)) if i not in failed]
    values = np.zeros((len(paths), model.dim), np.float32)
    for result in embed_files(model, [paths[i] for i in usable], on_error="report", **embedding):
        place = usable[result.index]
        if result.embedding is None:
            failed[place] = str(result.error).removeprefix(f"{paths[place]}: ")
        else:
            values[place] = result.embedding
    return clips, values, failed


def _compare(
    names: Sequence[str],
    clips: Sequence[Clip | None],
    values: np.ndarray,
    pairs: np.ndarray,
    calibration: ModelCalibration | None,
    rule: Rule,
) -> list[Comparison]:
    if not len(pairs):
        return []
    used = np.unique(pairs)
    kept, places = values[used], np.searchsorted(used, pairs)
    scores = score_trials(kept, places) if calibration is None else calibration.scorer()(kept, places)
    warnings = _warnings(names, clips, pairs, calibration)
    if calibration is None:
        return [
            Comparison(names[i], names[j], float(score), None, None, None, None, None, None, rule.prior,
                       (*found, _NO_CALIBRATION))
            for (i, j), score, found in zip(pairs.tolist(), scores, warnings, strict=True)
        ]  # fmt: skip
    seconds = np.array([0.0 if clip is None else clip.seconds for clip in clips])[pairs]
    ratios, intervals = calibration.ratios(scores, seconds), calibration.intervals(scores, seconds)
    low, high = calibration.score_range
    outside = [
        (f"the score {score:.3f} lies outside of {low:.3f} to {high:.3f}, which the calibration saw",) if beyond else ()
        for score, beyond in zip(scores.tolist(), calibration.outside(scores).tolist(), strict=True)
    ]
    columns = zip(
        pairs.tolist(),
        scores.tolist(),
        ratios.tolist(),
        intervals.tolist(),
        rule.probability(ratios).tolist(),
        rule.probability(intervals).tolist(),
        rule.same(calibration, scores, seconds).tolist(),
        calibration.false_accept_rates(scores, seconds).tolist(),
        warnings,
        outside,
        strict=True,
    )
    return [
        Comparison(names[i], names[j], score, ratio, tuple(span), probability, tuple(between), same, rate, rule.prior,
                   (*found, *beyond))
        for (i, j), score, ratio, span, probability, between, same, rate, found, beyond in columns
    ]  # fmt: skip


def _warnings(
    names: Sequence[str], clips: Sequence[Clip | None], pairs: np.ndarray, calibration: ModelCalibration | None
) -> list[tuple[str, ...]]:
    """The sentences about each pair."""
    shortest = calibration.length_range[0] if calibration is not None and calibration.length_range[0] > 0 else None
    heard = set() if calibration is None else set(calibration.audio.tolist())
    alone = []
    for name, clip in zip(names, clips, strict=True):
        found = [] if clip is None else clip.warnings(name, shortest)
        if clip is not None and clip.digest in heard:
            found.append(f"{name} is a recording of the calibration, which makes its figures too good")
        alone.append(found)
    both = []
    for i, j in pairs.tolist():
        first, second = clips[i], clips[j]
        copies = first is not None and second is not None and (i == j or same_audio(first, second))
        own = alone[i] if i == j else [*alone[i], *alone[j]]
        both.append((*own, *(("both hold the same audio",) if copies else ())))
    return both
