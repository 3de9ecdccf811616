"""From embeddings to scores: cosines, optionally normalised with a cohort, optionally calibrated.

Both options need recordings of singers who are not tested. A cohort shows which scores different singers get by chance.
Calibration trials show which odds a score stands for. Without calibration trials, calibration is fitted across the
singers of the test set.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ssl_audio.errors import InputError
from ssl_audio.evaluation.calibration import cross_calibrate, fit_calibration
from ssl_audio.evaluation.normalization import KINDS, normalize_scores, parse_cohort, reduce_cohort
from ssl_audio.evaluation.recordings import Recordings, check_readable, find_recordings
from ssl_audio.evaluation.scoring import score_trials
from ssl_audio.evaluation.trials import Trials, all_pairs, check_decidable

ACROSS_SINGERS = "across"  # the value of `--calibrate` without a folder
MAX_TRIALS = 40_000  # trials that calibration is fitted on, at most
NAMES = {None: "cosine", "z": "z-norm", "s": "s-norm", "as": "adaptive s-norm"}


@dataclass(frozen=True)
class Scorer:
    """Computes the scores of trials for one model.

    Attributes:
        normalization: None, "z", "s" or "as".
        cohort: (recordings, dim) embeddings of the cohort; None without normalisation.
        held_out: calibration trials of other singers: their embeddings (files, dim) and the trials; or None.
        across_singers: fit the calibration on the tested trials, singer by singer (see `cross_calibrate`).
        cohort_name: description of the cohort for the report.
        held_out_name: description of the calibration trials for the report.
        top, unbiased: see `normalize_scores`.
        cosine: see `score_trials`.
    """

    normalization: str | None = None
    cohort: np.ndarray | None = None
    held_out: tuple[np.ndarray, Trials] | None = None
    across_singers: bool = False
    cohort_name: str = ""
    held_out_name: str = ""
    top: int = 300
    unbiased: bool = False
    cosine: bool = True

    def __call__(self, embeddings: np.ndarray, pairs: np.ndarray) -> np.ndarray:
        """Score trials.

        Args:
            embeddings: (files, dim).
            pairs: (trials, 2) positions in `embeddings`.

        Returns:
            (trials,).
        """
        if self.normalization is None:
            return score_trials(embeddings, pairs, self.cosine)
        assert self.cohort is not None
        return normalize_scores(
            embeddings, pairs, self.cohort, self.normalization, self.top, self.unbiased, self.cosine
        )

    @property
    def name(self) -> str:
        """The kind of score: cosine, z-norm, s-norm or adaptive s-norm; with "of crops" if it is a mean over crops."""
        return NAMES[self.normalization] + ("" if self.cosine else " of crops")

    @property
    def calibrates(self) -> bool:
        """Whether `calibrate` has what it needs."""
        return self.across_singers or self.held_out is not None

    def calibrate(self, trials: Trials, scores: np.ndarray, seed: int) -> tuple[np.ndarray, dict[str, float | str]]:
        """Turn scores into log-likelihood ratios.

        Args:
            trials: the tested trials.
            scores: (trials,) their scores.
            seed: of the folds over singers.

        Returns:
            (ratios (trials,), {"calibrated_on", "calibration_scale", "calibration_offset"}). The scale and the offset
            are what to apply to scores of other recordings.

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
    """The recordings that scoring needs in addition to the test set.

    First embed the files of `paths()` with a model. Then `scorer(embeddings)` gives the `Scorer` of this model.

    Attributes:
        normalization: see `Scorer`.
        cohort: recordings of the cohort, or None.
        held_out: recordings and calibration trials, or None.
        across_singers, top, unbiased, cosine: see `Scorer`.
        cohort_by: see `reduce_cohort`.
        seed: of the clusters of a cohort.
    """

    normalization: str | None = None
    cohort: Recordings | None = None
    held_out: tuple[Recordings, Trials] | None = None
    across_singers: bool = False
    cohort_by: str = "file"
    top: int = 300
    unbiased: bool = False
    cosine: bool = True
    seed: int = 0

    def paths(self) -> list[Path]:
        """Files that every model has to embed in addition to the test set."""
        return [path for part in self.parts() for path in part.paths()]

    def calibration_part(self, embeddings: np.ndarray) -> tuple[np.ndarray, Trials]:
        """(embeddings of the calibration recordings, their trials), of the (files, dim) embeddings of `paths()`."""
        assert self.held_out is not None
        return embeddings[len(embeddings) - len(self.held_out[0]) :], self.held_out[1]

    def scorer(self, embeddings: np.ndarray) -> Scorer:
        """The scorer of the model that made `embeddings`, the (files, dim) embeddings of `paths()`."""
        split = len(self.cohort) if self.cohort is not None else 0
        cohort, name = None, ""
        if self.cohort is not None:
            cohort = reduce_cohort(embeddings[:split], self.cohort_by, self.cohort.singers, self.seed)
            name = _describe(self.cohort) + ("" if self.cohort_by == "file" else f", {len(cohort)} means")
        held_out = (embeddings[split:], self.held_out[1]) if self.held_out is not None else None
        held_out_name = _describe(self.held_out[0]) if self.held_out is not None else ""
        return Scorer(
            self.normalization, cohort, held_out, self.across_singers, name, held_out_name, self.top, self.unbiased,
            self.cosine,
        )  # fmt: skip

    def parts(self) -> list[Recordings]:
        """The cohort and the calibration recordings, as far as there are any."""
        return [part for part in (self.cohort, self.held_out[0] if self.held_out else None) if part is not None]


