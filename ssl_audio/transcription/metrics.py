"""How well notes were found: average precision of the frames, F1 of frames and of notes (`mir_eval`), per instrument.

Counts are pooled over pieces, so that a long piece weighs more than a short one and a silent one does no harm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ssl_audio.data.notes import Notes
from ssl_audio.errors import InputError

ONSET_TOLERANCE = 0.05  # seconds, mir_eval's default
OFFSET_RATIO = 0.2  # an offset may be off by this share of the note, and 50 ms in any case


@dataclass(frozen=True)
class Piece:
    """One recording, as it is and as it was transcribed.

    Attributes:
        targets: (1 + instruments, frames, 128) bool, see `Notes.instrument_roll`.
        scores: the same shape, probabilities.
        reference, estimate: notes.
    """

    targets: np.ndarray
    scores: np.ndarray
    reference: Notes
    estimate: Notes


def evaluate_transcription(pieces: Sequence[Piece], instruments: Mapping[int, str], threshold: float) -> dict[str, Any]:
    """All figures: of the notes whoever plays them, and per instrument.

    Args:
        instruments: {number: name} in the order of the rows of `targets`.
        threshold: above which a frame's score says that a note sounds.

    Returns:
        {"frame_average_precision", "frame_chance" (the share of cells that sound: the average precision of noise),
        "frame_precision", "frame_recall", "frame_f1", "note_precision", "note_recall", "note_f1" (onset within 50 ms),
        "note_with_offset_...", "instruments": {name: the same}}. An instrument that never plays has no figures.

    Raises:
        InputError: no pieces, or shapes that differ.
    """
    if not pieces:
        raise InputError("there are no pieces to evaluate a transcription on")
    rows = 1 + len(instruments)
    for piece in pieces:
        if piece.targets.shape != piece.scores.shape or len(piece.targets) != rows:
            raise InputError(
                f"{rows} rolls of targets and scores must fit: {piece.targets.shape}, {piece.scores.shape}"
            )
    figures: dict[str, Any] = _figures(pieces, 0, None, threshold)
    figures["threshold"] = threshold
    figures["instruments"] = {
        name: _figures(pieces, row, number, threshold)
        for row, (number, name) in enumerate(instruments.items(), 1)
        if any(piece.targets[row].any() for piece in pieces)
    }
    return figures


def average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """Of all cells together (Thickstun et al., 2017); NaN if nothing sounds."""
    from sklearn.metrics import average_precision_score

    if not targets.any():
        return float("nan")
    return float(average_precision_score(targets.ravel(), scores.ravel().astype(np.float32)))


def best_threshold(targets: np.ndarray, scores: np.ndarray) -> float:
    """The threshold with the largest frame F1; on validation recordings, never on test."""
    candidates = np.concatenate([np.geomspace(0.002, 0.05, 10), np.linspace(0.06, 0.98, 47)])
    values = [f1_of_counts(*frame_counts(targets, scores > t))[2] for t in candidates]
    return float(candidates[int(np.argmax(values))])


def frame_counts(targets: np.ndarray, sounding: np.ndarray) -> tuple[int, int, int]:
    """(hits, estimated, true) cells."""
    return int((targets & sounding).sum()), int(sounding.sum()), int(targets.sum())


def note_counts(reference: Notes, estimate: Notes, offsets: bool) -> tuple[int, int, int]:
    """(matched, estimated, true) notes: pitch within a quarter tone, onset within 50 ms, `offsets` too if asked for.

    The largest matching of both sets, by `mir_eval.transcription.match_notes`.
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
    """(precision, recall, F1); 0 where nothing was estimated or nothing is there."""
    precision, recall = hits / max(estimated, 1), hits / max(true, 1)
    return precision, recall, 2 * hits / max(estimated + true, 1)


def _figures(pieces: Sequence[Piece], row: int, instrument: int | None, threshold: float) -> dict[str, float]:
    targets = np.concatenate([piece.targets[row] for piece in pieces])
    scores = np.concatenate([piece.scores[row] for piece in pieces])
    figures = {"frame_average_precision": average_precision(targets, scores), "frame_chance": float(targets.mean())}
    counts = {"frame": frame_counts(targets, scores > threshold)}
    for name, offsets in (("note", False), ("note_with_offset", True)):
        each = [
            note_counts(only(piece.reference, instrument), only(piece.estimate, instrument), offsets)
            for piece in pieces
        ]
        counts[name] = tuple(np.sum(each, axis=0).tolist())
    for name, of_it in counts.items():
        figures |= dict(zip((f"{name}_precision", f"{name}_recall", f"{name}_f1"), f1_of_counts(*of_it), strict=True))
    return figures


def only(notes: Notes, instrument: int | None) -> Notes:
    """The notes of one instrument; of all for None, unisons once."""
    if instrument is not None:
        kept = notes.instrument == instrument
        return Notes(notes.onset[kept], notes.offset[kept], notes.pitch[kept], notes.instrument[kept])
    rows = np.unique(np.stack([notes.onset, notes.offset, notes.pitch.astype(np.float64)], axis=1), axis=0)
    return Notes(rows[:, 0], rows[:, 1], rows[:, 2].astype(np.int64))
