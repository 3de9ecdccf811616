"""What every written file has: the model's address, checked when the file is used, and words on how to use it."""

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
    """The model that a file is written for.

    Attributes:
        address: what `load_model` takes; paths are absolute.
        fingerprint: of the model.
        name: letters, digits and underscores, from the last part of the address.
        model: at its own rate.
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
        """Of the functions that the written files call."""
        return f"{self.address!r}, {self.fingerprint!r}"


def load(address: str, recorded: str, sample_rate: int | None = None) -> EmbeddingModel:
    """The model of a written file, for audio at `sample_rate`, or at its own rate.

    Raises:
        InputError: the address holds another model than when the file was written.
    """
    model = load_model(address)
    if not made_by(model, recorded):
        raise InputError(f"{address} is another model than when this file was written; run `ssl-audio harness` again")
    if sample_rate is not None and sample_rate != model.sample_rate:
        model = load_model(address, input_sr=sample_rate)
    return model.eval()
