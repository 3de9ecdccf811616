"""EVAR (https://github.com/nttcslab/eval-audio-repr): a subclass of its `BaseAudioRepr`, in its folder `evar`."""

import torch
from torch import Tensor, nn

from ssl_audio.errors import InputError
from ssl_audio.harnesses.frames import Frames, embed_clips
from ssl_audio.harnesses.source import Target, load


class Representation(nn.Module):
    """Embeddings of clips, and frames with time as the last dimension.

    Args:
        address: what `load_model` takes.
        fingerprint: fingerprint of the model.
        sample_rate: sample rate in the config of EVAR, in Hz.

    Raises:
        InputError: the model has changed, or has another sample rate.
    """

    def __init__(self, address: str, fingerprint: str, sample_rate: int) -> None:
        super().__init__()
        self.frames = Frames(load(address, fingerprint))
        rate = self.frames.model.sample_rate
        if sample_rate != rate:
            raise InputError(f"sample_rate is {sample_rate} in EVAR's config and {rate} in the model; set it to {rate}")

    @torch.inference_mode()
    def encode_frames(self, audio: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frame dim, frames)`."""
        return self.frames(audio).transpose(1, 2)

    def forward(self, audio: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, dim)`."""
        return embed_clips(self.frames.model, audio)


def source(target: Target) -> str:
    """The file for EVAR."""
    return f'''"""A model of ssl_audio for EVAR, written by `ssl-audio harness evar`.

1. Keep this file as evar/ar_ssl_audio.py.
2. Add to lineareval.py: import evar.ar_ssl_audio
3. Write config/ssl_audio.yaml:

    audio_repr: ar_ssl_audio.AR_SSLAudio
    weight_file: ''
    feature_d: {target.model.dim}
    sample_rate: {target.model.sample_rate}
    batch_size: 128
    lr_lineareval: 0.0003
    early_stop_epochs: 20

4. python lineareval.py config/ssl_audio.yaml cremad
"""

from evar.ar_base import BaseAudioRepr

from ssl_audio.harnesses.evar import Representation


class AR_SSLAudio(BaseAudioRepr):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.representation = Representation({target.arguments}, cfg.sample_rate)

    def precompute(self, device, data_loader):
        self.eval()

    def encode_frames(self, batch_audio):
        return self.representation.encode_frames(batch_audio)

    def forward(self, batch_audio):
        return self.representation(batch_audio)
'''
