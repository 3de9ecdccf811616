"""The level rule of a model whose reader finds none in its description, or finds it beside an exported file."""

import logging
import os
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ssl_audio.config import canonical_path, class_path
from ssl_audio.encoders import CPC
from ssl_audio.errors import InputError
from ssl_audio.heads import ProbeHead
from ssl_audio.level import RULES
from ssl_audio.model import EmbeddingModel

logger = logging.getLogger("ssl_audio.hub")


def level_facts(description: Any) -> dict[str, Any]:
    """`level` and `level_in_graph` by the description of a model; empty for descriptions of 0.1, which have neither."""
    arguments = description.get("init_args") if isinstance(description, Mapping) else None
    if not isinstance(arguments, Mapping) or "level" not in arguments:
        return {}
    level = arguments["level"]
    name = level.get("class_path") if isinstance(level, Mapping) else level
    return {"level": name, "level_in_graph": arguments.get("level_in_forward", True)}


def as_tested(model: EmbeddingModel, source: str | os.PathLike, description: Any = None) -> EmbeddingModel:
    """Set the rule of a model that states none: a peak of 1, by which such models were trained and tested.

    The rule stays outside of `forward`, so that the outputs for a tensor are what they were. Encoders of CPC and models
    with a classifier keep "none": their windows and labelled clips had the level of the recording.

    Args:
        model: changed in place.
        source: its file or folder, for a notice that is logged once.
        description: of the model and what it was trained with; None for published models.
    """
    if {class_path(ProbeHead), class_path(CPC)}.isdisjoint(map(canonical_path, _class_paths(description))):
        model.level, model.level_in_forward = "peak", False
        _notice(os.fspath(source))
    return model


def _class_paths(description: Any) -> Iterator[str]:
    if isinstance(description, Mapping):
        if isinstance(description.get("class_path"), str):
            yield description["class_path"]
        for value in description.values():
            yield from _class_paths(value)


@cache
def _notice(source: str) -> None:
    logger.warning(
        f"{source} states no level rule: files, and arrays for embed(), are scaled to a peak of 1, as in its tests; "
        "model(tensor) takes clips as they are"
    )


def as_described(model: EmbeddingModel, facts: Mapping[str, Any], origin: str | os.PathLike) -> EmbeddingModel:
    """Set the rule that is stated beside an exported file.

    Args:
        model: calls the exported file; changed in place.
        facts: what `export.describe_onnx` writes; without `level` the model stays as it is.
        origin: the file or its address, for messages.

    Raises:
        InputError: the rule is a class, which the file does not contain.
    """
    level, inside = facts.get("level"), facts.get("level_in_graph") is True
    if level in RULES:
        model.level, model.level_in_forward = level, inside
    elif level is not None and not inside:
        raise InputError(f"{origin}: the file does not set the level by {level}; load the model that it was made from")
    return model
