"""Fit the calibration of a model on recordings of people who were not in its training."""

import datetime
import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ssl_audio import audio
from ssl_audio.decisions.clips import Clip, inspect_files
from ssl_audio.decisions.corrections import Corrections
from ssl_audio.embedding import embed_files
from ssl_audio.embedding.look_up import path_encoder
from ssl_audio.errors import InputError
from ssl_audio.evaluation.backend import MAX_TRIALS, Backend, Scorer, load_backend
from ssl_audio.evaluation.bootstrap import bootstrap_class_means, interval, singer_multiplicities
from ssl_audio.evaluation.calibration import cllr, costs_in_bits, min_cllr
from ssl_audio.evaluation.calibration_fit import (
    RATES,
    RESAMPLES,
    ScoredTrials,
    check_people,
    fit_model_calibration,
    reached,
)
from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.evaluation.model_calibration import ModelCalibration
from ssl_audio.evaluation.recordings import Recordings, find_recordings
from ssl_audio.evaluation.trials import Trials, all_pairs, check_decidable, read_trials
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint, short_digest
from ssl_audio.version import __version__

LENGTHS = (1.0, 2.0, 4.0, 8.0)  # seconds, to which recordings are cut beside their own length
_SHORTER = 0.9  # a cut must be shorter than the recording by this factor


def calibrate(
    model: EmbeddingModel,
    data: str | os.PathLike,
    *,
    trials: str | os.PathLike | None = None,
    metadata: str | os.PathLike | None = None,
    corrections: Corrections | None = None,
    normalize: str | None = None,
    cohort: str | os.PathLike | None = None,
    lengths: Sequence[float] = LENGTHS,
    apart_from: Sequence[str | os.PathLike] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
    **embedding: Any,
) -> ModelCalibration:
    """The calibration of a model; `model.calibration = calibrate(...)` and `save_model` keep it.

    Each trial takes its clips at a length that is drawn: the whole recording, or a cut of it.

    Args:
        model: it is not changed.
        data: `person/**/file`, people who were not in the training.
        trials: a list `label,person/file,person/file`; None takes all pairs, at most 40,000 of them.
        metadata: see `evaluation.recordings.find_recordings`.
        corrections: pairs of recordings of `data` that are, or are not, the same person; see `Corrections.people`.
        normalize: "z", "s" or "as" with `cohort`, a folder of other people; None for cosines.
        lengths: in seconds, of the cuts; none for whole recordings alone.
        apart_from: folders that it will be tested on, which must be of other people and recordings.
        seed: of lengths, folds and resampling.
        resamples: number of refits on resampled people, for intervals.
        **embedding: `batch_size`, `device` of `embed_files`.

    Raises:
        InputError: folders, lists or files that cannot be used, people or recordings that are in the cohort too, too
            few people, scores that are NaN, constant or do not overlap.
    """
    facts = {"model": fingerprint(model), "level": level_rule(model)}
    recordings = find_recordings(data, metadata)
    if corrections is not None:
        if trials is not None:
            raise InputError("a list of trials has its own labels; correct it, or leave the corrections")
        people = corrections.people(recordings.singers, recordings.files, recordings.paths())
        recordings = replace(recordings, singers=people)
    listed = _trials(recordings, trials, seed)
    if trials is not None:
        recordings = recordings.select(listed.files, listed.singers)
    check_people(recordings.singers, recordings.recording, str(data))
    backend = load_backend([recordings], normalize, cohort)
    clips = check_clips(recordings, model)
    others = [] if backend.cohort is None else check_clips(backend.cohort, model)
    _check_apart(recordings, clips, backend.cohort, others)
    digests = _digests(recordings.singers)
    heard = np.array(sorted({clip.digest for clip in [*clips, *others]}), dtype=np.int64)
    for test in apart_from:
        unseen = find_recordings(test)
        check_unseen(digests, heard, unseen, check_clips(unseen, model))
    listed = _without_copies(listed, clips)
    scored, used = _score(model, listed, recordings, backend, lengths, seed, embedding)
    facts |= {
        "data": Path(data).resolve().name,
        "data_sha256": _data_digest(clips),
        "people": len(set(recordings.singers)),
        "people_with_two_recordings": len(np.unique(scored.people[scored.labels])),
        "recordings": len(recordings),
        "trials": len(scored.labels),
        "same_person_trials": int(scored.labels.sum()),
        "ssl_audio_version": __version__,
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "seed": seed,
    }
    return fit_model_calibration(
        scored,
        seed=seed,
        resamples=resamples,
        normalization=normalize,
        cohort=used,
        people=digests,
        audio=heard,
        facts=facts,
    )


