"""Sends a generation as Server-Sent Events while it runs.

Every token takes this way from a worker's message to the socket: `_put` encodes events, and the encoded bytes are sent.
There are two callers. `write` reads the generation in the request's task and sends with `_drain`, which waits for a
slow client. The call multiplexer calls `take` and `flush` when a message arrives, and so writes at once, because waking
a task costs more than writing a token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final, Generic

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects import sse
from services.gateway.dialects.dialect import C, GenerationDialect, ResponseHead, StreamEncoder
from services.gateway.dialects.ignored_fields import ignored_comment, ignored_header
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits
from services.gateway.metered_generation import MeteredGeneration


class StreamReply(Generic[C]):
    """The reply to a request for a stream."""

    def __init__(
        self, dialect: GenerationDialect[C], exchange: Exchange, call: C, head: ResponseHead, *, keep_alive: float
    ) -> None:
        """Reply to `call`, whose prompt is not needed. After `keep_alive` seconds of silence a comment is sent."""
        self._dialect: Final = dialect
        self._record: Final = exchange.record
        self._response: Final = exchange.response
        self._cleanup: Final = exchange.cleanup
        self._call: Final = call
        self._encoder: Final[StreamEncoder] = dialect.encoder(call, head)
        self._keep_alive: Final = keep_alive
        self._generation: MeteredGeneration | None = None
        self._reported: dict[str, str] = {}
        """The header about fields that have no effect, as it was sent."""
        self._unsent: Final[list[bytes]] = []
        """Events that were encoded and not sent yet."""
        self._last_sent = 0.0

    async def queued(self, position: int, limits: RateLimits) -> None:
        """Tell the client its position in the queue. The status is sent at once."""
        await self._begin(limits, self._call.ignored)
        await self._send(self._encoder.queued(position))

    async def write(self, result: MeteredGeneration, limits: RateLimits) -> None:
        """Send the generation, and close it in any case. Raises ApiError and ClientGoneError if it breaks off."""
        self._generation = result
        try:
            await self._begin(limits, self._ignored(result))
            result.generation.offer_tokens_to(self)
            async for events in result.events():
                if result.ended_by is not None:
                    self._encoder.note(result.ended_by)
                if events[0].HasField("started"):
                    self._report_late(result)
                self._put(events)
                if events[-1].HasField("usage"):
                    self._unsent.append(self._encoder.end())
                await self._drain()
            await self._response.finish()
        finally:
            result.close()

    async def fail(self, error: ApiError) -> None:
        """Send the error as the last event. Raise it if nothing was sent yet."""
        if not self._response.started:
            raise error
        self._record.error = error.message.id
        await self._send(self._encoder.error(error))
        await self._response.finish()

    def take(self, events: Sequence[pb.Event]) -> bool:
        """Take events between the first and the last group of a generation, if they can be written at once."""
        generation = self._generation
        if generation is None or not self._response.keeps_up:
            return False
        if events[0].HasField("started") or events[-1].HasField("usage"):
            return False
        generation.count(events)
        self._put(events)
        return True

    def flush(self) -> None:
        """Write the events that were taken."""
        data = self._unsent_bytes()
        if data:
            self._last_sent = time.monotonic()
            self._response.write(data)

    def _put(self, events: Sequence[pb.Event]) -> None:
        """Encode events. `flush` or `_drain` sends them, whichever is called next."""
        self._unsent.append(self._encoder.encode(events))

    async def _drain(self) -> None:
        data = self._unsent_bytes()
        if data:
            await self._send(data)

    def _unsent_bytes(self) -> bytes:
        data = b"".join(self._unsent)
        self._unsent.clear()
        return data

    async def _begin(self, limits: RateLimits, ignored: Sequence[str]) -> None:
        if self._response.started:
            return
        self._reported = ignored_header(ignored)
        headers = self._dialect.response_headers(limits, request_id=self._record.request_id)
        await self._response.start(200, {**sse.HEADERS, **headers, **self._reported})
        # Some proxies and clients hold the headers back until the first byte of the body.
        self._last_sent = time.monotonic()
        self._cleanup.callback(asyncio.create_task(self._break_silence()).cancel)

    async def _send(self, data: bytes) -> None:
        self._last_sent = time.monotonic()
        await self._response.send(data)

    def _ignored(self, generation: MeteredGeneration) -> list[str]:
        return self._call.all_ignored(generation.generation.ignored_parameters)

    def _report_late(self, generation: MeteredGeneration) -> None:
        """Report ignored fields in a comment if the headers were sent before the worker had reported them."""
        header = ignored_header(self._ignored(generation))
        if header != self._reported:
            self._unsent.append(ignored_comment(header))

    async def _break_silence(self) -> None:
        while True:
            if time.monotonic() - self._last_sent >= self._keep_alive:
                await self._send(self._encoder.keep_alive())
            await asyncio.sleep(max(self._last_sent + self._keep_alive - time.monotonic(), 0))
