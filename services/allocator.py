"""Keeps the memory allocator of C from holding what a burst of traffic has needed."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_THRESHOLD_BYTES: Final = 64 * 1024
_ARENAS: Final = 2


def return_freed_memory() -> None:
    """Have large blocks of freed memory returned to the system at once. To be called before threads are started.

    By default glibc raises the size from which it does so with every large block that is freed, and has eight heaps for
    every processor. A connection that was flooded then leaves hundreds of megabytes behind, although nothing uses them.
    Does nothing where the C library has no such settings.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
    mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)
    mallopt(_M_ARENA_MAX, _ARENAS)
