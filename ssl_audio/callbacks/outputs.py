"""What a callback finds in the outputs of a step."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ssl_audio.errors import InputError


def views_of(outputs: Mapping[str, Any], name: str, least: int, callback: str) -> tuple[Tensor, ...]:
    """The representations of each view in the outputs of a step.

    Args:
        outputs: of `Method.training_step` or `validation_step`.
        name: "embeddings" or "projections".
        least: how many views the callback needs.
        callback: its key in the config, for the message.

    Returns:
        (batch, dim) of each view.

    Raises:
        InputError: the method returns none of them, or fewer views.
    """
    views = outputs.get(name, ())
    if len(views) < least:
        found = f"{len(views)} view" if views else f"no {name}"
        raise InputError(
            f"callbacks.{callback} needs {name} of {least} or more views of each clip, and the method returns {found}; "
            f"set callbacks.{callback} to null"
        )
    return views
