"""The model of an adapter file. A file contains the address and the fingerprint, and checks them when it is used."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from ssl_audio.errors import InputError
from ssl_audio.hub import load_model
from ssl_audio.model import EmbeddingModel
from ssl_audio.provenance import fingerprint, made_by


@dataclass(frozen=True)
class Target:
    """The model for which a file is written.

    Attributes:
        address: what `load_model` takes; paths are absolute.
        fingerprint: fingerprint of the model.
        name: the last part of the address, as letters, digits and underscores.
        model: the model, at its own sample rate.
    """

    address: str
    fingerprint: str
    name: str
    model: EmbeddingModel

    @classmethod
    def of(cls, address: str) -> "Target":
        """Load the model at an address."""
        model = load_model(address)
        place = os.path.abspath(address) if os.path.exists(address) else address
        name = re.sub(r"\W+", "_", Path(place).name, flags=re.ASCII).strip("_") or "model"
        return cls(place, fingerprint(model), name, model)

    @property
    def arguments(self) -> str:
        """Arguments `address` and `fingerprint`, as Python code for the file."""
        return f"{self.address!r}, {self.fingerprint!r}"


def load(address: str, recorded: str, sample_rate: int | None = None) -> EmbeddingModel:
    """Load the model of a file.

    Args:
        address: what `load_model` takes.
        recorded: fingerprint of the model when the file was written.
        sample_rate: sample rate of the audio in Hz; None: that of the model.

    Raises:
        InputError: the model at this address has changed since the file was written.
    """
    model = load_model(address)
    if not made_by(model, recorded):
        raise InputError(f"{address} has changed since this file was written; run `ssl-audio harness` again")
    if sample_rate is not None and sample_rate != model.sample_rate:
        model = load_model(address, input_sr=sample_rate)
    return model.eval()
