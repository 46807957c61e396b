"""Commands to Redis that are answered in time, or not at all: no request waits long for a Redis that is away."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import NoScriptError, RedisError

from services.gateway import metrics
from services.gateway.redis.redis_connection import LEAST_SECONDS, disconnect
from services.gateway.redis.redis_rejection import WriteRejection, rejection_of, try_writing

T = TypeVar("T")
PROBE_SECONDS: Final = 0.1
WRITE_PROBE_SECONDS: Final = 0.5
CALM_SECONDS: Final = 2.0
"""So long no write may be refused before the state ends: at the limit of its memory, Redis takes only some writes."""
IN_FLIGHT: Final = 16
TURNS: Final = 16
"""Extra turns of the event loop after a time-out, so that a reply that a busy loop has not yet read still counts."""
_log: Final = logging.getLogger(__name__)


class RedisAwayError(Exception):
    """Redis did not answer in time, or could not do what was asked."""


class RedisRejectedError(RedisAwayError):
    """Redis answered, and refused to write. It can still be read."""

    def __init__(self, cause: WriteRejection) -> None:
        """The reason is `cause`."""
        super().__init__(cause)
        self.cause: Final = cause


class RedisLink:
    """The gateway's use of Redis. `open` and `close` it."""

    def __init__(self, redis: Redis, *, timeout: float) -> None:
        """No command takes longer than `timeout` seconds, and none is tried while Redis is known to be away."""
        self.redis: Final = redis
        self.away = False
        self.rejection: WriteRejection | None = None
        """Why Redis refuses writes at the moment. Commands are sent all the same: reads and other nodes may work."""
        self.changed: Final = asyncio.Event()
        """Set whenever Redis is back, begins to refuse writes, or takes them again."""
        self._timeout: Final = timeout
        # A crowd of requests waits here, and not with its time-out running.
        self._room: Final = asyncio.Semaphore(IN_FLIGHT)
        self._probe: asyncio.Task[None] | None = None
        self._write_probe: asyncio.Task[None] | None = None
        self._rejected_at = 0.0

    async def close(self) -> None:
        """Stop looking for Redis, and close its connections."""
        for probe in (self._probe, self._write_probe):
            if probe is not None:
                probe.cancel()
                await asyncio.gather(probe, return_exceptions=True)
        await disconnect(self.redis)

    async def run(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """What `command` returns. Raises RedisAwayError, RedisRefusedError where Redis refuses to write."""
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
                cause = rejection_of(error)
                if cause is not None:
                    metrics.REDIS_REJECTED_WRITES.labels(cause).inc()
                    self._rejected(cause, error)
                    raise RedisRejectedError(cause) from error
                self._lost(error)
                raise RedisAwayError from error

    def _rejected(self, cause: WriteRejection, error: Exception | None = None) -> None:
        self._rejected_at = asyncio.get_running_loop().time()
        if cause is self.rejection:
            return
        self.rejection = cause
        metrics.REDIS_REJECTS_WRITES.set(1)
        more = {"cause": str(cause)} | ({"error": str(error)[:200]} if error else {})
        _log.warning("redis refuses writes", extra=more)
        self.changed.set()
        if self._write_probe is None or self._write_probe.done():
            self._write_probe = asyncio.create_task(self._try_writing())

    async def _try_writing(self) -> None:
        while self.rejection is not None:
            await asyncio.sleep(WRITE_PROBE_SECONDS)
            if self.rejection is WriteRejection.READ_ONLY and (pool := getattr(self.redis, "connection_pool", None)):
                # They may lead to a server that is no primary any more; new ones may lead to the one that is.
                await pool.disconnect(inuse_connections=False)
            try:
                async with asyncio.timeout(max(self._timeout, LEAST_SECONDS)):
                    cause = await try_writing(self.redis)
            except (RedisError, OSError, TimeoutError):
                # It does not answer: the next command finds that out.
                self._rejected_at = asyncio.get_running_loop().time()
                continue
            if cause is not None:
                self._rejected(cause)
            elif asyncio.get_running_loop().time() - self._rejected_at >= CALM_SECONDS:
                self.rejection = None
                metrics.REDIS_REJECTS_WRITES.set(0)
                _log.warning("redis takes writes again")
                self.changed.set()

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
            except (RedisError, OSError, TimeoutError) as error:
                # After a failure to persist, Redis refuses even PING.
                cause = rejection_of(error)
                if cause is None:
                    await asyncio.sleep(PROBE_SECONDS)
                    continue
                self._rejected(cause, error)
            self.away = False
            _log.warning("redis is back")
            self.changed.set()


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
