"""What every per-clip transform shares: its probability, its checks, and audiomentations made reproducible."""

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
    """Refuse an empty or impossible range of a parameter.

    Raises:
        InputError: not at_least <= low <= high <= at_most.
    """
    if not at_least <= low <= high <= at_most:
        limits = f" within [{at_least:g}, {at_most:g}]" if np.isfinite([at_least, at_most]).any() else ""
        raise InputError(f"{name}: the range [{low:g}, {high:g}] must go from small to large{limits}")


def check_probability(name: str, p: float) -> None:
    """Refuse a `p` outside [0, 1] (InputError)."""
    if not 0 <= p <= 1:
        raise InputError(f"{name}: p is a probability and must be in [0, 1], not {p:g}")


class ClipTransform(ABC):
    """A transform that touches a clip with probability `p`.

    Subclasses write `apply`, which must not change its input in place.
    """

    def __init__(self, p: float = 0.5) -> None:
        check_probability(type(self).__name__, p)
        self.p = p

    def __call__(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        """Transform a clip, or return it as it is.

        Args:
            audio: (samples,) float32 in [-1, 1].
            sample_rate: Hz.
            rng: the clip's own random numbers.

        Returns:
            (samples,) float32, as long as the input.
        """
        if rng.random() >= self.p or len(audio) == 0:
            return audio
        result = np.asarray(self.apply(audio, sample_rate, rng), dtype=np.float32)
        if result.shape != audio.shape:
            raise ValueError(f"{type(self).__name__} turned {audio.shape} samples into {result.shape}")
        return result

    @abstractmethod
    def apply(self, audio: Audio, sample_rate: int, rng: Generator) -> Audio:
        """The transform itself, its parameters drawn from `rng`: (samples,) -> (samples,)."""


class FromAudiomentations(ClipTransform):
    """A transform of audiomentations, drawing from the clip's generator instead of the global ones.

    Args:
        p: probability, drawn here and not by the library.
        name: class name in audiomentations.
        arguments: its other arguments.
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
    """Seed `random` and `numpy.random` from `rng`, and put both back as they were: other code draws from them too."""
    python_state, numpy_state = random.getstate(), np.random.get_state()
    seed = int(rng.integers(2**32))
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
