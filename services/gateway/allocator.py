"""Makes the C library give the memory of large bodies back to the system. Does nothing where it is not glibc."""

from __future__ import annotations

import ctypes
from typing import Final

# From malloc.h of glibc.
_M_ARENA_MAX: Final = -8
ARENAS: Final = 2


def limit_arenas() -> None:
    """Let threads share heaps: otherwise each thread that parses a body keeps one of its own."""
    mallopt = _function("mallopt")
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)


def give_back_free_memory() -> None:
    """Give free memory back. To be called in a thread: it may take some milliseconds.

    To have large blocks given back whenever they are freed would be simpler, and makes each copy of one three times slower.
    """
    malloc_trim = _function("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _function(name: str) -> ctypes._NamedFuncPointer | None:
    try:
        found: ctypes._NamedFuncPointer = getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError):
        return None
    return found
