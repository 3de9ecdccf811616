"""X-ARES (https://github.com/jimbozhang/xares): a class made without arguments, frames out.

X-ARES pads a batch with zeros, keeps all frames of the padded clips and averages them. So that a clip's score does not
depend on its batch, the zeros at a clip's end are left out, and the missing frames are filled with the clip's mean.
"""

import torch
from torch import Tensor, nn

from ssl_audio.harnesses.frames import Frames
from ssl_audio.harnesses.source import Target, load


class FrameEncoder(nn.Module):
    """`(batch, samples)` -> `(batch, frames, output_dim)`.

    Attributes:
        sampling_rate: Hz.
        output_dim: size of a frame.
        hop_size_in_ms: from frame to frame.
    """

    def __init__(self, address: str, fingerprint: str) -> None:
        super().__init__()
        self.frames = Frames(load(address, fingerprint))
        self.sampling_rate = self.frames.model.sample_rate
        self.output_dim = self.frames.dim
        self.hop_size_in_ms = 1000 * self.frames.hop / self.sampling_rate

    @torch.inference_mode()
    def forward(self, audio: Tensor) -> Tensor:
        """Rows may end in zeros, which are not looked at."""
        rows = [self.frames(_without_padding(row)[None])[0] for row in audio]
        longest = max(len(row) for row in rows)
        return torch.stack([torch.cat([row, row.mean(0).expand(longest - len(row), -1)]) for row in rows])


def _without_padding(clip: Tensor) -> Tensor:
    """`(samples,)` up to its last sample that is not zero; a clip of zeros as it is."""
    sounding = clip.nonzero()
    return clip[: int(sounding[-1]) + 1] if len(sounding) else clip


def source(target: Target) -> str:
    name = f"SSLAudio_{target.name}_{target.fingerprint}_Encoder"  # results are kept by the name of the class
    return f'''"""A model of ssl_audio for X-ARES, written by `ssl-audio harness xares`.

    python -m xares.run THIS_FILE.py src/tasks/*.py          (give the path relative to the current folder)
"""

from ssl_audio.harnesses import xares


class {name}(xares.FrameEncoder):
    def __init__(self) -> None:
        super().__init__({target.arguments})
'''
