"""`call:<module or path.py>:<name>`: any function or class of others, with `trusted`.

    call:my_package.models:embed?rate=16000
    call:experiments/model.py:Model

The function takes `(batch, samples)` float32, a tensor or an array, and also the rate if it has a second argument
without a default; it gives `(batch, dim)`, or `(batch, time, dim)` of which the mean over time is taken. A class is
made without arguments and called. Attributes `sample_rate`, `dim` and `minimum_samples` are used where they are there.
"""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from ssl_audio.errors import InputError, first_line
from ssl_audio.hub.address import Address, Option
from ssl_audio.hub.foreign._external import finished, needs_trust
from ssl_audio.hub.foreign._importing import CallEncoder, attribute, code_sha256, import_code, told_rate
from ssl_audio.hub.foreign._options import RATE, SHORT_CLIPS, one_of
from ssl_audio.model import EmbeddingModel

OPTIONS = {
    "rate": RATE,
    "input": Option(one_of("tensor", "array"), "what it takes: tensor, or array (of numpy); without it both are tried"),
    "short": SHORT_CLIPS,
}


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The function as an encoder.

    Raises:
        InputError: not trusted, nothing of that name, no rate, or a function that gives no embeddings.
    """
    place, colon, name = address.rest.rpartition(":")
    if not colon or not place or not name:
        raise InputError(f"{address.text}: write call:<module or path.py>:<name>")
    needs_trust(address.text, trusted)
    module = import_code(address.text, place)
    function = attribute(address.text, module, name)
    if inspect.isclass(function):
        try:
            function = function()
        except Exception as error:  # whatever a class of others raises
            raise InputError(f"{address.text} cannot be made without arguments: {first_line(error)}") from error
    return model_of(address, options, function, code_sha256(module))


def model_of(
    address: Address, options: Mapping[str, Any], function: Any, sha256: str, **outside: Any
) -> EmbeddingModel:
    """The model around a function that is there.

    Args:
        sha256: of the file that it came from.
        outside: see `encoders.outside.Outside`.
    """
    if not callable(function):
        raise InputError(f"{address.text} is a {type(function).__name__}, which cannot be called")
    rate = told_rate(address.text, options, function)
    told = {"shortest": getattr(function, "minimum_samples", None), "dim": getattr(function, "dim", None)}
    told = {key: value for key, value in told.items() if isinstance(value, int)}
    name, short = address.rest.rpartition(":")[2], options.get("short", "refuse")
    forms = [options["input"] == "array"] if "input" in options else [False, True]
    problem: InputError | None = None
    for array in forms:
        encoder = CallEncoder(function, rate if _takes_rate(function) else None, array, short)
        encoder.refer(address.text, sha256, name=name, short=short, array=array, **outside)
        try:
            return finished(encoder, rate, **told)
        except InputError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _takes_rate(function: Any) -> bool:
    """Whether it has a second argument that must be given."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in signature.parameters.values() if p.kind in positional and p.default is p.empty]
    return len(needed) > 1
