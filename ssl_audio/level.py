"""The level rule of a model: how the level of a clip is set before its features are computed.

    peak    scale each clip so that its largest absolute value is 1; silence stays as it is
    none    take each clip as it is
    a torch module `(batch, samples)` -> `(batch, samples)`, for any other rule

A model keeps the rule by which its training clips were made (`EmbeddingModel.level`). The rule is either part of the
model's `forward`, or it is carried out where clips are handed to the model; `leveled` does what is left to do. A rule
must be idempotent: a clip at its level stays as it is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ssl_audio.errors import InputError

Level = str | nn.Module
RULES = ("peak", "none")


def check_level(level: Any) -> None:
    """Raise InputError for what is no level rule."""
    if not isinstance(level, nn.Module) and level not in RULES:
        raise InputError(f"level is {level!r}; it must be {' or '.join(RULES)}, or a module that sets the level")


def set_level(clips: Tensor, level: Level) -> Tensor:
    """Clips at the level that a rule sets.

    Args:
        clips: `(batch, samples)` float.
        level: "peak", "none" or a module.

    Returns:
        `(batch, samples)`.

    Example:
        >>> set_level(torch.tensor([[0.0, 0.25, -0.5], [0.0, 0.0, 0.0]]), "peak").tolist()
        [[0.0, 0.5, -1.0], [0.0, 0.0, 0.0]]
    """
    if isinstance(level, nn.Module):
        return level(clips)
    if level == "none":
        return clips
    peak = clips.abs().amax(dim=1, keepdim=True)
    return clips / torch.where(peak > 0, peak, torch.ones_like(peak))


def leveled(model: nn.Module, clips: Tensor) -> Tensor:
    """Clips as the model's `forward` expects them. What takes files or arrays passes each clip through this function.

    Args:
        model: a model. One without the attribute `level` takes clips as they are.
        clips: `(batch, samples)` float.

    Returns:
        `(batch, samples)`; the same tensor if the model has no rule, or carries it out itself.
    """
    return clips if getattr(model, "level_in_forward", True) else set_level(clips, level_of(model))


def level_of(model: nn.Module) -> Level:
    """The level rule of a model; "none" if it has none."""
    return getattr(model, "level", "none")


def level_name(level: Level) -> str:
    """A rule as text: its name, or the path of its class."""
    return level if isinstance(level, str) else f"{type(level).__module__}.{type(level).__qualname__}"
