"""X-ARES (https://github.com/jimbozhang/xares): a class without arguments, which computes frames.

X-ARES pads the clips of a batch with zeros and averages over all frames. To make the score of a clip independent of its
batch, this adapter removes the zeros at its end and fills the missing frames with the mean of its frames.
"""

import torch
from torch import Tensor, nn

from ssl_audio.harnesses.frames import Frames
from ssl_audio.harnesses.source import Target, load


class FrameEncoder(nn.Module):
    """`(batch, samples)` -> `(batch, frames, output_dim)`.

    Attributes:
        sampling_rate: sample rate in Hz.
        output_dim: size of a frame.
        hop_size_in_ms: distance between frames in ms.
    """

    def __init__(self, address: str, fingerprint: str) -> None:
        super().__init__()
        self.frames = Frames(load(address, fingerprint))
        self.sampling_rate = self.frames.model.sample_rate
        self.output_dim = self.frames.dim
        self.hop_size_in_ms = 1000 * self.frames.hop / self.sampling_rate

    @torch.inference_mode()
    def forward(self, audio: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, output_dim)`. Zeros at the end of a row are ignored."""
        rows = [self.frames(_without_padding(row)[None])[0] for row in audio]
        longest = max(len(row) for row in rows)
        return torch.stack([torch.cat([row, row.mean(0).expand(longest - len(row), -1)]) for row in rows])


def _without_padding(clip: Tensor) -> Tensor:
    """The clip `(samples,)` up to its last sample that is not zero; the whole clip if all samples are zero."""
    sounding = clip.nonzero()
    return clip[: int(sounding[-1]) + 1] if len(sounding) else clip


def source(target: Target) -> str:
    """The file for X-ARES."""
    name = f"SSLAudio_{target.name}_{target.fingerprint}_Encoder"  # X-ARES stores results under the name of the class
    return f'''"""A model of ssl_audio for X-ARES, written by `ssl-audio harness xares`.

    python -m xares.run THIS_FILE.py src/tasks/*.py          (give the path relative to the current folder)
"""

from ssl_audio.harnesses import xares


class {name}(xares.FrameEncoder):
    def __init__(self) -> None:
        super().__init__({target.arguments})
'''
