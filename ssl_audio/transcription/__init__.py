"""Transcription of audio to notes.

- `model`: a head on the frames of one or several encoders.
- `fit`: training and evaluation of the head.
- `metrics`: metrics of a transcription.
- `output`: MIDI files and images of piano rolls.
"""

from ssl_audio.transcription.model import ConvHead, LinearHead, Transcriber, load_transcriber, save_transcriber

__all__ = ["ConvHead", "LinearHead", "Transcriber", "load_transcriber", "save_transcriber"]