def load_backend(
    tested: Sequence[Recordings],
    normalize: str | None = None,
    cohort: str | os.PathLike | None = None,
    calibrate: str | os.PathLike | None = None,
    seed: int = 0,
    cohort_by: str = "file",
    top: int = 300,
    unbiased: bool = False,
    cosine: bool = True,
) -> Backend:
    """Read and check the cohort and the calibration recordings.

    Args:
        tested: the test sets; their singers must not be in the cohort or in the calibration trials.
        normalize: "z", "s" or "as", together with `cohort`; None keeps cosines.
        cohort: folder `singer/**/file`.
        calibrate: folder `singer/**/file`, whose pairs are the calibration trials; `ACROSS_SINGERS` to fit across the
            singers of the test set; None for no calibration.
        seed: of the calibration trials that are drawn if there are more than `MAX_TRIALS` pairs, and of clusters.
        cohort_by: see `reduce_cohort`.
        top, unbiased, cosine: see `Scorer`.

    Raises:
        InputError: `normalize` without `cohort` or the reverse; a folder that cannot be used; singers who are also
            tested.
    """
    if normalize is not None and normalize not in KINDS:
        raise InputError(f"unknown score normalisation {normalize!r}; choose one of {', '.join(KINDS)}")
    if normalize is not None and cohort is None:
        raise InputError(f"--normalize_scores {normalize} needs --cohort FOLDER, recordings of other singers")
    if normalize is None and cohort is not None:
        raise InputError("--cohort needs --normalize_scores z, s or as; give both or neither")
    parse_cohort(cohort_by)
    if top < 2:
        raise InputError(f"--cohort_top must be at least 2, got {top}")
    others, held_out = None, None
    if cohort is not None:
        others = find_recordings(cohort)
        if len(set(others.singers)) < 2:
            raise InputError(f"{cohort}: holds recordings of one singer; a cohort needs several singers")
        _check_apart(others, tested, "the cohort", "tested")
    if calibrate is not None and calibrate != ACROSS_SINGERS:
        found = find_recordings(calibrate)
        trials = all_pairs(found, MAX_TRIALS, seed)
        check_decidable(trials)
        _check_apart(found, tested, "the calibration", "tested")
        if others is not None:
            _check_apart(found, [others], "the calibration", "in the cohort")
        held_out = (found, trials)
    backend = Backend(normalize, others, held_out, calibrate == ACROSS_SINGERS, cohort_by, top, unbiased, cosine, seed)
    for part in backend.parts():
        check_readable(part)
    return backend


def _check_apart(part: Recordings, others: Sequence[Recordings], what: str, role: str) -> None:
    """Raise InputError if a singer or a file of `part` is also in one of the others."""
    files = {path.resolve() for path in part.paths()}
    for other in others:
        shared = sorted(set(part.singers) & set(other.singers))
        if shared:
            raise InputError(
                f"{part.root}: singer {shared[0]} is also {role} ({other.root}); {what} needs other singers "
                "(if this is another person of the same name, rename the folder)"
            )
        twice = [path for path in other.paths() if path.resolve() in files]
        if twice:
            raise InputError(f"{part.root}: {twice[0]} is also {role}; {what} needs other recordings")


def _describe(recordings: Recordings) -> str:
    """`120 recordings of 10 singers (cohort)`; the folder is in parentheses."""
    return f"{len(recordings)} recordings of {len(set(recordings.singers))} singers ({recordings.root.name})"
