"""The exception for mistakes of the user, and helpers for its message."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something that the user gave is wrong: a file, a key, a combination.

    The message is one line that names the thing and a remedy. Commands print it as `error: <message>` and exit with
    status 2. In Python it can be caught as a ValueError.
    """


def suggest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known name, or else all of them.

    Example:
        >>> suggest("contrastiv", ["byol", "contrastive"])
        "; did you mean 'contrastive'?"
        >>> suggest("x", ["byol", "contrastive"])
        '; choose from byol, contrastive'
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; choose from {', '.join(known)}" if known else "; there are none"


def first_line(error: BaseException, length: int = 300) -> str:
    """The first line of an error's message, or the name of its class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:length]
