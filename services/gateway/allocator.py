"""Makes the C library give the memory of large bodies back to the system."""

from __future__ import annotations

import ctypes
from typing import Final

# From malloc.h of glibc.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
LARGE_BYTES: Final = 2**20
ARENAS: Final = 2


def give_back_large_blocks() -> None:
    """Give blocks of at least LARGE_BYTES back as soon as they are freed. Does nothing where the C library is not glibc.

    Otherwise glibc raises that threshold to 32 MiB with the first large block that is freed, and keeps those that come
    after it; and each thread that parses a body would keep a heap of its own.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in (
        (_M_MMAP_THRESHOLD, LARGE_BYTES),
        (_M_TRIM_THRESHOLD, 4 * LARGE_BYTES),
        (_M_ARENA_MAX, ARENAS),
    ):
        mallopt(option, value)
