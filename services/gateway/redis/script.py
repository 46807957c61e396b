"""Lua scripts, which Redis keeps and runs by their digest."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from services.gateway.redis.pipeline import PipelinedRedis

AT_ONCE: Final = 16
"""The most commands at the same time to a server or cluster to which they cannot be pipelined."""


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

    async def run_many(self, redis: Redis, calls: Sequence[tuple[str, ...]]) -> list[Any]:
        """Run the script for each of `calls`, a key and its arguments, and return the replies, or errors instead.

        Raises RedisError if the connection ends before all have a reply.
        """
        if not isinstance(redis, PipelinedRedis) or not calls:
            return await self._run_each(redis, calls)
        replies = await redis.execute_many([("EVALSHA", self._digest, 1, *call) for call in calls])
        unknown = [number for number, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
        for number, reply in zip(unknown, await self._run_each(redis, [calls[n] for n in unknown]), strict=True):
            replies[number] = reply
        return replies

    async def _run_each(self, redis: Redis, calls: Sequence[tuple[str, ...]]) -> list[Any]:
        replies: list[Any] = []
        for first in range(0, len(calls), AT_ONCE):
            some = (self.run(redis, *call) for call in calls[first : first + AT_ONCE])
            replies += await asyncio.gather(*some, return_exceptions=True)
        return replies
