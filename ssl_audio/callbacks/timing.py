"""How much of a run a callback costs."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Sums the time inside its `measure()` blocks since it was made or `restart`ed."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        self._start = time.perf_counter()
        self.seconds = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.add(time.perf_counter() - start)

    def add(self, seconds: float) -> None:
        self.seconds += seconds

    @property
    def share(self) -> float:
        """Of the time since the start, in [0, 1]."""
        return self.seconds / max(time.perf_counter() - self._start, 1e-9)
