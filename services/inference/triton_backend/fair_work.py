"""Threads for work that may take long, which take turns between the callers."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Final

STACK_BYTES: Final = 16 * 2**20
"""The stack size of each thread: compilers of grammars are recursive."""


class FairWork:
    """Threads that run one task at a time for each caller, so that the tasks of one caller do not delay others."""

    def __init__(self, name: str, *, threads: int) -> None:
        """Start the threads, whose names begin with `name`."""
        self._waiting: Final[OrderedDict[str, deque[Callable[[], None]]]] = OrderedDict()
        """Waiting tasks by caller, the caller whose turn it is first."""
        self._busy: Final[set[str]] = set()
        """The callers with a running task."""
        self._changed: Final = threading.Condition()
        self._closing = False
        # The stack size applies to all threads of the process that are started from now on, so that it is set back.
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
        """Run `work`, which must not raise, after the caller's earlier work. After `close`, it is ignored."""
        with self._changed:
            if not self._closing:
                self._waiting.setdefault(caller, deque()).append(work)
                self._changed.notify()

    def close(self) -> None:
        """Drop waiting tasks, and wait for the running ones."""
        with self._changed:
            self._closing = True
            self._waiting.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (task := self._take()) is not None:
            caller, work = task
            try:
                work()
            finally:
                with self._changed:
                    self._busy.discard(caller)
                    self._changed.notify_all()

    def _take(self) -> tuple[str, Callable[[], None]] | None:
        """Wait for the next task, and return it with its caller, or None when the threads are to end."""
        with self._changed:
            while not self._closing:
                for caller, tasks in self._waiting.items():
                    if caller not in self._busy:
                        work = tasks.popleft()
                        del self._waiting[caller]
                        if tasks:
                            # The caller goes to the end: the others have their turn first.
                            self._waiting[caller] = tasks
                        self._busy.add(caller)
                        return caller, work
                self._changed.wait()
            return None
