"""From embeddings to scores: cosines, normalised with a cohort and calibrated where that is asked for.

Both take other singers than those that are tested: a cohort shows what a chance score looks like, calibration trials
show which score means what odds. Without a second folder calibration is fitted across singers of the test set itself.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.calibration import cross_calibrate, fit_calibration
from ssl_audio.evaluation.normalization import KINDS, normalize_scores
from ssl_audio.evaluation.recordings import Recordings, check_readable, find_recordings
from ssl_audio.evaluation.scoring import score_trials
from ssl_audio.evaluation.trials import Trials, all_pairs, check_decidable

ACROSS_SINGERS = "across"  # `--calibrate` without a folder
MAX_TRIALS = 40_000  # that calibration is fitted on
NAMES = {None: "cosine", "z": "z-norm", "s": "s-norm", "as": "adaptive s-norm"}


@dataclass(frozen=True)
class Scorer:
    """Scores of one model.

    Attributes:
        normalization: None, "z", "s" or "as".
        cohort: (recordings, dim) embeddings of other singers, for normalisation.
        held_out: (embeddings (files, dim), trials) of other singers, that calibration is fitted on.
        across_singers: fit it on the tested trials, never on those of the singers it is used on.
        cohort_name, held_out_name: for the report.
    """

    normalization: str | None = None
    cohort: np.ndarray | None = None
    held_out: tuple[np.ndarray, Trials] | None = None
    across_singers: bool = False
    cohort_name: str = ""
    held_out_name: str = ""

    def __call__(self, embeddings: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """(trials,) scores of pairs of positions in `embeddings`."""
        if self.normalization is None:
            return score_trials(embeddings, pairs)
        assert self.cohort is not None
        return normalize_scores(embeddings, pairs, self.cohort, self.normalization)

    @property
    def name(self) -> str:
        """What a score is: cosine, s-norm, ..."""
        return NAMES[self.normalization]

    @property
    def calibrates(self) -> bool:
        return self.across_singers or self.held_out is not None

    def calibrate(self, trials: Trials, scores: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, float | str]]:
        """((trials,) log-likelihood ratios, the line to use elsewhere and what it was fitted on).

        Raises:
            InputError: see `fit_calibration` and `cross_calibrate`.
        """
        if self.held_out is not None:
            embeddings, others = self.held_out
            line, fitted_on = fit_calibration(others.labels, self(embeddings, others.pairs)), self.held_out_name
            ratios = line(scores)
        else:
            ratios = cross_calibrate(trials.labels, scores, trials.singer_codes()[0], seed)
            line, fitted_on = fit_calibration(trials.labels, scores), "other singers of this set"
        return ratios, {"calibrated_on": fitted_on, "calibration_scale": line.scale, "calibration_offset": line.offset}


@dataclass(frozen=True)
class Backend:
    """What turns embeddings into scores, before any model: `paths()` are embedded, then `scorer()` is ready."""

    normalization: str | None = None
    cohort: Recordings | None = None
    held_out: tuple[Recordings, Trials] | None = None
    across_singers: bool = False

    def paths(self) -> list[Path]:
        """Files that every model has to embed beside those that are tested."""
        return [path for part in self._parts() for path in part.paths()]

    def scorer(self, embeddings: np.ndarray) -> Scorer:
        """For the embeddings of `paths()`, (files, dim)."""
        split = len(self.cohort) if self.cohort is not None else 0
        cohort, name = (embeddings[:split], _words(self.cohort)) if self.cohort is not None else (None, "")
        held_out = (embeddings[split:], self.held_out[1]) if self.held_out is not None else None
        held_out_name = _words(self.held_out[0]) if self.held_out is not None else ""
        return Scorer(self.normalization, cohort, held_out, self.across_singers, name, held_out_name)

    def _parts(self) -> list[Recordings]:
        return [part for part in (self.cohort, self.held_out[0] if self.held_out else None) if part is not None]


def load_backend(
    tested: Sequence[Recordings],
    normalize: str | None = None,
    cohort: str | os.PathLike | None = None,
    calibrate: str | os.PathLike | None = None,
    seed: int = 0,
) -> Backend:
    """Check and read everything that scores need beside the test sets.

    Args:
        tested: the test sets, to refuse singers who are also in the cohort or among the calibration trials.
        normalize: "z", "s" or "as", with `cohort`, a folder of singer/**/file; None for cosines.
        calibrate: a folder of singer/**/file, all pairs of which are calibration trials; `ACROSS_SINGERS` fits across
            the singers of the test set; None does not calibrate.
        seed: of the pairs that are drawn where there are more than `MAX_TRIALS`.

    Raises:
        InputError: one without the other, a folder that cannot be used, or singers who are tested too.
    """
    if normalize is not None and normalize not in KINDS:
        raise InputError(f"no score normalisation {normalize!r}; there are {', '.join(KINDS)}")
    if normalize is not None and cohort is None:
        raise InputError(f"--normalize_scores {normalize} needs --cohort FOLDER, recordings of other singers")
    if normalize is None and cohort is not None:
        raise InputError("--cohort is used by --normalize_scores z, s or as; give both or neither")
    others, held_out = None, None
    if cohort is not None:
        others = find_recordings(cohort)
        if len(set(others.singers)) < 2:
            raise InputError(f"{cohort}: a cohort needs recordings of several singers, here is one")
        _check_apart(others, tested, "the cohort", "tested")
    if calibrate is not None and calibrate != ACROSS_SINGERS:
        found = find_recordings(calibrate)
        trials = all_pairs(found, MAX_TRIALS, seed)
        check_decidable(trials)
        _check_apart(found, tested, "the calibration", "tested")
        if others is not None:
            _check_apart(found, [others], "the calibration", "in the cohort")
        held_out = (found, trials)
    backend = Backend(normalize, others, held_out, calibrate == ACROSS_SINGERS)
    for part in backend._parts():
        check_readable(part)
    return backend


def _check_apart(part: Recordings, others: Sequence[Recordings], what: str, role: str) -> None:
    files = {path.resolve() for path in part.paths()}
    for other in others:
        shared = sorted(set(part.singers) & set(other.singers))
        if shared:
            raise InputError(
                f"{part.root}: singer {shared[0]} is also {role} ({other.root}); {what} must be of other singers "
                "(rename the folder if this is another person)"
            )
        twice = [path for path in other.paths() if path.resolve() in files]
        if twice:
            raise InputError(f"{part.root}: {twice[0]} is also {role}; {what} must be other recordings")


def _words(recordings: Recordings) -> str:
    """`cohort: 120 recordings of 10 singers`."""
    return f"{recordings.root.name}: {len(recordings)} recordings of {len(set(recordings.singers))} singers"
