"""The lock of a state directory: at most one stack uses it, and commands find the stack that does."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from services.stack.supervisor import StackError


@contextlib.contextmanager
def exclusive(state_dir: Path) -> Iterator[None]:
    """Use a state directory alone, until the context ends or the process does.

    Raises:
        StackError: Another stack uses it.
        OSError: The directory cannot be written.
    """
    with (state_dir / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise StackError(
                f"a stack is already running in {state_dir} (process {lock.read().strip() or 'unknown'}); "
                "stop it (vilix down), or choose another directory and port: vilix up --state-dir .run2 --port 8001"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def running_pid(state_dir: Path) -> int | None:
    """Return the process id of the stack that uses a state directory, or None if none does."""
    try:
        with (state_dir / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read())
    except (OSError, ValueError):
        pass
    return None
