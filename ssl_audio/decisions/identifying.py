"""Who of a number of known people is heard, or none of them: open-set identification by posterior probabilities."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ssl_audio import audio
from ssl_audio.decisions.clustering import Voices
from ssl_audio.decisions.comparing import embed_clips
from ssl_audio.errors import InputError
from ssl_audio.evaluation.model_calibration import ModelCalibration
from ssl_audio.evaluation.recordings import find_recordings
from ssl_audio.model import EmbeddingModel
from ssl_audio.retrieval import Index

KINDS = ("mean", "best")
_ROWS = 1 << 8  # recordings that are compared with everybody at once


@dataclass(frozen=True)
class Candidate:
    """A person whom a recording may be of; `llr` and `probability` are None without a calibration."""

    person: str
    score: float
    llr: float | None
    probability: float | None


@dataclass(frozen=True)
class Identification:
    """A recording and who it may be.

    Attributes:
        path: of the recording.
        person: the decision; None for none of the enrolled people, or without a calibration.
        candidates: the most probable people, best first.
        none: probability that it is none of the enrolled people.
        false_alarm: share of the recordings of people who are not enrolled whose best candidate scores as high.
        warnings: sentences.
    """

    path: str
    person: str | None
    candidates: tuple[Candidate, ...]
    none: float | None
    false_alarm: float | None
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class Enrolled:
    """Known people.

    Attributes:
        people: (people,) names.
        voices: their recordings.
        owner: (recordings,) number of the person of each.
        digests: of the audio of the recordings; empty where it was not read.
        failed: (file, reason) of recordings that cannot be used.
    """

    people: list[str]
    voices: Voices
    owner: np.ndarray
    digests: frozenset[int]
    failed: list[tuple[Path, str]]

    @classmethod
    def of(cls, source: str | os.PathLike, model: EmbeddingModel, **embedding: Any) -> "Enrolled":
        """From a folder `person/**/file`, or an index that `ssl-audio index` made, whose groups are the people.

        Raises:
            InputError: nobody is enrolled, a person has no usable recording, or another model made the index.
        """
        if Path(source).is_file():
            index = Index.load(source)
            index.use(model)
            names, paths, values = index.groups, [Path(path) for path in index.paths], index.embeddings
            needs = model.calibration is not None and model.calibration.uses_length
            seconds = np.array([audio.info(path).seconds for path in paths]) if needs else np.zeros(len(paths))
            digests, failed = frozenset[int](), list[tuple[Path, str]]()
        else:
            recordings = find_recordings(source)
            names, paths = recordings.singers, recordings.paths()
            clips, values, bad = embed_clips(paths, model, **embedding)
            failed = [(paths[i], reason) for i, reason in sorted(bad.items())]
            lost = sorted(set(names) - {name for i, name in enumerate(names) if i not in bad})
            if lost:
                raise InputError(f"{source}: no recording of {lost[0]} can be used; repair it or remove the folder")
            kept = [i for i in range(len(paths)) if i not in bad]
            names, values = [names[i] for i in kept], values[kept]
            seconds = np.array([0.0 if (clip := clips[i]) is None else clip.seconds for i in kept])
            digests = frozenset(clip.digest for i in kept if (clip := clips[i]) is not None)
        if not names:
            raise InputError(f"{source}: nobody is enrolled; add a folder of recordings for each person")
        people, owner = np.unique(np.array(names), return_inverse=True)
        order = np.argsort(owner, kind="stable")
        voices = Voices.of(np.asarray(values)[order], seconds[order], model.calibration)
        return cls(people.tolist(), voices, owner[order], digests, failed)

    def compared(self, voices: Voices, kind: str) -> tuple[np.ndarray, np.ndarray]:
        """((recordings, people) scores, (recordings, people) log-likelihood ratios); without calibration both cosines.

        Args:
            voices: the recordings.
            kind: "mean" compares with all recordings of a person together, "best" takes the closest.
        """
        if kind == "mean":
            means = self.voices.means(self.owner)
            return voices.scores(means), voices.ratios(means)
        starts = np.searchsorted(self.owner, np.arange(len(self.people)))
        found = voices.scores(self.voices), voices.ratios(self.voices)
        return np.maximum.reduceat(found[0], starts, axis=1), np.maximum.reduceat(found[1], starts, axis=1)


def posteriors(ratios: np.ndarray, none: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Bayes for one of several people or none of them.

    Args:
        ratios: (recordings, people) natural log-likelihood ratios of each person against a person unknown.
        none: prior that it is nobody of these; the people share the rest equally.

    Returns:
        ((recordings, people) probabilities, (recordings,) probability of none); together 1.
    """
    joint = np.concatenate([ratios + np.log((1 - none) / ratios.shape[1]), np.full((len(ratios), 1), np.log(none))], 1)
    joint = np.exp(joint - joint.max(axis=1, keepdims=True))
    joint /= joint.sum(axis=1, keepdims=True)
    return joint[:, :-1], joint[:, -1]


