"""What the C library does with memory that was freed."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST = 2**30  # bytes; a block above it is given back at once, as blocks above 128 kB are otherwise


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for what is allocated next; elsewhere nothing happens.

    It would give large blocks back to the system and ask for them again, page by page and zeroed, at every step: up to
    a third of a training step on a CPU. The process stays as large as it has once been. Set for the whole process, so
    that commands call this, never the import of the package. `mallopt(3)` describes both numbers.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, 2 * LARGEST - 1)
