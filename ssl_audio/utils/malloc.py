"""Settings of the C library's memory allocator."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # constants of glibc's malloc.h
LARGEST = 2**30  # bytes; larger blocks still return to the kernel when they are freed (glibc's default: 128 kB)


def keep_freed_memory() -> None:
    """Raise the thresholds of glibc's malloc, so that freed blocks are reused instead of returned to the kernel.

    Otherwise each training step page-faults its large buffers again, which takes up to a third of a step on a CPU. The
    resident memory stays at its peak. The setting holds for the whole process, so commands call this function, and
    importing the package does not. With other C libraries nothing happens. See `mallopt(3)`.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST)
        mallopt(M_TRIM_THRESHOLD, 2 * LARGEST - 1)
