"""A file of an operator that is read again when it changes, and whose changes the audit log notes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

from redis.asyncio import Redis

from services.gateway.redis.link import RedisAwayError, RedisLink
from services.runtime.end_tasks import end_tasks

T = TypeVar("T")
LOOK_SECONDS: Final = 0.5
_log: Final = logging.getLogger(__name__)


class WatchedFile(Generic[T]):
    """The content of a file; without a file, its content is always `absent`."""

    def __init__(self, path: Path | None, name: str, read: Callable[[Path], T], absent: T) -> None:
        """Read a file with `read`. `name` stands in log lines. Raises what `read` does: ValueError and OSError."""
        self.path: Final = path
        # Before it is read, so that a change in between is seen later.
        self._seen = self._stamp()
        self.content: T = read(path) if path else absent
        """Replaced as a whole when the file changes."""
        self._name: Final = name
        self._read: Final = read
        self._is_noted = False
        """True once the audit log knows this content."""
        self._task: asyncio.Task[None] | None = None

    def open(self, link: RedisLink, note: Callable[[Redis, T], Awaitable[None]]) -> None:
        """Begin to watch the file for changes, which `note` writes into the audit log."""
        if self.path is not None:
            self._task = asyncio.create_task(self._look(link, note))

    async def close(self) -> None:
        """Stop watching the file."""
        if self._task is not None:
            await end_tasks(self._task)

    async def _look(self, link: RedisLink, note: Callable[[Redis, T], Awaitable[None]]) -> None:
        while True:
            if not self._is_noted:
                content = self.content
                with suppress(RedisAwayError):  # It is noted when Redis is back.
                    await link.run(lambda redis, content=content: note(redis, content))  # type: ignore[misc]
                    self._is_noted = True
            await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(self._read_again)

    def _read_again(self) -> None:
        stamp = self._stamp()
        if self.path is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            self.content, self._is_noted = self._read(self.path), False
            _log.info("%s read again", self._name)
        except (ValueError, OSError) as error:
            _log.error("the %s stay as they were: %s", self._name, error)  # the traceback would add nothing

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat() if self.path else None
        except OSError:
            return None
        return (status.st_mtime_ns, status.st_ino, status.st_size) if status else None
