"""Notes as intervals, and the piano roll of any window, by sorted arrays and binary search."""

from collections.abc import Sequence

import numpy as np

from ssl_audio.errors import InputError

PITCHES = 128
"""MIDI note numbers 0 to 127."""


class Notes:
    """The notes of one recording, sorted by onset.

    Args:
        onset, offset: (notes,) seconds; a note sounds in [onset, offset).
        pitch: (notes,) MIDI note number, 0 to 127.
        instrument: (notes,) any numbers (MusicNet: General MIDI programme from 1); None: all 0.

    Raises:
        InputError: arrays of unequal length, a note that ends before it begins, a pitch outside of 0 to 127.
    """

    def __init__(
        self,
        onset: Sequence[float] | np.ndarray,
        offset: Sequence[float] | np.ndarray,
        pitch: Sequence[int] | np.ndarray,
        instrument: Sequence[int] | np.ndarray | None = None,
    ) -> None:
        onset, offset = np.asarray(onset, np.float64), np.asarray(offset, np.float64)
        pitch = np.asarray(pitch, np.int64)
        instrument = np.zeros(len(onset), np.int64) if instrument is None else np.asarray(instrument, np.int64)
        if not onset.shape == offset.shape == pitch.shape == instrument.shape or onset.ndim != 1:
            shapes = f"{onset.shape}, {offset.shape}, {pitch.shape}, {instrument.shape}"
            raise InputError(f"onsets, offsets, pitches and instruments of notes must fit, got {shapes}")
        if not (np.isfinite(onset).all() and np.isfinite(offset).all() and (onset < offset).all()):
            bad = int(np.argmin(np.isfinite(onset) & np.isfinite(offset) & (onset < offset)))
            raise InputError(f"note {bad + 1} begins at {onset[bad]:g} s and ends at {offset[bad]:g} s")
        if ((pitch < 0) | (pitch >= PITCHES)).any():
            raise InputError(f"a note has the pitch {pitch[(pitch < 0) | (pitch >= PITCHES)][0]}; MIDI has 0 to 127")
        order = np.lexsort((instrument, pitch, offset, onset))
        self.onset, self.offset = onset[order], offset[order]
        self.pitch, self.instrument = pitch[order], instrument[order]
        self._latest = np.maximum.accumulate(self.offset)  # sorted, which the offsets themselves need not be

    def __len__(self) -> int:
        return len(self.onset)

    def between(self, start: float, end: float) -> np.ndarray:
        """Positions of the notes that sound anywhere in [start, end), seconds, in order of onset."""
        first = int(np.searchsorted(self._latest, start, side="right"))
        last = int(np.searchsorted(self.onset, end, side="left"))
        return first + np.flatnonzero(self.offset[first:last] > start)

    def roll(self, start: float, frames: int, frame_rate: float) -> np.ndarray:
        """`(frames, 128)` bool: the pitches that sound at the middle of each frame, on any instrument.

        Args:
            start: of the first frame, seconds.
            frame_rate: frames a second; frame f lies from `start + f / frame_rate` to `start + (f + 1) / frame_rate`.
        """
        found, first, last = self._frames(start, frames, frame_rate)
        roll = np.zeros((frames, PITCHES), bool)
        for a, b, pitch in zip(first, last, self.pitch[found].tolist(), strict=True):
            roll[a:b, pitch] = True
        return roll

    def instrument_roll(self, start: float, frames: int, frame_rate: float, instruments: Sequence[int]) -> np.ndarray:
        """`(1 + instruments, frames, 128)` bool: row 0 is `roll`, the others are the rolls of each instrument."""
        found, first, last = self._frames(start, frames, frame_rate)
        row = {instrument: i for i, instrument in enumerate(instruments, 1)}
        roll = np.zeros((1 + len(instruments), frames, PITCHES), bool)
        notes = zip(first, last, self.pitch[found].tolist(), self.instrument[found].tolist(), strict=True)
        for a, b, pitch, instrument in notes:
            roll[0, a:b, pitch] = True
            if instrument in row:
                roll[row[instrument], a:b, pitch] = True
        return roll

    def _frames(self, start: float, frames: int, frame_rate: float) -> tuple[np.ndarray, list[int], list[int]]:
        """Positions of the notes, and for each the range of frames whose middles it covers."""
        found = self.between(start, start + frames / frame_rate)
        first = _first_middle_from(self.onset[found] - start, frame_rate)
        last = _first_middle_from(self.offset[found] - start, frame_rate)
        return found, np.maximum(first, 0).tolist(), np.minimum(last, frames).tolist()


def _first_middle_from(seconds: np.ndarray, frame_rate: float) -> np.ndarray:
    """The first frame whose middle is at or after a time, up to rounding errors of a billionth of a frame."""
    return np.ceil(seconds * frame_rate - 0.5 - 1e-9).astype(np.int64)


def notes_of_roll(
    probabilities: np.ndarray,
    frame_rate: float,
    threshold: float = 0.5,
    min_seconds: float = 0.0,
    instrument: int | Sequence[int] | None = None,
    by_instrument: np.ndarray | None = None,
) -> Notes:
    """Notes from a piano roll: each run of frames above the threshold is a note.

    Args:
        probabilities: (frames, 128).
        min_seconds: shorter runs are dropped.
        instrument: of all notes; with `by_instrument`, the numbers of its rows.
        by_instrument: (instruments, frames, 128) probabilities; a note gets the instrument with the largest mean
            over its frames.
    """
    frames, pitches = probabilities.shape
    sounding = np.zeros((pitches, frames + 2), np.int8)
    sounding[:, 1:-1] = (probabilities > threshold).T
    change = np.diff(sounding, axis=1)
    pitch, first = np.nonzero(change == 1)
    _, last = np.nonzero(change == -1)  # the same order: by pitch, then by time
    kept = (last - first) / frame_rate >= min_seconds - 1e-9
    pitch, first, last = pitch[kept], first[kept], last[kept]
    if by_instrument is None:
        numbers = np.full(len(pitch), 0 if instrument is None else instrument, np.int64)
    else:
        of_row = np.asarray(instrument, np.int64)
        means = [by_instrument[:, a:b, p].mean(axis=1) for a, b, p in zip(first, last, pitch, strict=True)]
        numbers = of_row[np.argmax(means, axis=1)] if means else np.empty(0, np.int64)
    return Notes(first / frame_rate, last / frame_rate, pitch, numbers)
