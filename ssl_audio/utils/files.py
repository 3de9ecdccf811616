"""Atomic writing: to a temporary file in the same folder, which is then renamed over the target."""

import errno
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ssl_audio.errors import InputError

PARTIAL = ".partial-"  # prefix of temporary names

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""What the system says when a disk, a quota or a limit of file sizes is full."""

_REMEDIES = {
    **dict.fromkeys(NO_ROOM, "make room or choose another place"),
    errno.ENAMETOOLONG: "choose a shorter name",
}


class WriteError(InputError, OSError):
    """A file cannot be written: the disk is full, the folder is read-only, the name is too long, ...

    Attributes:
        path: the file.
        errno, strerror: as of any OSError.
    """

    def __init__(self, path: str | os.PathLike[str], number: int | None) -> None:
        reason = os.strerror(number) if number else "the system gives no reason"
        super().__init__(f"{os.fspath(path)}: cannot be written: {reason}; {_remedy(number)}")
        self.path, self.errno, self.strerror = os.fspath(path), number, reason

    def __str__(self) -> str:  # OSError's would be "[Errno 28] ..."
        return f"{self.path}: cannot be written: {self.strerror}; {_remedy(self.errno)}"

    def __reduce__(self) -> tuple[type, tuple[str, int | None]]:  # so that worker processes can pass it on
        return type(self), (self.path, self.errno)


def _remedy(number: int | None) -> str:
    return _REMEDIES.get(number or 0, "choose another place")


@contextmanager
def write_atomically(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`. On success it replaces `path`; on any error it is removed.

    The temporary name keeps the suffix of `path`, because many writers choose the format by it. A link is followed:
    the file that it points to is replaced. A pipe or device gets the content when it is complete.

        with write_atomically("scores.csv") as temporary:
            frame.to_csv(temporary)

    Raises:
        InputError: `path` is a folder.
        WriteError: its folder cannot be created or written, or there is no room.
    """
    path = Path(path)
    if os.path.isdir(path):
        raise InputError(f"{path}: is a folder; give the name of a file")
    target = Path(os.path.realpath(path)) if os.path.islink(path) else path
    stream = os.path.exists(target) and not os.path.isfile(target)
    try:
        with suppress(FileNotFoundError):
            os.lstat(target)  # refuses a name that is too long, which the temporary name is not
        if not stream:
            target.parent.mkdir(parents=True, exist_ok=True)
        temporary, mode = _new(Path(tempfile.gettempdir(), f"stream{target.suffix}") if stream else target)
    except OSError as error:
        raise WriteError(path, error.errno) from error
    try:
        yield temporary
        if stream:
            with open(temporary, "rb") as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink)
            temporary.unlink()
            return
        os.chmod(temporary, mode)  # the writer may have replaced the file by one that only its owner can read
        # Flush the content to disk before the rename; otherwise a power cut may leave an empty file.
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if not isinstance(error, WriteError) and (number := write_problem(error)):
            raise WriteError(path, number) from error
        raise


def write_problem(error: BaseException) -> int | None:
    """The system's number of what kept a file from being written, also where a library hides it in its message."""
    if isinstance(error, OSError) and error.errno in (*NO_ROOM, errno.EIO, errno.EROFS, errno.ENAMETOOLONG):
        return error.errno
    if isinstance(error, Exception):
        for number in NO_ROOM:
            if os.strerror(number) in str(error) or re.search(rf"(os error|errno:?) {number}\b", str(error)):
                return number
    return None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically: a reader sees the old file or the new one, never a part.

    Raises:
        InputError, WriteError: see `write_atomically`.
    """
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
