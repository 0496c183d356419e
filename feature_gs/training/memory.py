"""Keeps memory that a step has freed for the next step."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of mallopt(3)
_KEEP = 1 << 30  # bytes at the top of the heap


def keep_freed_memory() -> None:
    """Tells glibc's allocator not to hand freed memory back to the system at every step.

    Gradients of some megabytes are allocated and freed each step. By default each of them is fresh memory
    from the system, whose pages are cleared one by one at first touch. Does nothing where there is no glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _KEEP)
