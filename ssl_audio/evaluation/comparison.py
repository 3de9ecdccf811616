"""Several models on several data sets, on the same trials and the same draws, so that they can be compared in pairs."""

import math
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.backend import Scorer
from ssl_audio.evaluation.bootstrap import PairedTest, paired_test
from ssl_audio.evaluation.metrics import equal_error_rate
from ssl_audio.evaluation.probes import ProbeResult, singer_probe
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
from ssl_audio.evaluation.verification import Verification, verify

ALL_PAIRS, LISTED = "all", "listed"
TRIALS_KINDS = (ALL_PAIRS, *KINDS)
N_TRIALS = 20_000  # of a kind that is drawn
MAX_TRIALS = 40_000  # of all pairs that are listed one by one, for intervals; the figures come from all of them
MAX_PROBED = 2_000  # recordings that the probe of a comparison uses
MAX_RETRIEVED = 10_000  # recordings in the library of the retrieval metrics, whose time grows with the square


@dataclass(frozen=True)
class TestSet:
    """What models are tested on.

    Attributes:
        name: of the data set, unique in a comparison.
        recordings: all files that are embedded; `trials.files` are these, in this order.
        trials: pairs and labels.
        n_pairs: of all pairs when the trials are only a sample of them, else 0.
        kind: of the trials: "all", "listed" or one of `trials.KINDS`.
    """

    __test__ = False  # not a test case, whatever pytest thinks of the name

    name: str
    recordings: Recordings
    trials: Trials
    n_pairs: int = 0
    kind: str = ALL_PAIRS

    def words(self) -> str:
        """What the trials are, for the page."""
        count = f"{len(self.trials):,}"
        if self.kind == LISTED:
            listed = f"{count} trials of the list {Path(self.trials.name).name}"
            recording = np.unique(self.recordings.recording, return_inverse=True)[1][self.trials.pairs]
            alike = int(np.sum(self.trials.labels & (recording[:, 0] == recording[:, 1])))
            return listed + (f", {alike:,} of them of two clips of one recording, which flatters" if alike else "")
        if self.kind != ALL_PAIRS:
            return f"{count} {self.kind} trials, drawn"
        if self.n_pairs:
            return f"all {self.n_pairs:,} pairs (intervals from {count} of them)"
        return f"{count} pairs, drawn" if len(self.trials) == MAX_TRIALS else f"all {count} pairs"


@dataclass(frozen=True)
class Evaluation:
    """One model on one test set.

    Attributes:
        singer_eer: {singer: EER of the trials that the singer is in}, where both classes of trials exist.
        probe: closed-set singer identification; None where the data do not allow it, and `probe_note` says why.
        retrieval: {"same_artist", with genres also "same_genre" and "same_genre_other_artist": figures}, of the
            singers as artists; clips of the query's own recording are no candidates for the first. Empty where no
            singer has two recordings and no genres are known.
        embeddings: (files, dim).
    """

    model: str
    baseline: bool
    test_set: TestSet
    verification: Verification
    singer_eer: dict[str, float]
    embeddings: np.ndarray = field(repr=False)
    probe: ProbeResult | None = None
    probe_note: str = ""
    retrieval: dict[str, dict[str, float]] = field(default_factory=dict)

    def figures(self) -> dict[str, Any]:
        """All numbers, ready for JSON."""
        probe = self.probe.summary() if self.probe else None
        return {
            "baseline": self.baseline,
            **self.verification.figures(),
            "n_pairs": self.test_set.n_pairs or len(self.test_set.trials),
            "kind": self.test_set.kind,
            "trials_sha256": self.test_set.trials.digest(),
            "probe": probe,
            "probe_note": self.probe_note,
            "retrieval": self.retrieval,
        }


@dataclass(frozen=True)
class Comparison:
    """The paired test of two models on one test set; `test.difference` is the EER of `first` minus that of `second`."""

    test_set: str
    first: str
    second: str
    test: PairedTest


