"""Comparison of several models on several test sets, with the same trials and the same bootstrap resamples."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.backend import Scorer
from ssl_audio.evaluation.bootstrap import PairedTest, paired_test
from ssl_audio.evaluation.cost import ModelCost
from ssl_audio.evaluation.metrics import ErrorCurve, equal_error_rate
from ssl_audio.evaluation.probes import ProbeResult, ProbeSettings, singer_probe
from ssl_audio.evaluation.recordings import Recordings, check_readable, find_recordings
from ssl_audio.evaluation.retrieval_metrics import library_metrics
from ssl_audio.evaluation.scoring import all_pairs_curve
from ssl_audio.evaluation.trials import (
    KINDS,
    Trials,
    all_pairs,
    check_decidable,
    check_files,
    generate_trials,
    read_trials,
)
from ssl_audio.evaluation.verification import VerificationResult, verify

ALL_PAIRS, LISTED = "all", "listed"
TRIALS_KINDS = (ALL_PAIRS, *KINDS)
N_TRIALS = 20_000  # number of random trials
MAX_TRIALS = 40_000  # pairs that intervals are computed from, at most; the metrics come from all pairs
MAX_PROBED = 2_000  # recordings that the probe uses, at most
MAX_RETRIEVED = 10_000  # recordings that the retrieval metrics use, at most; their time grows with the square
_MAX_PROBE_RESAMPLES = 200


@dataclass(frozen=True)
class TestSet:
    """Recordings and trials to test models on.

    Attributes:
        name: name of the data set, unique in a comparison.
        recordings: the files to embed, in the order of `trials.files`.
        trials: pairs and labels.
        n_pairs: number of all pairs if the trials are only a sample of all pairs; else 0.
        kind: kind of the trials: "all", "listed" or one of `trials.KINDS`.
    """

    __test__ = False  # pytest would take a class of this name for a test case

    name: str
    recordings: Recordings
    trials: Trials
    n_pairs: int = 0
    kind: str = ALL_PAIRS

    def trials_description(self) -> str:
        """Number and kind of the trials, for the report."""
        count = f"{len(self.trials):,}"
        if self.kind == LISTED:
            listed = f"{count} trials of the list {Path(self.trials.name).name}"
            recording = np.unique(self.recordings.recording, return_inverse=True)[1][self.trials.pairs]
            easy = int(np.sum(self.trials.labels & (recording[:, 0] == recording[:, 1])))
            return listed + (f" ({easy:,} pair two clips of one recording, which lowers the EER)" if easy else "")
        if self.kind != ALL_PAIRS:
            return f"{count} random {self.kind} trials"
        if self.n_pairs:
            return f"all {self.n_pairs:,} pairs (intervals from {count} of them)"
        return f"{count} random pairs" if len(self.trials) == MAX_TRIALS else f"all {count} pairs"


@dataclass(frozen=True)
class Evaluation:
    """Results of one model on one test set.

    Attributes:
        model: name of the model.
        baseline: whether the model is a baseline.
        test_set: the test set.
        verification: verification metrics.
        singer_eer: {singer: EER of the trials of this singer}, for singers with trials of both classes.
        embeddings: (files, dim).
        probe: closed-set singer identification; None if it was not asked for or is not possible.
        probe_note: the reason if it is not possible.
        retrieval: see `library_metrics`, with the singers as artists. Empty if no singer has two recordings and no
            genres are known.
        cost: size, speed and licence of the model; None if they were not given.
    """

    model: str
    baseline: bool
    test_set: TestSet
    verification: VerificationResult
    singer_eer: dict[str, float]
    embeddings: np.ndarray = field(repr=False)
    probe: ProbeResult | None = None
    probe_note: str = ""
    retrieval: dict[str, dict[str, float]] = field(default_factory=dict)
    cost: ModelCost | None = None

    def metrics(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        probe = self.probe.summary() if self.probe else None
        return {
            "baseline": self.baseline,
            **self.verification.metrics(),
            "n_pairs": self.test_set.n_pairs or len(self.test_set.trials),
            "kind": self.test_set.kind,
            "trials_sha256": self.test_set.trials.digest(),
            "probe": probe,
            "probe_note": self.probe_note,
            "retrieval": self.retrieval,
            "cost": self.cost.summary() if self.cost else None,
        }


@dataclass(frozen=True)
class Comparison:
    """Paired test of two models on one test set; `test.difference` is the EER of `first` minus the EER of `second`.

    `condition` is what the recordings went through, "" for nothing.
    """

    test_set: str
    first: str
    second: str
    test: PairedTest
    condition: str = ""


@dataclass(frozen=True)
class Arm:
    """Results of one model on one test set under one condition (noise, a codec), on the trials of its `Evaluation`.

    Attributes:
        model, baseline, test_set: as of the evaluation.
        condition: its name, such as `noise:10`.
        verification: verification metrics.
        change: paired test; `change.difference` is the EER under the condition minus the EER without it.
    """

    model: str
    baseline: bool
    test_set: TestSet
    condition: str
    verification: VerificationResult
    change: PairedTest

    def metrics(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        return {
            "data_set": self.test_set.name,
            "model": self.model,
            "condition": self.condition,
            **self.verification.metrics(),
            "change": self.change.__dict__,
        }


def load_test_set(
    folder: str | os.PathLike,
    trials: str | os.PathLike | None = None,
    metadata: str | os.PathLike | None = None,
    seed: int = 0,
    max_trials: int = MAX_TRIALS,
    kind: str = ALL_PAIRS,
    n_trials: int = N_TRIALS,
) -> TestSet:
    """List the recordings of a folder, read or generate trials, and decode every file once.

    Args:
        folder: `singer/**/file`.
        trials: a list, see `read_trials`; None generates trials.
        metadata: see `find_recordings`.
        seed: of random trials.
        max_trials: maximum number of trials of the kind "all"; of more pairs, a random sample is used.
        kind: "all" for all pairs; for the other kinds see `generate_trials`.
        n_trials: number of trials of the other kinds.

    Raises:
        InputError: the folder, the trial list or a file cannot be used.
    """
    folder = Path(folder)
    name = folder.resolve().name
    recordings = find_recordings(folder, metadata)
    if trials is not None:
        listed = read_trials(trials, folder)
        check_decidable(listed)
        check_files(listed, folder)
        return TestSet(name, recordings.select(listed.files, listed.singers), listed, kind=LISTED)
    if kind == ALL_PAIRS:
        made = all_pairs(recordings, max_trials, seed)
    else:
        made = generate_trials(recordings, n_trials, seed, kind)
    check_decidable(made)
    check_readable(recordings)
    n_pairs = _count_pairs(recordings) if kind == ALL_PAIRS else 0
    return TestSet(name, recordings, made, n_pairs if n_pairs > len(made) else 0, kind)


def evaluate_model(
    model: str,
    embeddings: np.ndarray,
    test_set: TestSet,
    *,
    baseline: bool = False,
    seed: int = 0,
    resamples: int = 1000,
    rank_protocol: str = "exact",
    probe: str | None = "knn",
    scorer: Scorer | None = None,
    cost: ModelCost | None = None,
) -> Evaluation:
    """Compute all metrics of one model on one test set.

    Args:
        model: name of the model.
        embeddings: (files, dim) of `test_set.recordings`.
        test_set: see `load_test_set`.
        baseline: whether the model is a baseline.
        seed: see `verify`.
        resamples: see `verify`; the probe uses at most 200.
        rank_protocol: see `verify`.
        probe: "linear", "mlp", "knn", or None for no probe.
        scorer: default: cosine. Normalised scores are evaluated on the sample of the pairs, not on all pairs.
        cost: size, speed and licence of the model, for the report.
    """
    if scorer is not None and not (scorer.normalization is None and scorer.cosine):
        test_set = replace(test_set, n_pairs=0)
    recordings, trials = test_set.recordings, test_set.trials
    curve = _all_pairs_curve(embeddings, test_set)
    verification = verify(
        embeddings, trials, seed=seed, resamples=resamples, rank_protocol=rank_protocol, curve=curve, scorer=scorer
    )
    result, note = None, ""
    if probe is not None:
        kept = sample_recordings(recordings, seed, MAX_PROBED)
        settings = ProbeSettings(probe, seed=seed, resamples=min(resamples, _MAX_PROBE_RESAMPLES))
        try:
            result = singer_probe(embeddings[kept], recordings.at(kept.tolist()), settings)
        except InputError as error:
            note = str(error)
    return Evaluation(
        model, baseline, test_set, verification, _singer_eer(trials, verification), embeddings, result, note,
        _retrieval(embeddings, recordings, seed), cost,
    )  # fmt: skip


def evaluate_condition(
    clean: Evaluation,
    condition: str,
    embeddings: np.ndarray,
    *,
    seed: int = 0,
    resamples: int = 1000,
    rank_protocol: str = "exact",
    scorer: Scorer | None = None,
) -> Arm:
    """Compute the verification metrics of a model on recordings that went through a condition.

    Args:
        clean: the evaluation without it.
        condition: its name.
        embeddings: (files, dim) of `clean.test_set.recordings` under the condition.
        seed, resamples, rank_protocol, scorer: as for `clean`.
    """
    test_set, before = clean.test_set, clean.verification
    after = verify(
        embeddings, test_set.trials, seed=seed, resamples=resamples, rank_protocol=rank_protocol,
        curve=_all_pairs_curve(embeddings, test_set), scorer=scorer,
    )  # fmt: skip
    assert after.eer is not None
    change = paired_test(after.eer, _eer(clean), after.resampled["eer"], before.resampled["eer"])
    return Arm(clean.model, clean.baseline, test_set, condition, after, change)


def _all_pairs_curve(embeddings: np.ndarray, test_set: TestSet) -> ErrorCurve | None:
    """The error curve of all pairs, if the trials are a sample of them."""
    if not test_set.n_pairs:
        return None
    columns = (test_set.recordings.singers, test_set.recordings.recording)
    singers, takes = (np.unique(column, return_inverse=True)[1] for column in columns)
    return all_pairs_curve(embeddings, singers, takes, progress=True)


def _count_pairs(recordings: Recordings) -> int:
    """Number of all pairs, without the pairs of two clips of one recording."""
    takes = Counter(zip(recordings.singers, recordings.recording, strict=True))
    return math.comb(len(recordings), 2) - sum(math.comb(clips, 2) for clips in takes.values())


def compare_all(evaluations: Sequence[Evaluation | Arm]) -> list[Comparison]:
    """Paired tests of every two models on every test set and condition; the model with the lower EER is first."""
    found = []
    by_case: dict[tuple[str, str], list[Evaluation | Arm]] = {}
    for e in evaluations:
        by_case.setdefault((e.test_set.name, e.condition if isinstance(e, Arm) else ""), []).append(e)
    for (name, condition), here in by_case.items():
        for a, b in combinations(sorted(here, key=_eer), 2):
            test = paired_test(_eer(a), _eer(b), a.verification.resampled["eer"], b.verification.resampled["eer"])
            found.append(Comparison(name, a.model, b.model, test, condition))
    return found


def _eer(evaluation: Evaluation | Arm) -> float:
    eer = evaluation.verification.eer
    assert eer is not None
    return eer


def _singer_eer(trials: Trials, verification: VerificationResult) -> dict[str, float]:
    codes, names = trials.singer_codes()
    scores = verification.scores
    assert scores is not None
    found = {}
    for number, name in enumerate(names):
        mine = (codes == number).any(axis=1)
        labels = trials.labels[mine]
        if labels.any() and not labels.all() and np.ptp(scores[mine]) > 0:
            found[name] = equal_error_rate(labels, scores[mine])[0]
    return found


def _retrieval(embeddings: np.ndarray, recordings: Recordings, seed: int) -> dict[str, dict[str, float]]:
    kept = sample_recordings(recordings, seed, MAX_RETRIEVED)
    found, x = recordings.at(kept.tolist()), embeddings[kept]
    tables = library_metrics(x, found.singers, takes=found.recording)
    genres = found.columns.get("genre", [])
    known = [i for i, genre in enumerate(genres) if genre]
    singers = {(genres[i], found.singers[i]) for i in known}
    if len({genre for genre, _ in singers}) < len(singers):  # the artist filter needs a genre with two singers
        tables |= library_metrics(x[known], [found.singers[i] for i in known], [genres[i] for i in known]) | tables
    return tables


def sample_recordings(recordings: Recordings, seed: int, limit: int) -> np.ndarray:
    """Positions of at most `limit` files, about the same number from every singer."""
    if len(recordings) <= limit:
        return np.arange(len(recordings))
    order = np.random.default_rng(seed).permutation(len(recordings))
    seen: dict[str, int] = {}
    turn = np.empty(len(order))
    for i in order:
        turn[i] = seen[recordings.singers[i]] = seen.get(recordings.singers[i], 0) + 1
    return np.sort(order[np.argsort(turn[order], kind="stable")][:limit])
