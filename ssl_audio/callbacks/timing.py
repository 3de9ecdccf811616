"""How much of a run's time a callback takes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Sums the time inside of its `measure()` blocks, from its construction or the last `restart` on."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew at 0."""
        self._start = time.perf_counter()
        self.seconds = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Count the time that the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(time.perf_counter() - start)

    def add(self, seconds: float) -> None:
        """Count time that was measured elsewhere."""
        self.seconds += seconds

    @property
    def fraction(self) -> float:
        """Of the time since the start that was measured, in [0, 1]."""
        return self.seconds / max(time.perf_counter() - self._start, 1e-9)
