"""Lua scripts, which Redis keeps and runs by their digest."""

from __future__ import annotations

import hashlib
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError


class Script:
    """A Lua script. It is sent by its digest, and in full only to a server that does not know it (any more)."""

    def __init__(self, source: str) -> None:
        self._source: Final = source
        self._digest: Final = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, key: str, *arguments: str) -> Any:
        """Run the script with one key, and return its reply. Raises RedisError."""
        try:
            # `evalsha` does the same in more steps. redis-py does not type it.
            command = ("EVALSHA", self._digest, 1, key, *arguments)
            return await redis.execute_command(*command)  # type: ignore[no-untyped-call]
        except NoScriptError:
            return await redis.eval(self._source, 1, key, *arguments)
