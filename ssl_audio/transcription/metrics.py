"""Metrics of a transcription: average precision of frames, F1 of frames and of notes (`mir_eval`), per instrument.

Counts are summed over all pieces before the metrics are computed, so a long piece weighs more than a short one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.notes import Notes
from ssl_audio.errors import InputError

ONSET_TOLERANCE = 0.05  # seconds, mir_eval's default
OFFSET_RATIO = 0.2  # tolerance of an offset as a fraction of the note's length; at least 50 ms


@dataclass(frozen=True)
class Piece:
    """The notes of one recording and their transcription.

    Attributes:
        targets: (1 + instruments, frames, 128) bool, see `Notes.instrument_roll`.
        scores: (1 + instruments, frames, 128) probabilities.
        reference: the notes.
        estimate: the transcribed notes.
    """

    targets: np.ndarray
    scores: np.ndarray
    reference: Notes
    estimate: Notes


def evaluate_transcription(pieces: Sequence[Piece], instruments: Mapping[int, str], threshold: float) -> dict[str, Any]:
    """All metrics of the notes of all instruments together, and of each instrument.

    Args:
        pieces: at least one.
        instruments: {number: name} in the order of the rows of `targets`.
        threshold: probability above which a note sounds in a frame.

    Returns:
        A dictionary with the keys:

        - `frame_average_precision`.
        - `frame_chance`: fraction of cells in which a note sounds, which is the average precision of random scores.
        - `frame_precision`, `frame_recall`, `frame_f1`.
        - `note_precision`, `note_recall`, `note_f1`: notes with the onset within 50 ms.
        - `note_with_offset_precision`, `note_with_offset_recall`, `note_with_offset_f1`: with the offset, too.
        - `threshold`.
        - `instruments`: {name: the same metrics}, without instruments that never play.

    Raises:
        InputError: there are no pieces, or shapes differ.
    """
    if not pieces:
        raise InputError("there are no pieces to evaluate the transcription on; give recordings with notes")
    rows = 1 + len(instruments)
    for piece in pieces:
        if piece.targets.shape != piece.scores.shape or len(piece.targets) != rows:
            raise InputError(
                f"targets and scores must have {rows} rows and the same shape, got {piece.targets.shape} and "
                f"{piece.scores.shape}"
            )
    metrics: dict[str, Any] = _metrics(pieces, 0, None, threshold)
    metrics["threshold"] = threshold
    metrics["instruments"] = {
        name: _metrics(pieces, row, number, threshold)
        for row, (number, name) in enumerate(instruments.items(), 1)
        if any(piece.targets[row].any() for piece in pieces)
    }
    return metrics


def average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Average precision of all cells together (Thickstun et al., 2017).

    Args:
        targets: bool, any shape.
        scores: probabilities, the same shape.

    Returns:
        The average precision; NaN if no note sounds.
    """
    from sklearn.metrics import average_precision_score

    if not targets.any():
        return float("nan")
    return float(average_precision_score(targets.ravel(), scores.ravel().astype(np.float32)))


def best_threshold(targets: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the largest frame F1. Use validation recordings, not test recordings.

    Args:
        targets: bool, any shape.
        scores: probabilities, the same shape.
    """
    candidates = np.concatenate([np.geomspace(0.002, 0.05, 10), np.linspace(0.06, 0.98, 47)])
    values = [f1_of_counts(*frame_counts(targets, scores > t))[2] for t in candidates]
    return float(candidates[int(np.argmax(values))])


def frame_counts(targets: np.ndarray, sounding: np.ndarray) -> tuple[int, int, int]:
    """(correct, estimated, true) numbers of cells in which a note sounds."""
    return int((targets & sounding).sum()), int(sounding.sum()), int(targets.sum())


def note_counts(reference: Notes, estimate: Notes, offsets: bool) -> tuple[int, int, int]:
    """Match notes by `mir_eval.transcription.match_notes`: pitch within a quarter tone, onset within 50 ms.

    Args:
        reference: the notes.
        estimate: the transcribed notes.
        offsets: whether the offsets must match, too (within 20 % of the length or 50 ms).

    Returns:
        (matched, estimated, true) numbers of notes.
    """
    from mir_eval.transcription import match_notes
    from mir_eval.util import midi_to_hz

    if not len(reference) or not len(estimate):
        return 0, len(estimate), len(reference)
    both = [
        (np.stack([notes.onset, notes.offset], axis=1), midi_to_hz(notes.pitch.astype(float)))
        for notes in (reference, estimate)
    ]
    matched = match_notes(
        *both[0], *both[1], onset_tolerance=ONSET_TOLERANCE, offset_ratio=OFFSET_RATIO if offsets else None
    )
    return len(matched), len(estimate), len(reference)


def f1_of_counts(hits: int, estimated: int, true: int) -> tuple[float, float, float]:
    """(precision, recall, F1) from the numbers of correct, estimated and true items; 0 instead of 0 / 0."""
    precision, recall = hits / max(estimated, 1), hits / max(true, 1)
    return precision, recall, 2 * hits / max(estimated + true, 1)


def _metrics(pieces: Sequence[Piece], row: int, instrument: int | None, threshold: float) -> dict[str, float]:
    targets = np.concatenate([piece.targets[row] for piece in pieces])
    scores = np.concatenate([piece.scores[row] for piece in pieces])
    metrics = {"frame_average_precision": average_precision(targets, scores), "frame_chance": float(targets.mean())}
    counts = {"frame": frame_counts(targets, scores > threshold)}
    for name, offsets in (("note", False), ("note_with_offset", True)):
        each = [
            note_counts(only(piece.reference, instrument), only(piece.estimate, instrument), offsets)
            for piece in pieces
        ]
        counts[name] = tuple(np.sum(each, axis=0).tolist())
    for name, numbers in counts.items():
        metrics |= dict(zip((f"{name}_precision", f"{name}_recall", f"{name}_f1"), f1_of_counts(*numbers), strict=True))
    return metrics


def only(notes: Notes, instrument: int | None) -> Notes:
    """The notes of one instrument; for None, the notes of all instruments, with a note of several of them once."""
    if instrument is not None:
        kept = notes.instrument == instrument
        return Notes(notes.onset[kept], notes.offset[kept], notes.pitch[kept], notes.instrument[kept])
    rows = np.unique(np.stack([notes.onset, notes.offset, notes.pitch.astype(np.float64)], axis=1), axis=0)
    return Notes(rows[:, 0], rows[:, 1], rows[:, 2].astype(np.int64))