def test_calibration(
    model: EmbeddingModel,
    data: str | os.PathLike,
    *,
    trials: str | os.PathLike | None = None,
    metadata: str | os.PathLike | None = None,
    lengths: Sequence[float] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
    **embedding: Any,
) -> dict[str, Any]:
    """How a model's calibration does on other people; arguments as `calibrate`.

    Returns:
        `cllr`, `min_cllr`, `eer`, each with `*_interval` where it has one, and `rates`: what was asked and reached.

    Raises:
        InputError: no calibration, or people or recordings that it was fitted on.
    """
    calibration = model.calibration
    if calibration is None:
        raise InputError("the model has no calibration to test; make one with ssl-audio calibrate")
    recordings = find_recordings(data, metadata)
    listed = _trials(recordings, trials, seed)
    if trials is not None:
        recordings = recordings.select(listed.files, listed.singers)
    clips = check_clips(recordings, model)
    check_unseen(calibration.people, calibration.audio, recordings, clips)
    scored, _ = _score(
        model, _without_copies(listed, clips), recordings, Backend(), lengths, seed, embedding, calibration
    )
    return figures_on(calibration, scored, seed, resamples)


test_calibration.__test__ = False  # type: ignore[attr-defined]  # not a test case, whatever pytest thinks of the name


def figures_on(calibration: ModelCalibration, scored: ScoredTrials, seed: int, resamples: int) -> dict[str, Any]:
    """The figures of a calibration on trials of people whom it has not seen."""
    labels, people = scored.labels, scored.people
    ratios = calibration.ratios(scored.scores, scored.lengths)
    times = singer_multiplicities(int(people.max()) + 1, resamples, seed)
    possible = [rate for rate in RATES if rate >= calibration.false_accepts.smallest]
    hits = {rate: calibration.accepts(rate, scored.scores, scored.lengths) for rate in possible}
    costs = bootstrap_class_means(labels, costs_in_bits(labels, ratios), people, times)
    return {
        "trials": len(labels),
        "people": len(np.unique(people)),
        "cllr": cllr(labels, ratios),
        "cllr_interval": interval(costs),
        "min_cllr": min_cllr(labels, scored.scores),
        "eer": equal_error_rate(labels, scored.scores)[0],
        "rates": [reached(scored, rate, accepted, times) for rate, accepted in hits.items()],
    }


def level_rule(model: nn.Module) -> Any:
    """How a model sets a clip's level, ready for JSON; None where it does not say."""
    level = getattr(model, "level", None)
    return level if isinstance(level, (str, int, float, type(None))) else str(level)


def check_clips(recordings: Recordings, model: EmbeddingModel) -> list[Clip]:
    """Decode every recording once; the facts of each.

    Raises:
        InputError: names the first that cannot be read or is too short for the model, and counts the rest.
    """
    if path_encoder(model) is not None:  # embeddings from a table: there need not be any audio
        return [Clip(0.0, short_digest(os.fsencode(path)), 0.0, False, np.empty(0)) for path in recordings.paths()]
    clips = inspect_files(recordings.paths())
    bad = [(path, clip.error) for path, clip in zip(recordings.paths(), clips, strict=True) if clip.error is not None]
    if bad:
        more = f" (and {len(bad) - 1} more such files in {recordings.root})" if len(bad) > 1 else ""
        raise InputError(f"{bad[0][0]}: {bad[0][1]}{more}; repair or remove it")
    needed = model.minimum_samples / model.sample_rate
    short = [path for path, clip in zip(recordings.paths(), clips, strict=True) if clip.seconds < needed]
    if short:
        raise InputError(
            f"{recordings.root}: {len(short)} of {len(clips)} recordings are shorter than the {needed:.3f} s that the "
            f"model needs, such as {short[0]}; remove them"
        )
    return clips


def check_unseen(people: np.ndarray, heard: np.ndarray, recordings: Recordings, clips: Sequence[Clip]) -> None:
    """InputError if one of the recordings, or its person, is among `people` and `heard`, digests of a calibration."""
    seen = set(people.tolist())
    shared = [name for name in sorted(set(recordings.singers)) if short_digest(name.encode()) in seen]
    if shared:
        raise InputError(
            f"{recordings.root}: {shared[0]} was in the calibration (of {len(shared)} such people); test on others, or "
            "rename the folder if this is another person"
        )
    known = set(heard.tolist())
    twice = [path for path, clip in zip(recordings.paths(), clips, strict=True) if clip.digest in known]
    if twice:
        raise InputError(f"{twice[0]}: this audio was in the calibration ({len(twice)} such files); test on others")


def _check_apart(
    recordings: Recordings, clips: Sequence[Clip], cohort: Recordings | None, others: Sequence[Clip]
) -> None:
    """InputError for one piece of audio under two people, or in the cohort too (names were compared before)."""
    owner: dict[int, int] = {}
    for i, clip in enumerate(clips):
        first = owner.setdefault(clip.digest, i)
        if recordings.singers[first] != recordings.singers[i]:
            raise InputError(
                f"{recordings.paths()[first]} and {recordings.paths()[i]} hold the same audio and lie under two "
                "people; remove the wrong one"
            )
    if cohort is not None:
        for path, clip in zip(cohort.paths(), others, strict=True):
            if clip.digest in owner:
                raise InputError(
                    f"{path}: holds the same audio as {recordings.paths()[owner[clip.digest]]}; the cohort must be "
                    "other recordings"
                )


