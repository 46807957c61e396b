"""Work that may take long, done by a few threads, in turns between those who ask for it."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

STACK_BYTES: Final = 16 * 2**20
"""Of each thread: compilers of grammars are recursive."""


class FairWork:
    """Threads that do one piece of work at a time for each caller, so that one caller's work delays no other's."""

    def __init__(self, name: str, *, threads: int) -> None:
        """`name` begins the threads' names."""
        self._waiting: Final[OrderedDict[str, deque[Callable[[], None]]]] = OrderedDict()
        """By caller, the one whose turn it is first."""
        self._busy: Final[set[str]] = set()
        """Callers for whom a thread works."""
        self._changed: Final = threading.Condition()
        self._closing = False
        # The size is that of threads that are started from now on, whoever starts them.
        before = threading.stack_size(STACK_BYTES)
        try:
            self._threads: Final = [
                threading.Thread(target=self._run, name=f"{name}-{number}", daemon=True) for number in range(threads)
            ]
            for thread in self._threads:
                thread.start()
        finally:
            threading.stack_size(before)

    def submit(self, caller: str, work: Callable[[], None]) -> None:
        """Have `work` done, after the caller's earlier work. It must not raise. After `close`, nothing happens."""
        with self._changed:
            if not self._closing:
                self._waiting.setdefault(caller, deque()).append(work)
                self._changed.notify()

    def close(self) -> None:
        """Drop what has not begun, and wait for what has."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (taken := self._take()) is not None:
            caller, work = taken
            try:
                work()
            finally:
                with self._changed:
                    self._busy.discard(caller)
                    self._changed.notify_all()

    def _take(self) -> tuple[str, Callable[[], None]] | None:
        """The next piece of work, with its caller; None when the threads are to end."""
        with self._changed:
            while not self._closing:
                for caller, pieces in self._waiting.items():
                    if caller not in self._busy:
                        work = pieces.popleft()
                        del self._waiting[caller]
                        if pieces:
                            # Others have their turn first.
                            self._waiting[caller] = pieces
                        self._busy.add(caller)
                        return caller, work
                self._changed.wait()
            return None
