"""Writing that is never half done: to a temporary name in the same folder, then renamed over the target."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ssl_audio.errors import InputError

PARTIAL = ".partial-"  # begins the temporary names


@contextmanager
def write_atomically(path: str | os.PathLike) -> Iterator[Path]:
    """Give a temporary path beside `path`; on success it replaces `path`, on any error it is removed.

    The temporary name keeps the suffix of `path`, because many writers choose the format by it.

        with write_atomically("scores.csv") as temporary:
            frame.to_csv(temporary)

    Raises:
        InputError: `path` is a folder, or its folder cannot be made or written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=PARTIAL, suffix=path.suffix, dir=path.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written there: {error.strerror}; choose another place") from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.chmod(temporary, 0o666 & ~_umask())
        with open(temporary, "rb") as file:  # on disk before the name points at it, or a power cut leaves an empty file
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write UTF-8 text so that a reader sees the old file or the new one, never a part."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
