"""`call:<module or path.py>:<name>`: any function or class. It runs foreign code, so it needs `trusted`.

    call:my_package.models:embed?rate=16000
    call:experiments/model.py:Model

The function takes `(batch, samples)` float32, as a tensor or an array. If it has a second argument without a default,
it also gets the sample rate. It returns `(batch, dim)`, or `(batch, time, dim)`, which is averaged over time. A class
is made without arguments, and its object is called. The attributes `sample_rate`, `dim` and `minimum_samples` are used
if they exist.
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
    "input": Option(
        one_of("tensor", "array"), "what the function takes: tensor, or array (NumPy); by default both are tried"
    ),
    "short": SHORT_CLIPS,
}


def load(address: Address, options: Mapping[str, Any], trusted: bool) -> EmbeddingModel:
    """The model of a function.

    Raises:
        InputError: the address is not trusted, there is no such name, the sample rate is unknown, or the function
            returns no embeddings.
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
        except Exception as error:  # foreign code can raise anything
            raise InputError(f"{address.text} cannot be made without arguments: {first_line(error)}") from error
    return model_of(address, options, function, code_sha256(module))


def model_of(
    address: Address, options: Mapping[str, Any], function: Any, sha256: str, **outside: Any
) -> EmbeddingModel:
    """The model of a function that has been imported.

    Args:
        address: the address, for messages and the record of its origin.
        options: parsed options of the address.
        function: the function.
        sha256: SHA-256 of the file of the function.
        outside: see `encoders.outside.Outside`.

    Raises:
        InputError: the function cannot be called, or see `load`.
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
    """Whether the function has a second argument without a default."""
    try:
        signature = inspect.signature(function.forward if isinstance(function, nn.Module) else function)
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p for p in signature.parameters.values() if p.kind in positional and p.default is p.empty]
    return len(needed) > 1
