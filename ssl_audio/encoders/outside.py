"""Encoders that refer to foreign files or code. They can be called, but not saved, exported or trained."""

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
    """A mixin for encoders that refer to a foreign file or to foreign code.

    Attributes:
        origin: the address that loaded the encoder, for messages.
        outside: the options that its output depends on. `provenance.fingerprint` uses `sha256` and `outside` instead of
            constructor arguments, so a moved file keeps its fingerprint.
        sha256: SHA-256 of the file, as 32 bytes.
    """

    by_address = True  # a config must not create it
    origin: str
    outside: Mapping[str, Any] | None = None
    sha256: Tensor

    def refer(self, origin: str, sha256: str, **outside: Any) -> None:
        """Set the attributes."""
        self.origin, self.outside = origin, outside
        self.register_buffer("sha256", torch.tensor(list(bytes.fromhex(sha256)), dtype=torch.uint8))

    def train(self, mode: bool = True) -> "Outside":
        """Accept evaluation mode only. Raises InputError for training mode."""
        if mode:
            refuse_outside(self, "trained")
        return super().train(mode)


@dataclass(frozen=True)
class Rows:
    """The rows of one file in a table.

    Attributes:
        start, end: `(rows,)` limits in seconds; None if the table has none.
        values: `(rows, dim)` float32 embeddings.
    """

    start: np.ndarray | None
    end: np.ndarray | None
    values: np.ndarray

    def mean(self) -> np.ndarray:
        """The mean over the rows, `(dim,)` float32."""
        return self.values.astype(np.float64).mean(axis=0).astype(np.float32)


class PathEncoder(Outside, Encoder):
    """An encoder that looks vectors up by the path of a file instead of computing them."""

    def look_up(self, paths: Sequence[Path]) -> list[Rows]:
        """The rows of each file.

        Raises:
            InputError: it does not have all files.
        """
        raise NotImplementedError

    def forward(self, features: Tensor) -> Tensor:
        """Raises InputError, because samples have no path."""
        raise InputError(f"{self.origin} has embeddings of files and cannot embed samples; give paths of files")
