"""Atomic writing: to a temporary file in the same folder, which is then renamed over the target."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_audio.errors import InputError

PARTIAL = ".partial-"  # prefix of temporary names


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`. On success it replaces `path`; on any error it is removed.

    The temporary name keeps the suffix of `path`, because many writers choose the format by it.

        with write_atomically("scores.csv") as temporary:
            frame.to_csv(temporary)

    Raises:
        InputError: `path` is a folder, or its folder cannot be created or written.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, mode = _new(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror}; choose another place") from error
    try:
        yield temporary
        os.chmod(temporary, mode)  # the writer may have replaced the file by one that only its owner can read
        # Flush the content to disk before the rename; otherwise a power cut may leave an empty file.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically: a reader sees the old file or the new one, never a part."""
    with write_atomically(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="surrogateescape")  # file names keep their bytes


def _new(path: Path) -> tuple[Path, int]:
    """Create an empty temporary file in the folder of `path`. Return it, and the mode that the umask gives.

    (`os.umask` can only be read by setting it, which is a race between threads.)
    """
    while True:
        temporary = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}{path.suffix}")
        with suppress(FileExistsError), open(temporary, "xb") as file:
            return temporary, stat.S_IMODE(os.fstat(file.fileno()).st_mode)
