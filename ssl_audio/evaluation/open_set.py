"""How well people are identified when some recordings are of nobody who is enrolled.

Rates as in NIST's evaluations of open-set identification: the false-negative identification rate (here: one minus the
identification rate) of recordings of enrolled people, and the false-alarm rate of recordings of others.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ssl_audio.evaluation.bootstrap import bootstrap_mean, percentile_interval, singer_multiplicities

RESAMPLES = 1000


def open_set_metrics(
    speakers: Sequence[str],
    enrolled: Sequence[str],
    first: Sequence[str],
    decided: Sequence[str | None],
    strength: Sequence[float],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Rates over recordings, with 95 % intervals over people.

    Args:
        speakers: (recordings,) who speaks.
        enrolled: the enrolled people.
        first: (recordings,) the best candidate of each.
        decided: (recordings,) who was named; None for nobody.
        strength: (recordings,) of the best candidate, comparable between recordings; for the curve.
        resamples, seed: of the people.

    Returns:
        `identified`, the share of recordings of enrolled people who are named; `rank_1`, the share whose best candidate
        is right, whatever was decided; `false_alarm`, the share of recordings of others that are given a name; each
        with `*_interval` where several people speak, and None where nobody does. `det`: `false_alarm` and `missed` at
        every threshold of `strength`, ascending in false alarms; both empty where one kind is absent.
    """
    known = np.isin(np.asarray(speakers), np.asarray(list(enrolled)))
    right = np.array([a == b for a, b in zip(speakers, first, strict=True)])
    named = np.array([one is not None for one in decided])
    correct = np.array([a == b for a, b in zip(speakers, decided, strict=True)])
    people, number = np.unique(np.asarray(speakers), return_inverse=True)
    found: dict[str, Any] = {"recordings": len(known), "recordings_of_enrolled": int(known.sum())}
    for name, values, here in (
        ("identified", correct, known), ("rank_1", right, known), ("false_alarm", named, ~known)
    ):  # fmt: skip
        found[name] = float(values[here].mean()) if here.any() else None
        there, codes = np.unique(number[here], return_inverse=True)
        found[f"{name}_interval"] = None
        if len(there) > 1 and resamples:
            times = singer_multiplicities(len(there), resamples, seed)
            found[f"{name}_interval"] = percentile_interval(bootstrap_mean(values[here], codes, times))
    found["people"] = len(people)
    found["det"] = _det(np.asarray(strength, dtype=np.float64), known, right)
    return found


def _det(strength: np.ndarray, known: np.ndarray, right: np.ndarray) -> dict[str, list[float]]:
    if known.all() or not known.any():
        return {"false_alarm": [], "missed": []}
    thresholds = np.unique(strength)[::-1]
    alarms, hits = np.sort(strength[~known]), np.sort(strength[known & right])
    reached = [len(values) - np.searchsorted(values, thresholds) for values in (alarms, hits)]
    return {
        "false_alarm": (reached[0] / (~known).sum()).tolist(),
        "missed": (1 - reached[1] / known.sum()).tolist(),
    }
