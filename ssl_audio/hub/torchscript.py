"""Reader of TorchScript files (`model.ts`) with a config beside them that gives sample rate and size."""

from pathlib import Path

import torch
from torch import Tensor

from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError
from ssl_audio.frontends import Waveform
from ssl_audio.hub import saved, singer_identity
from ssl_audio.hub.levels import as_described, as_tested, level_facts
from ssl_audio.hub.place import Options, Place
from ssl_audio.model import EmbeddingModel
from ssl_audio.utils.yaml_files import read_yaml

LAYOUT = "model.ts"
NAME = "model.ts"


def recognises(place: Place) -> bool:
    """Whether the place is a file that ends in .ts."""
    return place.path.is_file() and place.path.suffix == ".ts"


def read(place: Place, options: Options) -> EmbeddingModel:
    """Read the model; for errors see `load_torchscript`."""
    if options.projection:
        raise InputError(f"{place.path}: a TorchScript file has no projection head; load it without projection=True")
    return load_torchscript(place.path.parent, None, place.path.name)


def load_torchscript(folder: Path, input_sr: int | None, name: str = NAME) -> EmbeddingModel:
    """Load a TorchScript file as a model that takes audio at one sample rate only.

    Args:
        folder: folder of the file and its config, which is `config.yaml` or the published `hyperparams.yaml`.
        input_sr: sample rate of the audio in Hz; None for that of the model.
        name: name of the file.

    Raises:
        InputError: the file is missing or damaged, it has no config, or the sample rate is another one.
    """
    path = folder / name
    if not path.is_file():
        raise InputError(f"{path}: no such file; load without torchscript=True, or write it with ssl-audio export")
    description = None
    if (folder / saved.CONFIG).is_file():
        config = read_yaml(folder / saved.CONFIG)
        sample_rate, dim, description = config.get("sample_rate"), config.get("dim"), config.get("model")
    elif not (folder / singer_identity.HYPERPARAMS).is_file():
        raise InputError(
            f"{path}: has neither {saved.CONFIG} nor {singer_identity.HYPERPARAMS} beside it; if ssl-audio export or "
            f"another program wrote it, name it torchscript:{path}"
        )
    else:
        encoder = singer_identity.read_hyperparams(folder / singer_identity.HYPERPARAMS)["encoder"]
        sample_rate, dim = singer_identity.SAMPLE_RATE, encoder.get("embedding_dim", 1000)
    if not isinstance(sample_rate, int) or not isinstance(dim, int):
        raise InputError(f"{folder / saved.CONFIG} has no sample_rate and dim; write it with save_model")
    if input_sr not in (None, sample_rate):
        raise InputError(
            f"a TorchScript model takes audio at {sample_rate} Hz only, not {input_sr}; load without torchscript=True"
        )
    model = EmbeddingModel(Waveform(), _Scripted(open_script(path), dim), sample_rate).eval()
    facts = level_facts(description)
    return as_described(model, facts, path) if facts else as_tested(model, path, description)


def open_script(path: Path) -> torch.jit.ScriptModule:
    """Load the program of a TorchScript file, on the CPU.

    Raises:
        InputError: the file is damaged, or it is not a TorchScript file.
    """
    try:
        return torch.jit.load(path, map_location="cpu")
    except (RuntimeError, ValueError) as error:
        raise InputError(f"{path}: damaged or not a TorchScript file; fetch or write it again") from error


class _Scripted(Encoder):
    """A TorchScript model as an encoder of raw waveforms."""

    def __init__(self, script: torch.jit.ScriptModule, dim: int) -> None:
        super().__init__()
        self.script = script.eval()
        self.dim = dim

    def forward(self, features: Tensor) -> Tensor:
        return self.script(features)
