"""MARBLE v2 (https://github.com/a43992899/MARBLE): an encoder class for its YAML, with one layer of frames."""

from typing import Literal

import torch
from torch import Tensor, nn

from ssl_audio.errors import InputError
from ssl_audio.harnesses.frames import Frames
from ssl_audio.harnesses.source import Target, load


class Layers(nn.Module):
    """`(batch, samples)` -> a tuple with one tensor `(batch, frames, features)`, for the `LayerSelector` of MARBLE.

    Args:
        address: what `load_model` takes.
        fingerprint: fingerprint of the model.
        train_mode: "freeze", or "full" to train the model together with the probe.

    Raises:
        InputError: the model has changed, or `train_mode` is another one.
    """

    def __init__(self, address: str, fingerprint: str, train_mode: Literal["freeze", "full"] = "freeze") -> None:
        super().__init__()
        if train_mode not in ("freeze", "full"):
            raise InputError(f"train_mode is {train_mode!r}; it must be freeze or full")
        self.frames = Frames(load(address, fingerprint))
        self.frozen = train_mode == "freeze"
        self.requires_grad_(not self.frozen)

    def train(self, mode: bool = True) -> "Layers":
        """Set the mode. A frozen model stays in evaluation mode, so that a clip does not depend on its batch."""
        return super().train(mode and not self.frozen)

    def forward(self, audio: Tensor) -> tuple[Tensor]:
        audio = audio.squeeze(1) if audio.ndim == 3 else audio  # some tasks give (batch, 1, samples)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return (self.frames(audio),)


def source(target: Target) -> str:
    """The file for MARBLE."""
    frames = Frames(target.model)
    rate = target.model.sample_rate
    return f'''"""A model of ssl_audio for MARBLE v2, written by `ssl-audio harness marble`.

Put this file in a folder where Python finds it, and write in the config of MARBLE:

    encoder:
      class_path: THIS_MODULE.SSLAudioEncoder
      init_args: {{train_mode: freeze}}

The data must be at {rate} Hz. Set emb_transforms to layer 0.
"""

from marble.core.base_encoder import BaseEncoder

from ssl_audio.harnesses.marble import Layers


class SSLAudioEncoder(BaseEncoder):
    NAME = "ssl_audio_{target.name}_{target.fingerprint}"
    SAMPLING_RATE = {rate}
    TOKEN_RATE = {rate / frames.hop!r}  # frames a second
    NUM_FEATURES = {frames.dim}
    N_TRANSFORMER_LAYERS = 1

    def __init__(self, train_mode="freeze"):
        super().__init__()
        self.layers = Layers({target.arguments}, train_mode)

    def forward(self, x, *args, **kwargs):
        return self.layers(x)
'''
