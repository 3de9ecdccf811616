"""The one exception that a person is meant to read."""


class InputError(ValueError):
    """Something that the user gave is wrong: a file, a key, a combination.

    The message is one line that names the thing and the remedy. Commands print it as `error: <message>`
    and exit with status 2; library callers can catch it as a ValueError.
    """