def load_test_set(
    folder: str | os.PathLike,
    trials: str | os.PathLike | None = None,
    metadata: str | os.PathLike | None = None,
    seed: int = 0,
    max_trials: int = MAX_TRIALS,
    kind: str = ALL_PAIRS,
    n_trials: int = N_TRIALS,
) -> TestSet:
    """List a folder, read or make its trials, and decode every file once.

    Args:
        folder: `singer/**/file`.
        trials: a list `label,singer/file,singer/file`; None makes trials of a `kind`.
        metadata: see `find_recordings`.
        seed: of the trials that are drawn.
        max_trials: how many of all pairs are drawn; with no more pairs than this, all are trials.
        kind: "all" for all pairs, else see `generate_trials`, which draws `n_trials`.

    Raises:
        InputError: whatever is wrong with folder, list or files, before any model is loaded.
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


def evaluate(
    model: str,
    embeddings: np.ndarray,
    test_set: TestSet,
    *,
    baseline: bool = False,
    seed: int = 0,
    draws: int = 1000,
    rank_protocol: str = "exact",
    probe: str | None = "knn",
    scorer: Scorer | None = None,
) -> Evaluation:
    """Every figure of one model on one test set.

    Args:
        model: its name.
        embeddings: (files, dim) of `test_set.recordings`.
        test_set: see `load_test_set`.
        baseline: whether it stands there for comparison only.
        seed, draws, rank_protocol: see `verify`.
        probe: "linear", "knn" or None.
        scorer: None scores by cosine. Normalised scores of all pairs are judged on the pairs that are drawn.
    """
    if scorer is not None and scorer.normalization is not None:
        test_set = replace(test_set, n_pairs=0)
    recordings, trials = test_set.recordings, test_set.trials
    curve = None
    if test_set.n_pairs:
        singers, takes = (np.unique(v, return_inverse=True)[1] for v in (recordings.singers, recordings.recording))
        curve = all_pairs_curve(embeddings, singers, takes, progress=True)
    verification = verify(
        embeddings, trials, seed=seed, draws=draws, rank_protocol=rank_protocol, curve=curve, scorer=scorer
    )
    result, note = None, ""
    if probe is not None:
        kept = sample_recordings(recordings, seed, MAX_PROBED)
        try:
            result = singer_probe(embeddings[kept], recordings.at(kept.tolist()), probe, seed, draws=min(draws, 200))
        except InputError as error:
            note = str(error)
    return Evaluation(
        model, baseline, test_set, verification, _singer_eer(trials, verification), embeddings, result, note,
        _retrieval(embeddings, recordings, seed),
    )  # fmt: skip


def _count_pairs(recordings: Recordings) -> int:
    """How many trials all pairs are, without those of one recording."""
    takes = Counter(zip(recordings.singers, recordings.recording, strict=True))
    return math.comb(len(recordings), 2) - sum(math.comb(clips, 2) for clips in takes.values())


def compare_all(evaluations: list[Evaluation]) -> list[Comparison]:
    """The paired test of every two models on every test set, the better one first."""
    found = []
    for name in dict.fromkeys(e.test_set.name for e in evaluations):
        here = sorted((e for e in evaluations if e.test_set.name == name), key=lambda e: _eer(e))
        for a, b in combinations(here, 2):
            test = paired_test(_eer(a), _eer(b), a.verification.draws["eer"], b.verification.draws["eer"])
            found.append(Comparison(name, a.model, b.model, test))
    return found


def _eer(evaluation: Evaluation) -> float:
    eer = evaluation.verification.eer
    assert eer is not None
    return eer


def _singer_eer(trials: Trials, verification: Verification) -> dict[str, float]:
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
    if len({genre for genre, _ in singers}) < len(singers):  # a genre that two sing, or the artist filter leaves none
        tables |= library_metrics(x[known], [found.singers[i] for i in known], [genres[i] for i in known]) | tables
    return tables


def sample_recordings(recordings: Recordings, seed: int, limit: int) -> np.ndarray:
    """Positions of at most `limit` files, evenly over singers."""
    if len(recordings) <= limit:
        return np.arange(len(recordings))
    order = np.random.default_rng(seed).permutation(len(recordings))
    seen: dict[str, int] = {}
    turn = np.empty(len(order))
    for i in order:
        turn[i] = seen[recordings.singers[i]] = seen.get(recordings.singers[i], 0) + 1
    return np.sort(order[np.argsort(turn[order], kind="stable")][:limit])
