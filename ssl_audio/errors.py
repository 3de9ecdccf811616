"""The one exception that a person is meant to read."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that the user gave is wrong: a file, a key, a combination.

    The message is one line that names the thing and the remedy. Commands print it as `error: <message>`
    and exit with status 2; library callers can catch it as a ValueError.
    """


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about a wrong name: `; did you mean 'x'?`, or all names there are."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there is {', '.join(known) or 'none'}"


def first_line(error: BaseException, length: int = 300) -> str:
    """The first line of what a library says of an error, or the error's name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:length]
