"""The sound effects encoder of the package aisfx 0.1.2. Only its weights are read; the package is never imported.

The network has eight convolutions on 2.3 s of mel spectrum. It was trained to classify the sounds of nine sound effects
libraries (Ma, 2022, "Representation learning for the automatic indexing of sound effects libraries", ISMIR). The README
of the package states the licence CC BY 4.0.
"""

import codecs
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_audio.encoders.clips import ClipEncoder, at_least
from ssl_audio.errors import InputError, first_line

SAMPLE_RATE, N_FFT, HOP, BANDS = 44100, 2048, 1024, 96
BLOCK, STEP, LEAST = 100, 50, 51  # frames
SCALE = 9.457798957824707  # largest feature in the training set of the authors
_CHANNELS = (64, 128, 256, 512)
_PREFIX = "embedding_net."


class AISFX(ClipEncoder):
    """Waveforms at 44.1 kHz -> `(batch, 512)`, not negative: the mean over blocks of 2.3 s.

    The embedding depends on the level of the clip, which is not normalised. A clip shorter than a block is padded with
    silence.

    Args:
        short, batched: see `ClipEncoder`. The shortest clip is 1.14 s.
    """

    dim = 512
    shortest = (LEAST - 2) * HOP + 1
    window_function: Tensor
    bank: Tensor

    def __init__(self, short: str = "refuse", batched: bool = True) -> None:
        super().__init__(short, batched)
        self.blocks = nn.ModuleList(
            _Block(before, after) for before, after in zip((1, *_CHANNELS), _CHANNELS, strict=False)
        )
        self.register_buffer("window_function", torch.hann_window(N_FFT, periodic=False), persistent=False)
        self.register_buffer("bank", _mel_bank(), persistent=False)

    def vectors(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, 512)`."""
        return self.block_vectors(clips).mean(dim=1)

    def block_vectors(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, blocks, 512)`. Blocks start every 50 frames; an incomplete one is dropped."""
        mel = self.log_mel(clips) / SCALE
        mel = F.pad(mel, (0, 0, 0, at_least(BLOCK - mel.shape[1], 0)))
        pieces = mel.unfold(1, BLOCK, STEP).transpose(2, 3)  # (batch, blocks, BLOCK, BANDS)
        x = pieces.flatten(0, 1).unsqueeze(1)  # an image: time by bands
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i < len(self.blocks) - 1:
                x = F.max_pool2d(x, 2)
        return x.mean(dim=3).amax(dim=2).unflatten(0, (-1, pieces.shape[1]))

    def log_mel(self, clips: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, 96)`. Frame i is centred on sample 1,024 i of the padded clip."""
        samples = clips.shape[1]
        count = 1 + (samples + HOP - 1) // HOP
        padded = F.pad(clips, (HOP, (count - 1) * HOP + N_FFT - HOP - samples))
        frames = padded.unfold(1, N_FFT, HOP) * self.window_function
        real, imaginary = torch.view_as_real(torch.fft.rfft(frames)).unbind(-1)
        return torch.log10(10000 * (real * real + imaginary * imaginary) @ self.bank.T + 1)


class _Block(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x))))))


def _mel_bank() -> Tensor:
    """`(96, 1025)` triangles from 0 Hz to 22,050 Hz, linear in the mel scale of HTK. Each has the sum 1."""

    def mel(hertz: Any) -> Any:
        return 1127.01048 * np.log1p(hertz / 700)

    bins = mel(np.arange(N_FFT // 2 + 1) * SAMPLE_RATE / N_FFT)
    corners = np.linspace(0, mel(SAMPLE_RATE / 2), BANDS + 2)
    step = corners[1]
    triangles = np.clip(1 - np.abs(bins - corners[1:-1, None]) / step, 0, None)
    return torch.from_numpy(triangles / triangles.sum(axis=1, keepdims=True)).float()


def package_weights(path: str | os.PathLike) -> dict[str, Tensor]:
    """The state dict of an `AISFX` from the package's file `aisfx/models/checkpoint.pth`.

    The file has tensors, plain data and NumPy scalars. Objects of other classes are refused, so the file runs no code.

    Raises:
        InputError: the file is damaged, or it is another file.
    """
    scalar = np.int64(0).__reduce__()[0]  # its module was renamed in NumPy 2
    allowed = [(scalar, "numpy.core.multiarray.scalar"), np.dtype, type(np.dtype(np.int64)), codecs.encode]
    try:
        with torch.serialization.safe_globals(allowed):  # type: ignore[arg-type]
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler can raise anything for a damaged file
        raise InputError(f"{path}: cannot be read ({first_line(error)}); install aisfx again") from error
    state = content[0] if isinstance(content, tuple) and content else None
    if not isinstance(state, Mapping):
        raise InputError(f"{path}: has no weights of aisfx 0.1.2; install aisfx 0.1.2 again")
    names = {f"{_PREFIX}conv_block{i + 1}.": f"blocks.{i}." for i in range(len(_CHANNELS))}
    return {
        new + key.removeprefix(old): value
        for key, value in state.items()
        for old, new in names.items()
        if key.startswith(old)
    }
