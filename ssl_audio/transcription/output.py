"""Output of a transcription: MIDI files and images of piano rolls."""

import os

import numpy as np

from ssl_audio.data.corpora.musicnet import instrument_name
from ssl_audio.data.notes import Notes
from ssl_audio.errors import InputError
from ssl_audio.utils.files import write_atomically

_VELOCITY = 80  # of all notes, because the loudness is not estimated


def write_midi(notes: Notes, path: str | os.PathLike) -> None:
    """Write notes as a MIDI file with one track per instrument, atomically.

    Args:
        notes: instruments are General MIDI programs from 1; 0 (unknown) becomes a piano.
        path: the MIDI file.
    """
    import pretty_midi

    midi = pretty_midi.PrettyMIDI()
    for number in np.unique(notes.instrument).tolist():
        track = pretty_midi.Instrument(program=min(max(number - 1, 0), 127), name=instrument_name(number))
        own = notes.instrument == number
        for onset, offset, pitch in zip(notes.onset[own], notes.offset[own], notes.pitch[own], strict=True):
            # A note that begins and ends at one tick would sound until the next one of its pitch.
            begin = int(midi.time_to_tick(float(onset)))
            end = max(float(offset), midi.tick_to_time(begin + 1))
            track.notes.append(pretty_midi.Note(_VELOCITY, int(pitch), float(onset), end))
        midi.instruments.append(track)
    with write_atomically(path) as temporary:
        midi.write(os.fspath(temporary))


def write_image(probabilities: np.ndarray, frame_rate: float, notes: Notes, path: str | os.PathLike) -> None:
    """Draw a piano roll: the probabilities in grey, and the notes as bars with one colour per instrument.

    Args:
        probabilities: (frames, 128) probability of each note in each frame.
        frame_rate: frames per second.
        notes: the notes.
        path: the image; its suffix is the format.

    Raises:
        InputError: matplotlib cannot write this format.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    seconds = len(probabilities) / frame_rate
    low, high = (max(0, notes.pitch.min() - 3), min(127, notes.pitch.max() + 3)) if len(notes) else (21, 108)
    figure, axes = plt.subplots(figsize=(min(40, max(8, seconds / 2)), 5), layout="constrained")
    step = max(1, len(probabilities) // 8000)  # an image has at most about 8000 columns
    axes.imshow(
        probabilities[::step].T.astype(np.float32), aspect="auto", origin="lower", cmap="Greys", vmin=0, vmax=1,
        extent=(0, seconds, -0.5, 127.5), interpolation="nearest",
    )  # fmt: skip
    colors = plt.get_cmap("tab10")
    for i, number in enumerate(np.unique(notes.instrument).tolist()):
        own = notes.instrument == number
        axes.hlines(
            notes.pitch[own], notes.onset[own], notes.offset[own], colors=[colors(i % 10)], linewidth=3,
            label=instrument_name(number) if number else "notes",
        )  # fmt: skip
    if len(notes):
        axes.legend(loc="upper right", fontsize="small")
    axes.set(xlim=(0, seconds), ylim=(low - 0.5, high + 0.5), xlabel="seconds", ylabel="MIDI note")
    try:
        with write_atomically(path) as temporary:
            figure.savefig(temporary, dpi=100)
    except ValueError as error:
        raise InputError(f"{os.fspath(path)}: cannot be written ({error}); use .png, .svg or .pdf") from error
    finally:
        plt.close(figure)
