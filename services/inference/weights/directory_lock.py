"""Lets one process at a time write to a directory that several share."""

from __future__ import annotations

import errno
import fcntl
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_FILE: Final = ".vilix-lock"
_WITHOUT_LOCKS: Final = (errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOLCK)
"""The errors of file systems without locks, such as some over FUSE (object storage) or SMB."""
_log: Final = logging.getLogger(__name__)


@contextmanager
def held(directory: Path, *, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock of `directory`. Calls `on_wait` before it waits for another process.

    On a file system without locks, nothing is held: what two processes write at the same time must be verified.
    """
    with (directory / _FILE).open("w") as lock:
        try:
            _acquire(lock.fileno(), on_wait)
        except OSError as error:
            if error.errno not in _WITHOUT_LOCKS:
                raise
            _log.warning("the file system has no locks (%s); let only one process download", error.strerror)
        yield


def is_held(directory: Path) -> bool:
    """Return whether a process holds the lock of `directory`, or could: a file system without locks does not say."""
    try:
        with (directory / _FILE).open("w") as lock:
            fcntl.flock(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise
        return True
    return False


def _acquire(lock: int, on_wait: Callable[[], None]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        on_wait()
        fcntl.flock(lock, fcntl.LOCK_EX)
