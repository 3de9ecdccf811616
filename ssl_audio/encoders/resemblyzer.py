"""Resemblyzer 0.1.4, a speaker encoder in a wheel, built again from its weights; the package is never imported.

A three-layer LSTM on 1.6 s of mel spectrum, trained with the GE2E loss (Wan et al., 2018,
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
PARTIAL, STEP = 160, 77  # frames: round(16000 / 1.3 / 160) from one partial to the next
LEAST_COVERED = 120  # frames of the last partial that the clip must reach; one that it does not reach is left out
TRIMS = ("none", "webrtc")


class Resemblyzer(ClipEncoder):
    """Waveforms at 16 kHz -> the mean over partials of 1.6 s, of length 1: `(batch, 256)`, not negative.

    The level counts: a clip twice as loud has a cosine of about .93 with itself. The package's own preprocessing, which
    raises soft clips to -30 dBFS and cuts silence out, is off by default: `Resemblyzer(level=-30, trim="webrtc")`.

    Args:
        level: raise the root mean square of a softer clip to so many dBFS, in front of `trim`; louder clips stay. None
            leaves all as they are.
        trim: `webrtc` cuts long silences out, as the package does (needs `pip install webrtcvad-wheels`); a clip that
            is silent throughout stays as it is. Trimmed clips differ in length, so they pass one by one.
        short, batched: see `ClipEncoder`.
    """

    dim = 256
    shortest = 400  # one window of the mel spectrum; the package fills any clip up with zeros to 1.6 s

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
        """`(batch, samples)` -> `(batch, partials, 256)`, each of length 1."""
        samples = clips.shape[1]
        # The package lists starts every STEP frames and drops the last one, unless it is the only one, if less than .75
        # of it is covered. Every start before that one is covered by more, so that the rule is a division.
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
        InputError: damaged, or another file.
    """
    content = read_weights(path).get("model_state")
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no model_state; is it the file of Resemblyzer 0.1.4?")
    return {key: value for key, value in content.items() if not key.startswith("similarity_")}


def raised(clips: Tensor, level: float) -> Tensor:
    """`(batch, samples)` with the root mean square of softer clips raised to `level` dBFS; silence stays silence."""
    power = clips.square().mean(dim=1, keepdim=True)
    gain = (10 ** (level / 10) / power.clamp(min=1e-20)).sqrt()
    return clips * torch.where(power > 0, gain.clamp(min=1.0), torch.ones_like(gain))


def without_silence(clip: Tensor) -> Tensor:
    """`(samples,)` at 16 kHz -> without its long silences, by WebRTC's detector as Resemblyzer sets it up.

    Windows of 30 ms at the detector's strictest mode, a moving average over 8 of them, and three more windows kept on
    either side of what is voiced. What is left of a window at the end is cut off.
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
