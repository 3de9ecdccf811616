"""Equal error rates of steps on people whom they were not fitted on, per collection, with paired intervals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ssl_audio.adaptation.chain import Chain, Step, fit
from ssl_audio.adaptation.data import Embedded, Voices
from ssl_audio.errors import InputError
from ssl_audio.evaluation.bootstrap import PairedTest, bootstrap_verification, paired_test, singer_multiplicities
from ssl_audio.evaluation.metrics import equal_error_rate

OVERALL = "overall"
RESAMPLES = 300
SPLITS = 2  # each halves the people; both halves are tested
TRIALS = 5000  # of different people, of one collection in one half, at most


@dataclass(frozen=True)
class Trial:
    """Trials of the recordings of one collection.

    Attributes:
        pairs: (trials, 2) places of recordings.
        labels: (trials,) bool, True for one person.
    """

    pairs: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Rates:
    """Equal error rates: `eer` and (resamples,) `resampled` of each collection and, as their mean, of `overall`."""

    eer: dict[str, float]
    resampled: dict[str, np.ndarray]

    def against(self, other: "Rates") -> dict[str, PairedTest]:
        """Paired test of each collection and of all: below 0, these rates are the better ones."""
        return {
            name: paired_test(self.eer[name], other.eer[name], self.resampled[name], other.resampled[name])
            for name in self.eer
        }


class Judge:
    """Trials between people left out: the people of each collection are halved, and each half is tested in turn.

    A collection takes part if four of its people or more have two recordings.

    Args:
        data: the recordings.
        seed: of halves, trials and resamples.

    Raises:
        InputError: no collection has enough people.
    """

    def __init__(self, data: Embedded, seed: int = 0) -> None:
        self.data, voices = data, data.voices
        rng = np.random.default_rng(seed)
        self.collections = judged_collections(voices)
        self.splits: list[tuple[np.ndarray, dict[int, Trial]]] = []
        for _ in range(SPLITS):
            half = _halves(voices, rng)
            for side in (False, True):
                trials = {
                    one: draw_trials(voices, np.flatnonzero((half != side) & (voices.collection == one)), rng)
                    for one in self.collections
                }
                self.splits.append((np.flatnonzero(half == side), trials))
        self.times = {one: singer_multiplicities(voices.people_in(one), RESAMPLES, seed) for one in self.collections}

    def rates(self, steps: Sequence[Step]) -> Rates:
        """The rates of steps, each time fitted on the other half of the people."""
        chains = [fit(steps, self.data, places) for places, _ in self.splits]
        return rates(
            self.data,
            self.collections,
            [(chain, trials) for chain, (_, trials) in zip(chains, self.splits, strict=True)],
            self.times,
        )

    def left_out_scores(self, steps: Sequence[Step]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """((trials, 2) places, (trials,) labels, (trials,) scores) of the first halving, by fits on the other half."""
        pairs, labels, scores = [], [], []
        for places, trials in self.splits[:2]:
            chain = fit(steps, self.data, places)
            rows, scorer = chain.rows(self.data), chain.scorer()
            for trial in trials.values():
                pairs.append(trial.pairs)
                labels.append(trial.labels)
                scores.append(np.asarray(scorer(rows, trial.pairs), np.float64))
        return np.concatenate(pairs), np.concatenate(labels), np.concatenate(scores)


def rates(
    data: Embedded,
    collections: Sequence[int],
    tested: Sequence[tuple[Chain, dict[int, Trial]]],
    times: dict[int, np.ndarray],
) -> Rates:
    """Rates of fitted chains on trials; of several tests of a collection, the mean."""
    voices, eer, resampled = data.voices, {}, {}
    embedded = [(chain.rows(data), chain.scorer()) for chain, _ in tested]
    for one in collections:
        number = np.unique(voices.people[voices.collection == one])
        found, drawn = [], []
        for (rows, scorer), (_, trials) in zip(embedded, tested, strict=True):
            trial = trials[one]
            scores = scorer(rows, trial.pairs)
            people = np.searchsorted(number, voices.people[trial.pairs])
            found.append(equal_error_rate(trial.labels, scores)[0])
            drawn.append(bootstrap_verification(trial.labels, scores, people, times[one])["eer"])
        eer[voices.names[one]] = float(np.mean(found))
        resampled[voices.names[one]] = _mean(drawn)
    eer[OVERALL] = float(np.mean(list(eer.values())))
    resampled[OVERALL] = _mean(list(resampled.values()))
    return Rates(eer, resampled)


def verified(data: Embedded, chains: Sequence[Chain], seed: int = 0) -> list[Rates]:
    """Rates of fitted chains on all pairs of other recordings."""
    voices, rng = data.voices, np.random.default_rng(seed)
    collections = judged_collections(voices)
    trials = {one: draw_trials(voices, np.flatnonzero(voices.collection == one), rng) for one in collections}
    times = {one: singer_multiplicities(voices.people_in(one), RESAMPLES, seed) for one in collections}
    return [rates(data, collections, [(chain, trials)], times) for chain in chains]


def draw_trials(voices: Voices, places: np.ndarray, rng: np.random.Generator) -> Trial:
    """All pairs of one person in two takes, and pairs of different people, of which at most `TRIALS` are drawn."""
    a, b = (places[side] for side in np.triu_indices(len(places), 1))
    same = voices.people[a] == voices.people[b]
    positive = np.flatnonzero(same & (voices.takes[a] != voices.takes[b]))
    negative = np.flatnonzero(~same)
    if len(negative) > TRIALS:
        negative = rng.choice(negative, TRIALS, replace=False)
    chosen = np.sort(np.r_[positive, negative])
    return Trial(np.stack([a[chosen], b[chosen]], axis=1), same[chosen])


def paired_people(voices: Voices, collection: int) -> np.ndarray:
    """Numbers of the people of a collection who have two takes or more."""
    here = voices.collection == collection
    both = np.unique(np.stack([voices.people[here], voices.takes[here]]), axis=1)[0]
    people, counts = np.unique(both, return_counts=True)
    return people[counts > 1]


def judged_collections(voices: Voices) -> list[int]:
    """Numbers of the collections in which people can be left out.

    Raises:
        InputError: there is none.
    """
    if len(np.unique(voices.people)) < 2:
        raise InputError("all recordings are of one person; give two people or more, each in a folder of their own")
    paired = [len(paired_people(voices, one)) for one in range(len(voices.names))]
    found = [one for one, count in enumerate(paired) if count >= 4]
    if not found and max(paired) == 0:
        raise InputError("every person has one recording only; give people with two recordings or more")
    if not found:
        raise InputError(
            f"{max(paired)} people of a collection have two recordings; leaving people out needs 4 or more of them in "
            "one collection; add recordings, or use --groups none"
        )
    return found


def _halves(voices: Voices, rng: np.random.Generator) -> np.ndarray:
    """(recordings,) bool: in which half the person is. People with several takes are halved apart from the others."""
    first: list[int] = []
    for one in range(len(voices.names)):
        paired = paired_people(voices, one)
        others = np.setdiff1d(np.unique(voices.people[voices.collection == one]), paired)
        for number, group in enumerate((paired, others)):
            shuffled = rng.permutation(group)
            first += shuffled[: (len(group) + number) // 2].tolist()
    return np.isin(voices.people, first)


def _mean(drawn: Sequence[np.ndarray]) -> np.ndarray:
    """The mean of resamples; NaN where one of them is."""
    return np.mean(np.stack(drawn), axis=0)
