"""TorchScript files, `model.ts`, beside the config that gives their rate and size."""

from pathlib import Path

import torch
from torch import Tensor

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.frontends import Waveform
from ssl_audio.hub import saved, singer_identity
from ssl_audio.hub.place import Options, Place
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.yaml_files import read_yaml

LAYOUT = "model.ts"
NAME = "model.ts"


def recognises(place: Place) -> bool:
    """A file that ends in .ts."""
    return place.path.is_file() and place.path.suffix == ".ts"


def read(place: Place, options: Options) -> EmbeddingModel:
    """The script as the encoder of a model that takes audio at one rate alone."""
    if options.projection:
        raise InputError(f"{place.path}: a TorchScript file comes without its projection head")
    return load_torchscript(place.path.parent, None, place.path.name)


def load_torchscript(folder: Path, input_sr: int | None, name: str = NAME) -> EmbeddingModel:
    """`model.ts` of a folder of our layout or of the published one.

    Raises:
        InputError: no such file, a damaged one, no config beside it, or another rate than its own.
    """
    path = folder / name
    if not path.is_file():
        raise InputError(f"{path}: no such file; load without torchscript=True, or write it with ssl-audio export")
    if (folder / saved.CONFIG).is_file():
        config = read_yaml(folder / saved.CONFIG)
        sample_rate, dim = config.get("sample_rate"), config.get("dim")
    else:
        encoder = singer_identity.read_hyperparams(folder / singer_identity.HYPERPARAMS)["encoder"]
        sample_rate, dim = singer_identity.SAMPLE_RATE, encoder.get("embedding_dim", 1000)
    if not isinstance(sample_rate, int) or not isinstance(dim, int):
        raise InputError(f"{folder / saved.CONFIG} gives no sample_rate and dim; was it written by save_model?")
    if input_sr not in (None, sample_rate):
        raise InputError(
            f"a TorchScript model takes audio at {sample_rate} Hz only, not {input_sr}; load without torchscript=True"
        )
    return EmbeddingModel(Waveform(), _Scripted(open_script(path), dim), sample_rate).eval()


def open_script(path: Path) -> torch.jit.ScriptModule:
    """The program in a TorchScript file, on the CPU.

    Raises:
        InputError: no TorchScript file, or a damaged one.
    """
    try:
        return torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: not a TorchScript file, or damaged; fetch or write it again") from error


class _Scripted(Encoder):
    """A TorchScript model as an encoder of raw waveforms."""

    def __init__(self, script: torch.jit.ScriptModule, dim: int) -> None:
        super().__init__()
        self.script = script.eval()
        self.dim = dim

    def forward(self, features: Tensor) -> Tensor:
        return self.script(features)
