"""Keeps the memory allocator of C from holding what a burst of traffic has needed.

By default glibc has eight heaps for every processor, and raises the size from which it returns a freed block with every
large block that is freed. Does nothing where the C library has no such settings.
"""

from __future__ import annotations

import ctypes
from typing import Final

# From malloc.h of glibc.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_THRESHOLD_BYTES: Final = 64 * 1024
_ARENAS: Final = 2


def limit_arenas() -> None:
    """Let threads share heaps: otherwise each thread that parses a body keeps one of its own.

    To be called before threads are started.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def return_freed_memory() -> None:
    """Have large blocks of freed memory returned to the system at once. To be called before threads are started.

    Without it, a connection that was flooded leaves hundreds of megabytes behind, although nothing uses them. It makes
    each copy of a large block three times slower, so it is not for a process that copies large bodies.
    """
    limit_arenas()
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)


def give_back_free_memory() -> None:
    """Return free memory to the system now. To be called in a thread: it may take some milliseconds."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    try:
        found: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    return found
