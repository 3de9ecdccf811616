"""From audio to notes: a head on the frames of one or several encoders (`model`), its training (`fit`), and what comes
out, MIDI and a picture (`output`).
"""

from ssl_audio.transcription.model import ConvHead, LinearHead, Transcriber, load_transcriber, save_transcriber

__all__ = ["ConvHead", "LinearHead", "Transcriber", "load_transcriber", "save_transcriber"]
