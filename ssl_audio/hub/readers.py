"""The layouts that a model on disk can have: one reader a file, tried in order.

A reader is a module with

    LAYOUT                      what it reads, for the message where nothing fits
    recognises(place) -> bool   whether a `Place` has this layout
    read(place, options)        the model in it, as an `EmbeddingModel`

A further layout is one such file and its name in READERS.
"""

from pathlib import Path
from typing import Protocol

from ssl_audio.errors import InputError
from ssl_audio.hub import checkpoint, clmr, saved, singer_identity, singer_identity_training, torchscript
from ssl_audio.hub.place import Options, Place
from ssl_audio.model import EmbeddingModel


class Reader(Protocol):
    """What a module in READERS has."""

    LAYOUT: str

    def recognises(self, place: Place) -> bool: ...

    def read(self, place: Place, options: Options) -> EmbeddingModel: ...


READERS: tuple[Reader, ...] = (
    saved, torchscript, singer_identity, singer_identity_training, clmr, checkpoint,
)  # fmt: skip
# the last takes any file


def load_path(path: Path, options: Options) -> EmbeddingModel:
    """The model in a file or folder of any layout.

    Raises:
        InputError: no reader recognises it, or the one that does finds it incomplete or damaged.
    """
    place = Place(path)
    for reader in READERS:
        if reader.recognises(place):
            return reader.read(place, options)
    listing = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    layouts = ", or ".join(reader.LAYOUT for reader in READERS)
    raise InputError(f"{path} holds no model: it needs {layouts}; it has {listing}")
