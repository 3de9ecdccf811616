"""What a model costs: parameters, size of an embedding, time; and its licence."""

import platform
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ssl_audio.utils.cpu import available_cores
from ssl_audio.utils.device import best_device


@dataclass(frozen=True)
class ModelCost:
    """Costs of a model.

    Attributes:
        parameters: number of weights; None for a model outside of torch, whose weights are not seen.
        dim: size of an embedding.
        seconds_per_hour: time to embed an hour of audio on this machine, with reading and resampling; None if nothing
            was embedded.
        licence: of the weights, as the card or the package states it; "-" for a model without trained weights.
    """

    parameters: int | None
    dim: int
    seconds_per_hour: float | None
    licence: str

    @property
    def embedding_bytes(self) -> int:
        """Size of an embedding in float32."""
        return 4 * self.dim

    def summary(self) -> dict[str, Any]:
        """All numbers and the licence, ready for JSON."""
        return {**self.__dict__, "embedding_bytes": self.embedding_bytes}

    def __add__(self, other: "ModelCost") -> "ModelCost":
        """The cost of both models, one after the other."""
        licences = ", ".join(dict.fromkeys((self.licence, other.licence)))
        parameters, seconds = (
            None if a is None or b is None else a + b
            for a, b in ((self.parameters, other.parameters), (self.seconds_per_hour, other.seconds_per_hour))
        )
        return ModelCost(parameters, self.dim + other.dim, seconds, licences)  # type: ignore[arg-type]


def model_cost(model: nn.Module, seconds_per_hour: float | None, licence: str) -> ModelCost:
    """The cost of a model that took `seconds_per_hour`, such as `KeptEmbeddings` measures them."""
    counted: int | None = sum(parameter.numel() for parameter in model.parameters())
    if not counted and any(getattr(part, "outside", None) is not None for part in model.modules()):
        counted = None
    return ModelCost(counted, model.dim, seconds_per_hour, licence)  # type: ignore[arg-type]


def machine(device: str | None = None) -> str:
    """The machine that times are of: `2 cores, x86_64, cpu`, or the name of the GPU in place of cpu."""
    kind = best_device(device)
    name = torch.cuda.get_device_name(kind) if kind.type == "cuda" else kind.type
    return f"{available_cores()} cores, {platform.machine()}, {name}"
