"""Frontends: waveform `(batch, samples)` -> features, differentiable, on the device of the waveform.

- Mel frontends give `(batch, bands, frames)` with `1 + samples // hop_length` frames; Kaldi's filterbank gives complete
  frames only.
- `NnAudio` wraps any layer of nnAudio.
- `Waveform` returns the samples, for encoders of raw waveforms.
"""

from ssl_audio.frontends.base import Frontend, Waveform
from ssl_audio.frontends.kaldi import KALDI_FLOOR, KALDI_WINDOWS, KaldiFilterbank, kaldi_mel_bank, kaldi_window
from ssl_audio.frontends.mel import (
    EDGES,
    NORMALIZATIONS,
    DecibelMelSpectrogram,
    LogMelSpectrogram,
    MelSpectrogram,
    mel_bank,
)
from ssl_audio.frontends.nnaudio import NnAudio

__all__ = [
    "EDGES",
    "KALDI_FLOOR",
    "KALDI_WINDOWS",
    "NORMALIZATIONS",
    "DecibelMelSpectrogram",
    "Frontend",
    "KaldiFilterbank",
    "LogMelSpectrogram",
    "MelSpectrogram",
    "NnAudio",
    "Waveform",
    "kaldi_mel_bank",
    "kaldi_window",
    "mel_bank",
]