def _trials(recordings: Recordings, trials: str | os.PathLike | None, seed: int) -> Trials:
    if trials is None:
        listed = all_pairs(recordings, MAX_TRIALS, seed)
    else:
        listed = read_trials(trials, recordings.root)
        absent = sorted(set(listed.files) - set(recordings.files))
        if absent:
            raise InputError(
                f"{trials}: names {absent[0]}, which is not in {recordings.root} ({len(absent)} such files)"
            )
    check_decidable(listed)
    return listed


def _without_copies(trials: Trials, clips: Sequence[Clip]) -> Trials:
    """The trials without pairs of one piece of audio, which would be too easy."""
    digests = np.array([clip.digest for clip in clips])[trials.pairs]
    kept = digests[:, 0] != digests[:, 1]
    if not kept.any():
        raise InputError(f"{trials.name}: every pair holds the same audio twice; add recordings")
    return replace(trials, pairs=trials.pairs[kept], labels=trials.labels[kept], lines=trials.lines[kept])


def _score(
    model: EmbeddingModel,
    trials: Trials,
    recordings: Recordings,
    backend: Backend,
    lengths: Sequence[float],
    seed: int,
    embedding: dict[str, Any],
    calibration: ModelCalibration | None = None,
) -> tuple[ScoredTrials, np.ndarray | None]:
    """Trials with scores, each clip at a drawn length, and the embeddings of the cohort."""
    rng = np.random.default_rng(seed)
    usable = sorted(x for x in lengths if x * model.sample_rate >= model.minimum_samples)
    if path_encoder(model) is not None:
        usable = []
    tables = [embed_cut(model, recordings.paths(), seconds, rng, embedding) for seconds in (None, *usable)]
    values = np.concatenate([table[0] for table in tables])
    seconds = np.concatenate([table[1] for table in tables])
    # (cuts + 1, files) row of each file at each length; -1 where the file is not longer
    rows = np.stack([np.where(table[2], i * len(recordings) + np.arange(len(recordings)), -1)
                     for i, table in enumerate(tables)])  # fmt: skip
    pairs, kinds = draw_lengths(trials.pairs, rows, np.array([np.nan, *usable]), rng)
    used = None if backend.cohort is None else _whole(model, backend.cohort.paths(), embedding)
    scorer = Scorer(backend.normalization, used) if calibration is None else calibration.scorer()
    people = trials.singer_codes()[0]
    return ScoredTrials(trials.labels, scorer(values, pairs), seconds[pairs], people, kinds), used


def draw_lengths(
    pairs: np.ndarray, rows: np.ndarray, nominal: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """((trials, 2) rows of the drawn cuts, (trials,) their common nominal length or NaN).

    Half of the trials have one nominal length on both sides, where both recordings are long enough.
    """
    drawn = rng.integers(len(rows), size=pairs.shape)
    drawn[:, 1] = np.where(rng.random(len(pairs)) < 0.5, drawn[:, 0], drawn[:, 1])
    drawn = np.where(rows[drawn, pairs] < 0, 0, drawn)  # a recording that is no longer than the cut stays whole
    alike = drawn[:, 0] == drawn[:, 1]
    return rows[drawn, pairs], np.where(alike, nominal[drawn[:, 0]], np.nan)


def embed_cut(
    model: EmbeddingModel,
    paths: Sequence[Path],
    seconds: float | None,
    rng: np.random.Generator,
    embedding: dict[str, Any],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """((files, dim) embeddings, (files,) seconds, (files,) bool whether the file is longer than the cut).

    Of a longer file the first or the last `seconds` are taken, as drawn.
    """
    long_hop = None if seconds is None else 1e6  # seconds: a window at the start, and one at the end
    last = rng.random(len(paths)) < 0.5
    values, lengths = np.zeros((len(paths), model.dim), np.float32), np.zeros(len(paths))
    longer = np.ones(len(paths), dtype=bool)
    for result in embed_files(model, paths, window_seconds=seconds, hop_seconds=long_hop, **embedding):
        assert result.embedding is not None  # an unreadable file has raised
        if result.start == 0 or last[result.index]:
            values[result.index], lengths[result.index] = result.embedding, result.end - result.start
        if seconds is not None and result.start == 0:
            longer[result.index] = audio.info(result.path).seconds * _SHORTER > seconds
    return values, lengths, longer


def _whole(model: EmbeddingModel, paths: Sequence[Path], embedding: dict[str, Any]) -> np.ndarray:
    results = embed_files(model, list(paths), **embedding)
    return np.stack([result.embedding for result in results if result.embedding is not None])


def _data_digest(clips: Sequence[Clip]) -> str:
    """SHA-256 over what was heard, in no order: the same recordings under other names have the same digest."""
    return hashlib.sha256(",".join(map(str, sorted(clip.digest for clip in clips))).encode()).hexdigest()


def _digests(names: Sequence[str]) -> np.ndarray:
    return np.array(sorted({short_digest(name.encode()) for name in names}), dtype=np.int64)
