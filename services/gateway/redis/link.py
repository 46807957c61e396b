"""Time-outs and a circuit breaker for commands to Redis: no request waits long for a Redis that does not reply."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.gateway import metrics
from services.gateway.redis.connection import MIN_TIMEOUT_SECONDS, disconnect
from services.gateway.redis.rejections import WriteRejection, rejection_of, try_writing
from services.runtime.end_tasks import end_tasks
from services.runtime.lasting_task import lasting_task

T = TypeVar("T")
PROBE_SECONDS: Final = 0.1
"""The pause between two attempts to reach a Redis that is away."""
WRITE_PROBE_SECONDS: Final = 0.5
CALM_SECONDS: Final = 2.0
"""Time without a rejected write that ends the state: at the limit of its memory, Redis still accepts some writes."""
MAX_IN_FLIGHT: Final = 16
GRACE_ITERATIONS: Final = 16
"""Iterations of the event loop after a time-out, so that a reply that a busy loop has not read yet still counts."""
_log: Final = logging.getLogger(__name__)


class RedisAwayError(Exception):
    """Redis did not reply in time, or replied with an error."""


class RedisRejectedError(RedisAwayError):
    """Redis replied, and rejected a write because of `cause`. It can still be read."""

    def __init__(self, cause: WriteRejection) -> None:
        super().__init__(cause)
        self.cause: Final = cause


class RedisLink:
    """The gateway's link to Redis: `run` bounds each command, and fails at once while Redis is known to be away.

    Args:
        redis: The client. `close` closes it.
        timeout: The longest time of a command, in seconds.
    """

    def __init__(self, redis: Redis, *, timeout: float) -> None:
        self.redis: Final = redis
        self.away = False
        """Whether a command failed, and no probe has succeeded since."""
        self.rejection: WriteRejection | None = None
        """The reason for which Redis rejects writes now. Commands are still sent: reads and other nodes may work."""
        self.changed: Final = asyncio.Event()
        """Set when Redis is back, begins to reject writes, or accepts them again. The reader clears it."""
        self._timeout: Final = timeout
        # A burst of requests waits here before its time-outs start, so that it does not look like an outage.
        self._capacity: Final = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._probe: asyncio.Task[None] | None = None
        self._write_probe: asyncio.Task[None] | None = None
        self._rejected_at = 0.0

    async def close(self) -> None:
        """Stop the probes, and close the connections."""
        for probe in (self._probe, self._write_probe):
            if probe is not None:
                await end_tasks(probe)
        await disconnect(self.redis)

    async def run(self, command: Callable[[Redis], Awaitable[T]]) -> T:
        """Return the result of `command`. Raises RedisAwayError, or RedisRejectedError if Redis rejects a write."""
        async with self._capacity:
            if self.away:
                raise RedisAwayError
            began = time.perf_counter()
            try:
                with _TimeLimit(self._timeout):
                    result = await command(self.redis)
            except (RedisError, OSError, TimeoutError) as error:
                cause = rejection_of(error)
                _note_command("failed" if cause is None else "rejected", began)
                if cause is not None:
                    metrics.REDIS_REJECTED_WRITES.labels(cause).inc()
                    self._rejected(cause, error)
                    raise RedisRejectedError(cause) from error
                self._open_circuit(error)
                raise RedisAwayError from error
            _note_command("ok", began)
            return result

    async def run_many(self, commands: Callable[[Redis], Awaitable[Sequence[T | BaseException]]]) -> list[T | None]:
        """Return the results of `commands`, which have one time-out together: None for each that Redis rejected.

        Raises RedisAwayError.
        """
        results: list[T | None] = []
        for result in await self.run(commands):
            if isinstance(result, BaseException):
                with suppress(RedisAwayError):
                    await self.run(partial(_fail, result))
                results.append(None)
            else:
                results.append(result)
        return results

    def _rejected(self, cause: WriteRejection, error: Exception | None = None) -> None:
        self._rejected_at = asyncio.get_running_loop().time()
        if cause is self.rejection:
            return
        self.rejection = cause
        metrics.REDIS_REJECTS_WRITES.set(1)
        more = {"cause": str(cause)} | ({"error": str(error)[:200]} if error else {})
        _log.warning("redis rejects writes", extra=more)
        self.changed.set()
        if self._write_probe is None or self._write_probe.done():
            self._write_probe = lasting_task(self._try_writing())

    async def _try_writing(self) -> None:
        while self.rejection is not None:
            await asyncio.sleep(WRITE_PROBE_SECONDS)
            if self.rejection is WriteRejection.READ_ONLY and (pool := getattr(self.redis, "connection_pool", None)):
                # Idle connections may lead to a server that was demoted; new ones can lead to the present primary.
                await pool.disconnect(inuse_connections=False)
            try:
                async with asyncio.timeout(max(self._timeout, MIN_TIMEOUT_SECONDS)):
                    cause = await try_writing(self.redis)
            except (RedisError, OSError, TimeoutError):
                # Redis does not reply: the next command opens the circuit.
                self._rejected_at = asyncio.get_running_loop().time()
                continue
            if cause is not None:
                self._rejected(cause)
            elif asyncio.get_running_loop().time() - self._rejected_at >= CALM_SECONDS:
                self.rejection = None
                metrics.REDIS_REJECTS_WRITES.set(0)
                _log.warning("redis accepts writes again")
                self.changed.set()

    def _open_circuit(self, error: Exception) -> None:
        if not self.away:
            self.away = True
            metrics.REDIS_UP.labels("keys").set(0)
            _log.warning("redis is away", extra={"error": f"{type(error).__name__}: {error}"[:200]})
            self._probe = lasting_task(self._close_circuit())

    async def _close_circuit(self) -> None:
        while self.away:
            try:
                async with asyncio.timeout(max(self._timeout, PROBE_SECONDS)):
                    await self.redis.ping()
            except (RedisError, OSError, TimeoutError) as error:
                # After a failure to persist, Redis rejects even PING.
                cause = rejection_of(error)
                if cause is None:
                    await asyncio.sleep(PROBE_SECONDS)
                    continue
                self._rejected(cause, error)
            self.away = False
            metrics.REDIS_UP.labels("keys").set(1)
            _log.warning("redis is back")
            self.changed.set()


async def _fail(error: BaseException, _: Redis) -> None:
    raise error


def _note_command(result: str, began: float) -> None:
    metrics.REDIS_COMMAND_SECONDS.of(result).observe(time.perf_counter() - began)


class _TimeLimit:
    """Raises TimeoutError after some seconds and GRACE_ITERATIONS further iterations of the event loop.

    It does for the present task what `asyncio.timeout` would do, which has no such iterations.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._iterations = GRACE_ITERATIONS
        self._has_expired = False

    def __enter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # it limits what a task awaits
        self._task, self._cancelling = task, task.cancelling()
        self._loop = task.get_loop()
        self._handle: asyncio.Handle = self._loop.call_later(self._seconds, self._iterate)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._handle.cancel()
        # A task that was also cancelled by others stays cancelled.
        if self._has_expired and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _iterate(self) -> None:
        if self._iterations:
            self._iterations -= 1
            self._handle = self._loop.call_soon(self._iterate)
        else:
            self._has_expired = True
            self._task.cancel()
