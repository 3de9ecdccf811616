"""The readers of models on disk. Each layout has one reader; they are tried in order.

A reader is a module with

    LAYOUT                      description of the layout, for error messages
    recognises(place) -> bool   whether a `Place` has this layout
    read(place, options)        the model as an `EmbeddingModel`

To add a layout, write such a module and add it to READERS.
"""

from pathlib import Path
from typing import Protocol

from ssl_audio.errors import InputError
from ssl_audio.hub import checkpoint, clmr, saved, singer_identity, singer_identity_training, torchscript
from ssl_audio.hub.calibration_files import read_calibration
from ssl_audio.hub.place import Options, Place, newest_run
from ssl_audio.model import EmbeddingModel


class Reader(Protocol):
    """The interface of a reader.

    Attributes:
        LAYOUT: description of the layout, for error messages.
    """

    LAYOUT: str

    def recognises(self, place: Place) -> bool:
        """Whether the place has this layout."""
        ...

    def read(self, place: Place, options: Options) -> EmbeddingModel:
        """Read the model."""
        ...


# the last takes any file
READERS: tuple[Reader, ...] = (saved, torchscript, singer_identity, singer_identity_training, clmr, checkpoint)


def load_path(path: Path, options: Options) -> EmbeddingModel:
    """Load the model of a file or folder in any layout, with the calibration in the folder.

    Args:
        path: the file or folder.
        options: options for the reader.

    Raises:
        InputError: no reader recognises the path, the model is incomplete or damaged, or the
            calibration is damaged or of another model.
    """
    place = Place(path)
    for reader in READERS:
        if reader.recognises(place):
            model = reader.read(place, options)
            if options.calibration and not options.projection and path.is_dir():
                model.calibration = read_calibration(path, model)
            return model
    newest = newest_run(path) if path.is_dir() else None
    if newest is not None:
        return load_path(newest, options)
    listing = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
    layouts = ", or ".join(reader.LAYOUT for reader in READERS)
    raise InputError(f"{path} holds no model: it needs {layouts}; it has {listing}")
