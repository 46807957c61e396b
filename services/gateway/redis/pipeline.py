"""Pipelines scripts over one connection: each is sent at once, and the replies come in the order of the scripts.

redis-py takes a connection from its pool for each command, waits for the reply and returns the connection, which
doubles the time that a request waits for its admission. Here, redis-py only opens the connection, because that covers
users, databases, TLS and Sentinel. docs/adr/0009-connection-to-redis.md compares this with clients that multiplex.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, cast

import hiredis
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError

_INCOMPLETE: Final = object()


class PipelinedRedis(Redis):
    """redis-py's client for one server, with decoded replies, which pipelines `EVALSHA` and nothing else."""

    reply_seconds: float = 1.0
    """Time after which a missing reply to a script that is cancelled means that the connection is dead."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pipeline: _Pipeline | None = None
        self._opening: Final = asyncio.Lock()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Execute a command, and return its reply. Raises RedisError."""
        # Users of a client with a connection of its own rely on the order of all of its commands.
        if args[0] != "EVALSHA" or self.single_connection_client:
            # redis-py does not type this method.
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]
        try:
            pipeline = self._pipeline
            if pipeline is None or not pipeline.is_open:
                pipeline = await self._open()
            return await pipeline.execute(args)
        except RedisConnectionError:
            # The connection may have ended when Redis restarted: retry once on a new one.
            return await (await self._open()).execute(args)

    async def execute_many(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Execute scripts in their order with one write, and return the replies, of which some may be a RedisError.

        Raises RedisConnectionError, if the connection ends before all have a reply: those before may have been run.
        """
        try:
            return await (await self._open()).execute_many(commands)
        except RedisConnectionError:
            return await (await self._open()).execute_many(commands)

    async def _open(self) -> _Pipeline:
        if self._pipeline is None or not self._pipeline.is_open:
            async with self._opening:
                if self._pipeline is not None and not self._pipeline.is_open:
                    ended, self._pipeline = self._pipeline, None
                    await ended.close(self)
                if self._pipeline is None:
                    # redis-py does not type this method.
                    connection = await self.connection_pool.get_connection()  # type: ignore[no-untyped-call]
                    self._pipeline = _Pipeline(connection, reply_seconds=self.reply_seconds)
        return self._pipeline


class _Pipeline(asyncio.Protocol):
    """An open connection, whose transport was taken over from redis-py."""

    def __init__(self, connection: AbstractConnection, *, reply_seconds: float) -> None:
        writer = connection._writer  # there is no public way to the transport
        assert writer is not None  # noqa: S101  # the pool connects what it gives away
        self.is_open = True
        self._connection: Final = connection
        self._reply_seconds: Final = reply_seconds
        self._loop: Final = asyncio.get_running_loop()
        self._reader: Final = hiredis.Reader(replyError=_as_error, encoding="utf-8", notEnoughData=_INCOMPLETE)
        self._pending: Final[deque[asyncio.Future[Any] | _Batch]] = deque()
        """The commands without a reply, oldest first. A cancelled one stays, so that its reply goes to no other."""
        self._transport: Final = cast(asyncio.Transport, writer.transport)
        self._redis_protocol: Final = self._transport.get_protocol()
        self._transport.set_protocol(self)

    async def execute(self, command: tuple[Any, ...]) -> Any:
        """Send a command, and return its reply. Raises RedisError."""
        # Packing may fail, and must come first: a future without a command would receive the reply to the next one.
        packed = hiredis.pack_command(command)
        reply = self._loop.create_future()
        self._pending.append(reply)
        self._transport.write(packed)
        return await self._result(reply)

    async def execute_many(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Send commands, and return their replies. Raises RedisConnectionError."""
        packed = b"".join(map(hiredis.pack_command, commands))
        replies = self._loop.create_future()
        self._pending.extend([_Batch(replies, len(commands))] * len(commands))
        self._transport.write(packed)
        result: list[Any] = await self._result(replies)
        return result

    async def _result(self, reply: asyncio.Future[Any]) -> Any:
        sent = self._loop.time()
        try:
            return await reply
        except asyncio.CancelledError:
            if self._loop.time() - sent >= self._reply_seconds:
                self._abort()
            raise

    async def close(self, redis: Redis) -> None:
        """Abort the connection, and return it to the pool of `redis`, which reconnects it when it is needed."""
        self._abort()
        await self._connection.disconnect(nowait=True)
        await redis.connection_pool.release(self._connection)

    def data_received(self, data: bytes) -> None:
        """Deliver the replies in `data`."""
        self._reader.feed(data)
        try:
            while self.is_open and (reply := self._reader.gets()) is not _INCOMPLETE:
                if not isinstance(reply, hiredis.PushNotification):
                    self._deliver(reply)
        except hiredis.ProtocolError:
            self._abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail all pending commands."""
        self._abort()
        self._redis_protocol.connection_lost(exc)

    def _deliver(self, reply: Any) -> None:
        future = self._pending.popleft()
        if future.done():
            return
        if isinstance(reply, RedisError):
            future.set_exception(reply)
            if isinstance(reply, RedisConnectionError):
                self._abort()
        else:
            future.set_result(reply)

    def _abort(self) -> None:
        self.is_open = False
        self._transport.abort()
        while self._pending:
            future = self._pending.popleft()
            if not future.done():
                future.set_exception(RedisConnectionError("the connection to Redis ended"))


class _Batch:
    """Gathers the replies to commands that were sent together, as the future of each of them."""

    def __init__(self, replies: asyncio.Future[list[Any]], size: int) -> None:
        self._future: Final = replies
        self._size: Final = size
        self._replies: Final[list[Any]] = []

    def done(self) -> bool:
        """Return whether nothing waits for a reply any more."""
        return self._future.done()

    def set_result(self, reply: Any) -> None:
        """Note the next reply."""
        self._replies.append(reply)
        if len(self._replies) == self._size:
            self._future.set_result(self._replies)

    def set_exception(self, error: RedisError) -> None:
        """Note an error as the next reply, or the end of the connection as the result of all commands."""
        if isinstance(error, RedisConnectionError):
            self._future.set_exception(error)
        else:
            self.set_result(error)


def _as_error(text: str) -> RedisError:
    match text.partition(" ")[0]:
        case "NOSCRIPT":
            return NoScriptError(text)
        case "READONLY" | "LOADING":
            # A demoted or just started server: a new connection can lead to the present primary.
            return RedisConnectionError(text)
        case _:
            return ResponseError(text)
