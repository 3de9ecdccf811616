"""`xares:<file>`: an encoder for the X-ARES benchmark; needs `trusted`.

The file has one class whose name ends in `Encoder` (https://github.com/jimbozhang/xares). The class takes no arguments
and has the attributes `sampling_rate` and `output_dim`. Its objects map `(batch, samples)` to frames
`(batch, time, output_dim)`; the embedding is their mean over time.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from ssl_audio.errors import InputError, first_line
from ssl_audio.hub.address import Address
from ssl_audio.hub.foreign._external import External, existing, finished, needs_trust
from ssl_audio.hub.foreign._importing import code_sha256, import_code, told_rate
from ssl_audio.hub.foreign._options import SHORT_CLIPS
from ssl_audio.model import EmbeddingModel

OPTIONS = {"short": SHORT_CLIPS}


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The model of a file.

    Raises:
        InputError: the address is not trusted, there is no such file, it has not exactly one class for X-ARES, or the
            class cannot be used.
    """
    needs_trust(address.text, trusted)
    path = existing(address.text, address.rest)
    if path.suffix != ".py":
        raise InputError(f"{address.text}: {path} is not a Python file; give a file that ends in .py")
    module = import_code(address.text, str(path))
    kinds = {name: one for name, one in vars(module).items() if name.endswith("Encoder") and inspect.isclass(one)}
    if len(kinds) != 1:
        raise InputError(f"{address.text} has {len(kinds)} classes whose name ends in Encoder; it must have one")
    kind: Any = next(iter(kinds.values()))
    try:
        made = kind()
    except Exception as error:  # foreign code can raise anything
        raise InputError(f"{address.text}: {kind.__name__} cannot be made: {first_line(error)}") from error
    encoder = XaresEncoder(made, options.get("short", "refuse"))
    encoder.refer(address.text, code_sha256(module), short=encoder.short)
    return finished(encoder, told_rate(address.text, {}, made), dim=getattr(made, "output_dim", None))


class XaresEncoder(External):
    """The encoder of an X-ARES file.

    Args:
        model: an object of the class in the file.
        short: see `ClipEncoder`.

    Raises:
        InputError: `model` is not a torch module.
    """

    def __init__(self, model: nn.Module, short: str = "refuse") -> None:
        super().__init__(short)
        if not isinstance(model, nn.Module):
            raise InputError(f"a {type(model).__name__} is not a torch module")
        self.model = model.eval()
        self.frame_dim = getattr(model, "output_dim", None)

    def call(self, clips: Tensor) -> Any:
        """`(batch, samples)` -> `(batch, frames, dim)`."""
        return self.model(clips)

    def frames(self, features: Tensor) -> Tensor:
        """`(batch, samples)` -> `(batch, frames, frame_dim)`."""
        assert self._turn is not None
        with self._turn.taken():
            return self.model(features).float()
