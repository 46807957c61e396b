"""Commands to Redis that are answered in time, or not at all: no request waits long for a Redis that is away."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from services.gateway import metrics
from services.gateway.redis_connection import disconnect

T = TypeVar("T")
PROBE_SECONDS: Final = 0.1
IN_FLIGHT: Final = 16
FULL_SECONDS: Final = 11.0
"""After a refusal. Longer than twice the time between two beats of the census, which are refused as well."""
TURNS: Final = 16
"""Of the event loop, after the time-out: what came in time and was not looked at yet, because the loop was busy, counts."""
_log: Final = logging.getLogger(__name__)


class RedisAwayError(Exception):
    """Redis did not answer in time, or could not do what was asked."""


class RedisLink:
    """The gateway's use of Redis. `open` and `close` it."""

    def __init__(self, redis: Redis, *, timeout: float) -> None:
        """No command takes longer than `timeout` seconds, and none is tried while Redis is known to be away."""
        self.redis: Final = redis
        self.away = False
        self._full_until = float("-inf")
        self._was_full = False
        self._timeout: Final = timeout
        # A crowd of requests waits here, and not with its time-out running.
        self._room: Final = asyncio.Semaphore(IN_FLIGHT)
        self._probe: asyncio.Task[None] | None = None

    @property
    def full(self) -> bool:
        """Whether Redis refused to store something in the last seconds, because its memory is full."""
        full = time.monotonic() < self._full_until
        if self._was_full and not full:
            self._was_full = False
            metrics.REDIS_FULL.set(0)
            _log.warning("redis stores again")
        return full

    async def close(self) -> None:
        """Stop looking for Redis, and close its connections."""
        if self._probe is not None:
            self._probe.cancel()
            await asyncio.gather(self._probe, return_exceptions=True)
        await disconnect(self.redis)

    async def run(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """What `command` returns. Raises RedisAwayError."""
        async with self._room:
            if self.away:
                raise RedisAwayError
            try:
                async with asyncio.timeout(None) as limit:
                    expiry = _Expiry(limit, self._timeout)
                    try:
                        return await command(self.redis)
                    finally:
                        expiry.cancel()
            except (RedisError, OSError, TimeoutError) as error:
                if "OOM command not allowed" in str(error):
                    # It answers, and can be read: only what must be stored is decided without it.
                    self._refused()
                else:
                    self._lost(error)
                raise RedisAwayError from error

    def _refused(self) -> None:
        metrics.REDIS_FULL_REFUSALS.inc()
        metrics.REDIS_FULL.set(1)
        if not self.full:
            _log.error("redis is full: it stores no keys, limits and usage; give it more memory")
        self._was_full = True
        self._full_until = time.monotonic() + FULL_SECONDS

    def _lost(self, error: Exception) -> None:
        if not self.away:
            self.away = True
            _log.warning("redis is away", extra={"error": f"{type(error).__name__}: {error}"[:200]})
            self._probe = asyncio.create_task(self._look())

    async def _look(self) -> None:
        while self.away:
            try:
                async with asyncio.timeout(max(self._timeout, PROBE_SECONDS)):
                    await self.redis.ping()
                self.away = False
                _log.warning("redis is back")
            except (RedisError, OSError, TimeoutError):
                await asyncio.sleep(PROBE_SECONDS)


class _Expiry:
    """Ends a time limit after some seconds and some turns of the event loop."""

    def __init__(self, limit: asyncio.Timeout, seconds: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._limit = limit
        self._turns = TURNS
        self._handle: asyncio.Handle = self._loop.call_later(seconds, self._turn)

    def cancel(self) -> None:
        self._handle.cancel()

    def _turn(self) -> None:
        if self._turns:
            self._turns -= 1
            self._handle = self._loop.call_soon(self._turn)
        else:
            self._limit.reschedule(self._loop.time())


class Script:
    """A Lua script, by its digest; sent in whole to a server that does not know it (any more)."""

    def __init__(self, source: str) -> None:
        """Of the script's text."""
        self._source: Final = source
        self._digest: Final = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def run(self, redis: Redis, key: str, *arguments: str) -> Any:
        """Its answer. Raises RedisError."""
        try:
            return await redis.evalsha(self._digest, 1, key, *arguments)
        except NoScriptError:
            return await redis.eval(self._source, 1, key, *arguments)
