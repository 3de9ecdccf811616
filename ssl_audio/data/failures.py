"""Recordings that cannot be used: the report of a run, and the point at which there are too many."""

import logging
from collections.abc import Sequence

from ssl_audio.data.index import LeftOut, write_data_report
from ssl_audio.errors import InputError

logger = logging.getLogger(__name__)

_JUDGED_FROM = 100  # clips drawn before their failures are counted against the limit


class NoAudioError(InputError):
    """Recording after recording could not be read. Stays one line when a DataLoader's worker wraps its traceback."""

    def __init__(self, message: str) -> None:
        super().__init__(message.rstrip().splitlines()[-1].rpartition(f"{type(self).__name__}: ")[2])


class FailureLog:
    """Counts clips that could not be read, names each recording once, and stops a run that loses too many.

    Args:
        max_failures: fraction of the drawn clips that may fail, counted from 100 clips on.

    Attributes:
        left_out: what the scan left out, then what failed in training, each recording once.
        path: of the report; "" writes none.

    Raises:
        InputError: `max_failures` is not in [0, 1].
    """

    def __init__(self, max_failures: float) -> None:
        if not 0 <= max_failures <= 1:
            raise InputError(f"data.max_failures is {max_failures}; it must be from 0 to 1")
        self.max_failures = max_failures
        self.left_out: list[LeftOut] = []
        self.path = ""
        self._known: set[str] = set()
        self._drawn = self._failed = 0

    def begin(self, left_out: Sequence[LeftOut], path: str) -> None:
        """Take in what a scan left out, and write the report to `path`."""
        self.path = path
        self._add(left_out)
        self.write()

    def _add(self, left_out: Sequence[LeftOut]) -> list[LeftOut]:
        """Those of the recordings that the log did not have yet."""
        fresh = {item.path: item for item in left_out if item.path not in self._known}
        self._known.update(fresh)
        self.left_out += fresh.values()
        return [*fresh.values()]

    def write(self) -> None:
        """Write the report: path and reason of each recording."""
        if self.path:
            write_data_report(self.path, self.left_out)

    def count(self, drawn: int, failures: Sequence[LeftOut]) -> None:
        """Take in a batch: how many clips were drawn for it, and which recordings failed on the way.

        Raises:
            InputError: more than `max_failures` of all drawn clips have failed.
        """
        self._drawn += drawn
        self._failed += len(failures)
        if fresh := self._add(failures):
            self.write()
            for item in fresh:
                logger.warning("%s: %s; another file takes its place (see %s)", item.path, item.reason, self.path)
        if self._drawn >= _JUDGED_FROM and self._failed > self.max_failures * self._drawn:
            last = " ".join(self.left_out[-1]) if self.left_out else ""
            raise InputError(
                f"{self._failed} of {self._drawn} clips drawn in training could not be used, more than "
                f"data.max_failures = {self.max_failures:g} allows; the last: {last}"
            )
