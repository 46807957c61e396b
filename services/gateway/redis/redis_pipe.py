"""A Redis client that runs scripts over one connection: each is sent at once, and the answers come in the same order.

redis-py takes a connection from its pool for each command, waits for the reply, and puts the connection back, which
doubles the time that a request waits for its admission. redis-py still opens the connection: it handles users,
databases, TLS and Sentinels.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

_NOTHING: Final = object()


class ScriptRedis(Redis):
    """redis-py's client for one server, with decoded answers. Only `EVALSHA` goes another way."""

    timeouts: float = 1.0
    """Seconds after which a script without an answer is the sign of a connection that is dead."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """As redis-py makes it."""
        super().__init__(*args, **options)
        self._pipe: _Pipe | None = None
        self._opening: Final = asyncio.Lock()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis-py does it."""
        # What has a connection of its own relies on the order of all of its commands.
        if args[0] != "EVALSHA" or self.single_connection_client:
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # redis-py left it so
        try:
            return await (await self._open()).ask(args)
        except RedisConnectionError:
            # It may have ended with an earlier Redis.
            return await (await self._open()).ask(args)

    async def _open(self) -> _Pipe:
        if self._pipe is None or not self._pipe.is_open:
            async with self._opening:
                if self._pipe is not None and not self._pipe.is_open:
                    ended, self._pipe = self._pipe, None
                    await ended.close(self)
                if self._pipe is None:
                    connection = await self.connection_pool.get_connection()  # type: ignore[no-untyped-call]  # as above
                    self._pipe = _Pipe(connection, timeouts=self.timeouts)
        return self._pipe


class _Pipe(asyncio.Protocol):
    """An open connection, taken over from redis-py."""

    def __init__(self, connection: AbstractConnection, *, timeouts: float) -> None:
        writer = connection._writer  # it has no other way to the transport
        assert writer is not None  # noqa: S101  # the pool connects what it gives away
        self.is_open = True
        self._connection: Final = connection
        self._timeouts: Final = timeouts
        self._loop: Final = asyncio.get_running_loop()
        self._answers: Final = hiredis.Reader(replyError=_as_error, encoding="utf-8", notEnoughData=_NOTHING)
        self._asked: Final[deque[asyncio.Future[Any]]] = deque()
        self._transport: Final = cast(asyncio.Transport, writer.transport)
        self._streams: Final = self._transport.get_protocol()
        self._transport.set_protocol(self)

    async def ask(self, command: tuple[Any, ...]) -> Any:
        """The answer. Raises RedisError."""
        # First of all, since this may fail: whoever waits without having asked would get the answer to somebody else.
        packed = hiredis.pack_command(command)
        answer, asked = self._loop.create_future(), self._loop.time()
        self._asked.append(answer)
        self._transport.write(packed)
        try:
            return await answer
        except asyncio.CancelledError:
            if self._loop.time() - asked >= self._timeouts:
                self._abort()
            raise

    async def close(self, redis: Redis) -> None:
        """End it, and give the connection back to the pool of `redis`, to be opened anew."""
        self._abort()
        await self._connection.disconnect(nowait=True)
        await redis.connection_pool.release(self._connection)

    def data_received(self, data: bytes) -> None:
        """Hand out the answers."""
        self._answers.feed(data)
        try:
            while self.is_open and (answer := self._answers.gets()) is not _NOTHING:
                if not isinstance(answer, hiredis.PushNotification):
                    self._hand_out(answer)
        except hiredis.ProtocolError:
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Whoever waits for an answer waits no longer."""
        self._abort()
        self._streams.connection_lost(exc)

    def _hand_out(self, answer: Any) -> None:
        asker = self._asked.popleft()
        if asker.done():
            return
        if isinstance(answer, RedisError):
            asker.set_exception(answer)
            if isinstance(answer, RedisConnectionError):
                self._abort()
        else:
            asker.set_result(answer)

    def _abort(self) -> None:
        self.is_open = False
        self._transport.abort()
        while self._asked:
            asker = self._asked.popleft()
            if not asker.done():
                asker.set_exception(RedisConnectionError("the connection to Redis ended"))


def _as_error(text: str) -> RedisError:
    match text.partition(" ")[0]:
        case "NOSCRIPT":
            return NoScriptError(text)
        case "READONLY" | "LOADING":
            # It was the master, or is one that has just begun: another connection may lead to the one that is.
            return RedisConnectionError(text)
        case _:
            return ResponseError(text)
