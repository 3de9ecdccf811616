"""Writing that is never half done: to a temporary name in the same folder, then renamed over the target."""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        temporary, mode = _new(path)
    except OSError as error:
        raise InputError(f"{path}: cannot be written there: {error.strerror}; choose another place") from error
    try:
        yield temporary
        os.chmod(temporary, mode)  # what wrote it may have made it anew, for its owner alone
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


def _new(path: Path) -> tuple[Path, int]:
    """An empty file beside `path`, and its mode as the umask has it, which cannot be asked for without being changed:
    threads that did so at once would leave the process with none."""
    while True:
        temporary = path.with_name(f"{PARTIAL}{secrets.token_hex(8)}{path.suffix}")
        with suppress(FileExistsError), open(temporary, "xb") as file:
            return temporary, stat.S_IMODE(os.fstat(file.fileno()).st_mode)
