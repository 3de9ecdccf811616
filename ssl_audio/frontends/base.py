"""What all frontends share; the raw waveform as a frontend."""

import torch
from torch import Tensor, nn

from ssl_audio.errors import InputError


class Frontend(nn.Module):
    """The base class of frontends. The features of a clip must not depend on the other clips of the batch.

    A subclass stores every constructor argument under its own name, so that a saved model can be rebuilt.

    Attributes:
        minimum_samples: length of the shortest clip, in samples.
    """

    minimum_samples: int = 1

    def samples_for(self, frames: int) -> int:
        """The length of the shortest clip, in samples, that gives `frames` frames.

        For raw waveforms, a frame is a sample.
        """
        return max(self.minimum_samples, frames)

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> features."""
        raise NotImplementedError


class Waveform(Frontend):
    """The identity, for encoders of raw waveforms. The encoder knows its shortest input."""

    def forward(self, waveforms: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, samples)`."""
        return waveforms


def check_length(waveforms: Tensor, minimum: int, window: int) -> None:
    """Raise InputError if clips (batch, samples) are shorter than `minimum`; `window` is for the message."""
    if not torch.jit.is_tracing() and waveforms.shape[-1] < minimum:
        raise InputError(
            f"a clip of {waveforms.shape[-1]} samples is too short for a window of {window}; "
            f"drop or pad clips of less than {minimum} samples"
        )
