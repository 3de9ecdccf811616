"""s3prl and SUPERB (https://github.com/s3prl/s3prl): an upstream from waveforms at 16 kHz to frames."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ssl_audio.harnesses.frames import Frames
from ssl_audio.harnesses.source import Target, load

RATE = 16000  # Hz; sample rate of s3prl


class Upstream(nn.Module):
    """Waveforms of several lengths -> `{"hidden_states": [(batch, frames, dim)], "last_hidden_state": the same}`.

    Each waveform is computed alone. It gets `round(samples / downsample rate)` frames, the number that s3prl uses; if
    the model has fewer, the last one is repeated. Shorter waveforms of a batch are padded with zero frames.

    Args:
        address: what `load_model` takes.
        fingerprint: fingerprint of the model.

    Raises:
        InputError: the model has changed.
    """

    def __init__(self, address: str, fingerprint: str) -> None:
        super().__init__()
        self.frames = Frames(load(address, fingerprint, RATE))
        self.downsample_rate = max(1, round(self.frames.hop))

    def get_downsample_rates(self, key: str = "") -> int:
        """Samples per frame, at 16 kHz."""
        return self.downsample_rate

    def forward(self, wavs: Sequence[Tensor]) -> dict[str, Any]:
        rows = [self._frames(wav) for wav in wavs]
        hidden = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return {"hidden_states": [hidden], "last_hidden_state": hidden}

    def _frames(self, wav: Tensor) -> Tensor:
        frames = self.frames(wav[None])[0]
        wanted = max(1, round(len(wav) / self.downsample_rate))
        centres = (torch.arange(wanted) + 0.5) * self.downsample_rate  # of the frames of s3prl
        nearest = ((centres - self.frames.start) / self.frames.hop).round().long().clamp(0, len(frames) - 1)
        return frames[nearest.to(frames.device)]


def source(target: Target) -> str:
    """The file for s3prl."""
    return f'''"""A model of ssl_audio for s3prl, written by `ssl-audio harness s3prl`.

Keep this file as s3prl/upstream/ssl_audio_model/expert.py, with a hubconf.py beside it:

    from .expert import UpstreamExpert

    def ssl_audio_model(*args, **kwargs):
        return UpstreamExpert(*args, **kwargs)

Then: python run_downstream.py -m train -u ssl_audio_model -d speech_commands -n NAME
"""

from s3prl.upstream.interfaces import UpstreamBase

from ssl_audio.harnesses.s3prl import Upstream


class UpstreamExpert(UpstreamBase):
    def __init__(self, ckpt=None, model_config=None, **kwargs):
        super().__init__(**kwargs)
        self.upstream = Upstream({target.arguments})

    def get_downsample_rates(self, key):
        return self.upstream.get_downsample_rates(key)

    def forward(self, wavs):
        return self.upstream(wavs)
'''
