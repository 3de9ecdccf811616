"""The base classes of transforms of one clip, checks of arguments, and audiomentations with reproducible draws."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ssl_audio.errors import InputError

Audio = NDArray[np.float32]


def check_range(name: str, low: float, high: float, at_least: float = -np.inf, at_most: float = np.inf) -> None:
    """Check the range of a parameter.

    Raises:
        InputError: not `at_least <= low <= high <= at_most`.
    """
    if not at_least <= low <= high <= at_most:
        limits = f" within [{at_least:g}, {at_most:g}]" if np.isfinite([at_least, at_most]).any() else ""
        raise InputError(f"{name}: the range [{low:g}, {high:g}] must go from small to large{limits}")


def check_probability(name: str, p: float) -> None:
    """Check a probability.

    Raises:
        InputError: it is not in [0, 1].
    """
    if not 0 <= p <= 1:
        raise InputError(f"{name}: p is a probability and must be in [0, 1], not {p:g}")


class ClipTransform(ABC):
    """A transform that is applied to a clip with probability `p`.

    A subclass defines `apply`, which must not change its input in place.

    Args:
        p: probability, in [0, 1].
    """

    def __init__(self, p: float = 0.5) -> None:
        check_probability(type(self).__name__, p)
        self.p = p

    def __call__(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        """Transform a clip with probability `p`; otherwise return it unchanged.

        Args:
            audio: `(samples,)` float32 in [-1, 1].
            sample_rate: in Hz.
            rng: source of every draw; each clip has its own.

        Returns:
            `(samples,)` float32, of the same length.
        """
        if rng.random() >= self.p or len(audio) == 0:
            return audio
        result = np.asarray(self.apply(audio, sample_rate, rng), dtype=np.float32)
        if result.shape != audio.shape:
            raise ValueError(f"{type(self).__name__} turned {audio.shape} samples into {result.shape}")
        return result

    @abstractmethod
    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        """Transform `(samples,)` -> `(samples,)`, with parameters drawn from `rng`."""


class FromAudiomentations(ClipTransform):
    """A transform of audiomentations that draws from the clip's generator instead of the global ones.

    Args:
        p: probability; drawn here, not by audiomentations.
        name: name of the class in audiomentations.
        arguments: its other arguments.

    Raises:
        InputError: audiomentations refuses the arguments.
    """

    def __init__(self, p: float, name: str, **arguments: Any) -> None:
        super().__init__(p)
        import audiomentations

        try:
            self._transform = getattr(audiomentations, name)(p=1.0, **arguments)
        except (AssertionError, ValueError) as error:
            given = ", ".join(f"{key}={value}" for key, value in arguments.items())
            raise InputError(f"{type(self).__name__} cannot take {given}: {error or 'values out of range'}") from error

    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        with global_seed(rng):
            return self._transform(audio, sample_rate)


@contextmanager
def global_seed(rng: Generator) -> Iterator[None]:
    """Inside, `random` and `numpy.random` are seeded from `rng`. Afterwards both have their former state."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    seed = int(rng.integers(2**32))
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
