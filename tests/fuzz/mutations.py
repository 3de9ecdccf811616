"""Damaged copies of files: bytes that flip, go, come twice or are extreme, and words that nobody expects."""

import os
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import strategies as st

CPU_SECONDS = 30
"""Processor time that one damaged file may take."""

MORE_BYTES = 6 << 30
"""Address space that one damaged file may take, beside what the process has."""

_EXTREMES = (b"\x00" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\x01\x00\x00\x00", b"\x00" * 64)
_WORDS = (
    "", "0", "-1", "1e999", "nan", "null", "true", "yes", "{}", "[]", "[[", "{", "}", ":", "#", "&a [*a]", "<<: *b",
    "!!python/object:os.system x", "\u2028", "\u0000", "\ufeff", "'", '"', ",", ";", "\t", "\n", "99999999999999999999",
    "-0.5", "../../etc/passwd", "a" * 300, "é", "e\u0301", "class_path: null", "init_args: 3", "torch.nn.Linear",
    "ssl_audio.encoders.CompactCNN", "1, 2", "0x10", "\r", "%s{}", "/", "\\", "=", "|",
)  # fmt: skip

_change = st.tuples(
    st.sampled_from(["flip", "drop", "twice", "extreme", "cut", "random"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(1, 64),
    st.binary(min_size=1, max_size=8),
)
_edit = st.tuples(
    st.sampled_from(["replace", "insert", "line", "twice", "drop"]),
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(_WORDS),
)

changes = st.lists(_change, min_size=1, max_size=4)
"""Strategy: what happens to the bytes of a file."""

edits = st.lists(_edit, min_size=1, max_size=4)
"""Strategy: what happens to the words of a text."""


def changed(content: bytes, what: list[tuple[str, float, int, bytes]]) -> bytes:
    """The content after these changes."""
    data = bytearray(content)
    for kind, where, length, new in what:
        # Headers matter more than samples: half of all places are in the first 400 bytes.
        place = int(where * 2 % 1 * (len(data) if where < 0.5 else min(len(data), 400)))
        if kind == "flip":
            for i in range(place, min(place + length, len(data))):
                data[i] ^= new[i % len(new)]
        elif kind == "drop":
            del data[place : place + length]
        elif kind == "twice":
            data[place:place] = data[place : place + length]
        elif kind == "extreme":
            extreme = _EXTREMES[length % len(_EXTREMES)]
            data[place : place + len(extreme)] = extreme
        elif kind == "cut":
            del data[place:]
        else:
            data[place : place + len(new)] = new
    return bytes(data)


def edited(text: str, what: list[tuple[str, float, str]]) -> str:
    """The text after these edits: of words, or of whole lines."""
    for kind, where, word in what:
        lines = text.split("\n")
        row = int(where * len(lines))
        words = lines[row].split(" ")
        column = int(where * 997 % 1 * len(words))
        if kind == "replace":
            words[column] = word
        elif kind == "insert":
            words.insert(column, word)
        elif kind == "line":
            words = [word]
        elif kind == "twice":
            words = [lines[row] + "\n" + lines[row]]
        else:
            words = []
        lines[row] = " ".join(words)
        text = "\n".join(lines)
    return text


@contextmanager
def bounded() -> Iterator[None]:
    """An error instead of hours of work or of a machine without memory."""

    def late(number: int, frame: object) -> None:
        raise AssertionError(f"this took more than {CPU_SECONDS} s of processor time")

    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before, limit = signal.signal(signal.SIGPROF, late), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + MORE_BYTES, limit[1]))
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
        resource.setrlimit(resource.RLIMIT_AS, limit)