def rate_of_one(false_alarm: float, people: int) -> float:
    """The false-accept rate of each comparison at which `people` of them give `false_alarm` together.

    1 - (1 - rate)^people = false_alarm, as if the comparisons were independent.
    """
    return float(-np.expm1(np.log1p(-false_alarm) / people))


def identify_files(
    paths: Sequence[Path],
    enrolled: Enrolled,
    model: EmbeddingModel,
    *,
    none: float = 0.5,
    false_alarm: float | None = None,
    top: int = 5,
    kind: str = "mean",
    **embedding: Any,
) -> tuple[list[Identification], list[tuple[Path, str]]]:
    """Identify recordings.

    Args:
        paths: the recordings.
        enrolled: the known people.
        model: with a calibration; without one only scores are given.
        none: prior that a recording is of nobody enrolled, between 0 and 1.
        false_alarm: decide so that this share of the recordings of people who are not enrolled is given a name; None
            takes the most probable, a person or none.
        top: number of candidates of each recording.
        kind: "mean" or "best", see `Enrolled.compared`.
        **embedding: `batch_size`, `device` of `embed_files`.

    Returns:
        The identifications, and the files that cannot be used, with why.

    Raises:
        InputError: a value out of its range, or a false-alarm rate that the calibration cannot tell.
    """
    calibration = model.calibration
    if not 0 < none < 1 or (false_alarm is not None and not 0 < false_alarm < 1) or top < 1:
        raise InputError("none and false_alarm must lie between 0 and 1, and top must be at least 1")
    if kind not in KINDS:
        raise InputError(f"unknown kind {kind!r}; choose one of {', '.join(KINDS)}")
    if false_alarm is not None:
        _check_rate(false_alarm, len(enrolled.people), calibration)
    clips, values, failed = embed_clips(paths, model, **embedding)
    kept = [i for i in range(len(paths)) if i not in failed]
    bad = [(paths[i], reason) for i, reason in sorted(failed.items())]
    if not kept:
        return [], bad
    seconds = np.array([0.0 if (clip := clips[i]) is None else clip.seconds for i in kept])
    voices = Voices.of(values[kept], seconds, calibration)
    found = []
    for first in range(0, len(kept), _ROWS):
        places = np.arange(first, min(first + _ROWS, len(kept)))
        for i, decided in zip(places, _decide(voices.at(places), enrolled, none, false_alarm, top, kind), strict=True):
            clip, path = clips[kept[i]], paths[kept[i]]
            warnings = [] if clip is None else clip.warnings(str(path), _shortest(calibration))
            if clip is not None and clip.digest in enrolled.digests:
                warnings.append(f"{path} is itself an enrolled recording")
            found.append(Identification(str(path), *decided, tuple(warnings)))
    return found, bad


def _check_rate(false_alarm: float, people: int, calibration: ModelCalibration | None) -> None:
    if calibration is None:
        raise InputError("a false-alarm rate needs a calibration; make one with ssl-audio calibrate")
    smallest = calibration.false_accepts.smallest
    if rate_of_one(false_alarm, people) < smallest * (1 - 1e-9):
        least = -np.expm1(people * np.log1p(-smallest))
        raise InputError(
            f"a false-alarm rate of {false_alarm:g} with {people} people needs false accepts of "
            f"{rate_of_one(false_alarm, people):.2g} a person, and this calibration can tell {smallest:.2g} or more; "
            f"ask for {np.ceil(100 * least) / 100:g} or more, or calibrate on more recordings"
        )


def _decide(
    voices: Voices, enrolled: Enrolled, none: float, false_alarm: float | None, top: int, kind: str
) -> list[tuple[str | None, tuple[Candidate, ...], float | None, float | None]]:
    """Person, candidates, probability of none and false-alarm rate of each recording."""
    calibration, people = voices.calibration, enrolled.people
    scores, ratios = (values.astype(np.float64) for values in enrolled.compared(voices, kind))
    best = np.argsort(-ratios, axis=1, kind="stable")[:, :top]
    if calibration is None:
        return [
            (None, tuple(Candidate(people[p], float(row[p]), None, None) for p in order), None, None)
            for row, order in zip(ratios, best, strict=True)
        ]
    probability, nobody = posteriors(ratios, none)
    first = best[:, 0]
    rows = np.arange(len(ratios))
    seconds = voices.seconds
    owners = enrolled.voices.means(enrolled.owner).seconds[first]
    rates = calibration.false_accept_rates(scores[rows, first], np.stack([seconds, owners], axis=1))
    alarms = -np.expm1(len(people) * np.log1p(-rates))
    if false_alarm is None:
        named = probability[rows, first] > nobody
    else:
        named = rates <= rate_of_one(false_alarm, len(people)) * (1 + 1e-9)
    return [
        (
            people[order[0]] if named[i] else None,
            tuple(
                Candidate(people[p], float(scores[i, p]), float(ratios[i, p]), float(probability[i, p])) for p in order
            ),
            float(nobody[i]),
            float(alarms[i]),
        )
        for i, order in enumerate(best.tolist())
    ]


def _shortest(calibration: ModelCalibration | None) -> float | None:
    return calibration.length_range[0] if calibration is not None and calibration.length_range[0] > 0 else None
