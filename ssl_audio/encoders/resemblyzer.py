"""The speaker encoder of the package Resemblyzer 0.1.4. Only its weights are read; the package is never imported.

The network is a three-layer LSTM on 1.6 s of mel spectrum. It was trained with the GE2E loss (Wan et al., 2018,
https://arxiv.org/abs/1710.10467) on LibriSpeech and VoxCeleb. Licence of package and weights: Apache-2.0.
"""

from importlib import import_module
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.encoders.clips import ClipEncoder, at_least
from ssl_audio.errors import InputError
from ssl_audio.frontends import MelSpectrogram
from ssl_audio.weights import read_weights

SAMPLE_RATE, HOP = 16000, 160  # Hz, samples
PARTIAL, STEP = 160, 77  # frames of a partial, and round(16000 / 1.3 / 160) frames between the starts of two
LEAST_COVERED = 120  # frames; a partial of which the clip covers fewer is left out
TRIMS = ("none", "webrtc")


class Resemblyzer(ClipEncoder):
    """Waveforms at 16 kHz -> `(batch, 256)` of unit length, not negative: the mean over partials (windows) of 1.6 s.

    The embedding depends on the level: the cosine between a clip and the same clip twice as loud is about .93. The
    preprocessing of the package raises soft clips to -30 dBFS and removes silence. Here it is off by default;
    `Resemblyzer(level=-30, trim="webrtc")` turns it on.

    Args:
        level: level in dBFS to which the root mean square of softer clips is raised, before `trim`. Louder clips do not
            change. None: no clip changes.
        trim: `webrtc` removes long silences, as the package does (needs `pip install webrtcvad-wheels`). A clip without
            any speech does not change. Trimmed clips have different lengths, so each gets its own forward pass.
        short, batched: see `ClipEncoder`.
    """

    dim = 256
    shortest = 400  # one window of the mel spectrum; shorter clips than 1.6 s are padded with zeros, as in the package

    def __init__(
        self, level: float | None = None, trim: str = "none", short: str = "refuse", batched: bool = True
    ) -> None:
        super().__init__(short, batched)
        if level is not None and not -120 <= level <= 0:
            raise InputError(f"level is {level}; it must be none, or dBFS from -120 to 0, such as -30")
        if trim not in TRIMS:
            raise InputError(f"trim is {trim!r}; it must be one of {', '.join(TRIMS)}")
        self.level = level
        self.trim = trim
        if trim == "webrtc":
            _webrtc()
        self.mel = MelSpectrogram(SAMPLE_RATE, 400, HOP, 40, edges="zeros")
        self.lstm = nn.LSTM(40, 256, num_layers=3, batch_first=True)
        self.linear = nn.Linear(256, 256)

    def vectors(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, 256)`."""
        if self.level is not None:
            clips = raised(clips, self.level)
        if self.trim == "none":
            return self._utterances(clips)
        return torch.cat([self._utterances(without_silence(clip).unsqueeze(0)) for clip in clips])

    def _utterances(self, clips: Tensor) -> Tensor:
        partials = self.partials(clips)
        return F.normalize(partials.mean(dim=1), dim=1)

    def partials(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, partials, 256)`, each of unit length."""
        samples = clips.shape[1]
        # The package starts a partial every STEP frames. It drops the last one if the clip covers less than .75 of it,
        # unless it is the only one. All earlier partials are covered further, so a division gives their number.
        count = 1 + at_least(samples // HOP - LEAST_COVERED, 0) // STEP
        frames = STEP * (count - 1) + PARTIAL
        filled = F.pad(clips, (0, at_least(frames * HOP - samples, 0)))
        mel = self.mel(filled)[:, :, :frames]
        pieces = mel.unfold(2, PARTIAL, STEP).permute(0, 2, 3, 1)  # (batch, count, PARTIAL, 40)
        _, (hidden, _) = self.lstm(pieces.flatten(0, 1))
        vectors = F.normalize(torch.relu(self.linear(hidden[-1])), dim=1)
        return vectors.unflatten(0, (-1, count))


def package_weights(path: str) -> dict[str, Tensor]:
    """The state dict of a `Resemblyzer` from the package's file `resemblyzer/pretrained.pt`.

    Raises:
        InputError: the file is damaged, or it is another file.
    """
    content = read_weights(path).get("model_state")
    if not isinstance(content, dict):
        raise InputError(f"{path}: has no model_state; install resemblyzer 0.1.4 again")
    return {key: value for key, value in content.items() if not key.startswith("similarity_")}


def raised(clips: Tensor, level: float) -> Tensor:
    """Clips `(batch, samples)`; the root mean square of softer clips is raised to `level` dBFS, except for silence."""
    power = clips.square().mean(dim=1, keepdim=True)
    gain = (10 ** (level / 10) / power.clamp(min=1e-20)).sqrt()
    return clips * torch.where(power > 0, gain.clamp(min=1.0), torch.ones_like(gain))


def without_silence(clip: Tensor) -> Tensor:
    """Remove long silences from a clip `(samples,)` at 16 kHz, as Resemblyzer does.

    1. The detector of WebRTC, in its strictest mode, classifies windows of 30 ms. An incomplete last one is dropped.
    2. A moving average over 8 windows smooths its decisions.
    3. Windows with speech and the three windows on either side are kept; all windows, if none has speech.
    """
    from scipy.ndimage import binary_dilation

    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        raise InputError("trim=webrtc cannot be exported; leave it out, and trim before the exported model")
    window = SAMPLE_RATE * 30 // 1000
    count = len(clip) // window
    samples = np.round(clip.detach().cpu().numpy()[: count * window].clip(-1, 1) * 32767).astype("<i2")
    detector = _webrtc().Vad(mode=3)
    pieces = samples.reshape(-1, window)
    voiced = np.array([detector.is_speech(piece.tobytes(), SAMPLE_RATE) for piece in pieces], dtype=float)
    if not len(voiced):
        return clip
    smooth = np.round(np.convolve(np.pad(voiced, (3, 4)), np.ones(8) / 8, mode="valid")) > 0
    kept = binary_dilation(smooth, np.ones(7))
    mask = torch.from_numpy(np.repeat(kept, window)).to(clip.device)
    return clip[: count * window][mask] if kept.any() else clip


def _webrtc() -> Any:
    try:
        return import_module("webrtcvad")
    except ModuleNotFoundError as error:
        raise InputError("trim=webrtc needs webrtcvad; install it with: pip install webrtcvad-wheels") from error
