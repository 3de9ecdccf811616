"""`hear:<module or path.py>?weights=FILE`: a module with the interface of the HEAR benchmark; needs `trusted`.

The interface (https://hearbenchmark.com) has

- `load_model(path)`, which returns a model with the attributes `sample_rate` and `scene_embedding_size`;
- `get_scene_embeddings(audio, model)`;
- `get_timestamp_embeddings(audio, model)`, which gives the frames, if the module has it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ssl_audio.errors import InputError, first_line
from ssl_audio.hub.address import Address, Option
from ssl_audio.hub.foreign._external import External, file_sha256, finished, needs_trust
from ssl_audio.hub.foreign._importing import attribute, code_sha256, import_code, told_rate
from ssl_audio.hub.foreign._options import SHORT_CLIPS
from ssl_audio.model import EmbeddingModel

OPTIONS = {"weights": Option(str, "the file to pass to its load_model"), "short": SHORT_CLIPS}


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The model of a module.

    Raises:
        InputError: the address is not trusted, there is no such module, it has not the interface of HEAR, or its model
            is not a torch module.
    """
    needs_trust(address.text, trusted)
    module = import_code(address.text, address.rest)
    weights = options.get("weights", "")
    if weights and not Path(weights).is_file():
        raise InputError(f"{address.text}: {weights}: no such file")
    make, embed = (attribute(address.text, module, name) for name in ("load_model", "get_scene_embeddings"))
    try:
        made = make(weights) if weights else make()
    except Exception as error:  # foreign code can raise anything
        raise InputError(f"{address.text}: its load_model fails: {first_line(error)}") from error
    if not isinstance(made, nn.Module):
        raise InputError(f"{address.text}: its model is a {type(made).__name__}; it must be a torch module")
    frames = getattr(module, "get_timestamp_embeddings", None)
    encoder = HearEncoder(made, embed, frames, options.get("short", "refuse"))
    weights_sha256 = file_sha256(weights) if weights else ""
    encoder.refer(address.text, code_sha256(module), weights=weights_sha256, short=encoder.short)
    return finished(encoder, told_rate(address.text, {}, made), dim=getattr(made, "scene_embedding_size", None))


class HearEncoder(External):
    """The encoder of a HEAR module.

    Args:
        model: the model that the functions of the module take.
        scene: the function `get_scene_embeddings`.
        timestamp: the function `get_timestamp_embeddings`; None if the module has none.
        short: see `ClipEncoder`.

    Raises:
        InputError: `model` is not a torch module.
    """

    def __init__(self, model: nn.Module, scene: Any, timestamp: Any = None, short: str = "refuse") -> None:
        super().__init__(short)
        if not isinstance(model, nn.Module):
            raise InputError(f"a {type(model).__name__} is not a torch module")
        self.model = model.eval()
        self.scene, self.timestamp = scene, timestamp
        size = getattr(model, "timestamp_embedding_size", None)
        self.frame_dim = size if timestamp is not None else None

    def call(self, clips: Tensor) -> Any:
        """`(batch, samples)` -> `(batch, dim)`."""
        return self.scene(clips, self.model)

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, frame_dim)`."""
        if self.timestamp is None:
            return super().frames(features)
        assert self._turn is not None
        with self._turn.taken():
            return self.timestamp(features, self.model)[0].float()
