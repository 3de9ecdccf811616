"""Encoders that stay outside of the package: they can be called, and neither saved, exported nor trained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_audio.config import refuse_outside
from ssl_audio.encoders.base import Encoder
from ssl_audio.errors import InputError


class Outside(nn.Module):
    """Of an encoder that refers to a file or to code of others.

    Attributes:
        origin: the address that it was loaded by, for messages.
        outside: what besides the file makes it what it is (its options). Together with `sha256` it takes the place of
            constructor arguments in `provenance.fingerprint`, so that a file may move.
        sha256: of the file, as 32 bytes.
    """

    by_address = True  # no config makes one
    origin: str
    outside: Mapping[str, Any] | None = None
    sha256: Tensor

    def refer(self, origin: str, sha256: str, **outside: Any) -> None:
        """Set the attributes."""
        self.origin, self.outside = origin, outside
        self.register_buffer("sha256", torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8))

    def train(self, mode: bool = True) -> "Outside":
        """Evaluation mode alone."""
        if mode:
            refuse_outside(self, "trained")
        return super().train(mode)


@dataclass(frozen=True)
class Rows:
    """What a table holds of one file.

    Attributes:
        start, end: `(rows,)` in seconds; None where the table does not say.
        values: `(rows, dim)` float32.
    """

    start: np.ndarray | None
    end: np.ndarray | None
    values: np.ndarray

    def mean(self) -> np.ndarray:
        """`(dim,)` float32."""
        return self.values.astype(np.float64).mean(axis=0).astype(np.float32)


class PathEncoder(Outside, Encoder):
    """An encoder that finds vectors by the path of a file instead of computing them."""

    def look_up(self, paths: Sequence[Path]) -> list[Rows]:
        """The rows of each file.

        Raises:
            InputError: files that it does not have.
        """
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """Refused: samples have no path."""
        raise InputError(f"{self.origin} holds embeddings of files and cannot embed audio; give it paths")
