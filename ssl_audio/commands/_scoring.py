"""Options for scoring, normalising and calibrating, which `eval` and `evaluate` share."""

import argparse
from pathlib import Path
from typing import Any

from ssl_audio.errors import InputError


def add_resamples(parser: argparse.ArgumentParser, default: int, help: str) -> None:
    """The option `--resamples`, or `--draws` as in 0.1; its value is `args.draws`, the key in written files."""
    parser.add_argument("--resamples", dest="draws", type=int, default=default, metavar="N", help=help)
    parser.add_argument("--draws", type=int, default=argparse.SUPPRESS, help=argparse.SUPPRESS)


def add_scoring_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options for normalising and calibrating scores, which `eval` and `evaluate` share."""
    add = parser.add_argument
    add("--normalize_scores", choices=("z", "s", "as"), default=None,
        help="z-norm, s-norm or adaptive s-norm with a --cohort (default: plain cosines)")  # fmt: skip
    add("--cohort", type=Path, default=None, metavar="FOLDER", help="singer/**/file, of singers who are in no trial")
    add("--cohort_by", default="file", metavar="WHAT",
        help="cohort of each file, of the mean of each singer, or of clusters:N (file)")  # fmt: skip
    add("--cohort_top", type=int, default=300, metavar="N", help="closest of the cohort for adaptive s-norm (300)")
    add("--cohort_deviation", choices=("population", "unbiased"), default="population",
        help="deviation of the cohort scores: by n, or by n - 1 (population)")  # fmt: skip
    add("--center", type=Path, default=None, metavar="FOLDER",
        help="subtract the mean embedding of these recordings, of the training set (default: none)")  # fmt: skip
    add("--crops", type=int, default=None, metavar="N",
        help="score by the mean cosine over all pairs of N evenly placed crops (default: whole files)")  # fmt: skip
    add("--crop_seconds", type=float, default=4.0, metavar="S", help="length of a crop in seconds (4)")
    add("--calibrate", nargs="?", const="across", default=None, metavar="FOLDER",
        help="turn scores into log-likelihood ratios and report Cllr; the calibration is fitted on all pairs of "
        "FOLDER (other singers), or without FOLDER on the tested trials by cross-validation over singers")  # fmt: skip


def crops(args: argparse.Namespace) -> tuple[int, float] | None:
    """The crops of an `EvalProtocol`. Raises InputError for numbers that are out of range, and crops with a centre."""
    if args.crops is None:
        return None
    if args.crops < 1 or not args.crop_seconds > 0:
        raise InputError(f"--crops and --crop_seconds must be above 0, got {args.crops} and {args.crop_seconds:g}")
    if args.center is not None:
        raise InputError("--center subtracts from embeddings of whole recordings; leave --crops or --center out")
    return args.crops, args.crop_seconds


def scoring_options(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `load_backend` that `add_scoring_arguments` adds."""
    return {
        "normalize": args.normalize_scores, "cohort": args.cohort, "calibrate": args.calibrate, "seed": args.seed,
        "cohort_by": args.cohort_by, "top": args.cohort_top, "unbiased": args.cohort_deviation == "unbiased",
        "cosine": args.crops is None,
    }  # fmt: skip


def center_paths(args: argparse.Namespace) -> list[Path]:
    """The recordings of `--center`, each decoded once."""
    from ssl_audio.evaluation.recordings import check_readable, find_recordings

    if args.center is None:
        return []
    found = find_recordings(args.center)
    check_readable(found)
    return found.paths()
