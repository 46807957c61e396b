"""Settings of glibc's memory allocator, so that a process returns the memory that a burst of traffic has needed.

By default, glibc has eight heaps per processor. It also raises the size from which it returns freed blocks to the
system with every large block that is freed. The functions do nothing where the C library has no such settings.
https://www.gnu.org/software/libc/manual/html_node/Malloc-Tunable-Parameters.html
"""

from __future__ import annotations

import ctypes
from typing import Final

# The values are from glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_THRESHOLD_BYTES: Final = 64 * 1024
_ARENAS: Final = 2


def limit_arenas() -> None:
    """Let threads share heaps; otherwise each thread that parses a body keeps a heap of its own.

    Call it before threads are started.
    """
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, _ARENAS)


def return_freed_memory() -> None:
    """Return large blocks to the system as soon as they are freed. Call it before threads are started.

    Without it, a flooded connection leaves hundreds of unused megabytes behind. Each copy of a large block becomes
    three times slower, so that a process that copies large bodies must not use it.
    """
    limit_arenas()
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _THRESHOLD_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _THRESHOLD_BYTES)


def give_back_free_memory() -> None:
    """Return free memory to the system now. Call it in a thread: it may take some milliseconds."""
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    try:
        function: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    return function
