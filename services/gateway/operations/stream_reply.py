"""Sends a generation as Server-Sent Events while it runs.

`write` reads the generation in the request's task, encodes its events, and sends them with `_drain`, which waits for a
slow client. Most events do not come here: while this task sleeps, they take the way of token_path.py.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final, Generic

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects import sse
from services.gateway.dialects.dialect import C, Dialect, StreamEncoder
from services.gateway.dialects.ignored_fields import header_comments
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.operations.token_path import TokenPath


class StreamReply(Generic[C]):
    """The reply to a request for a stream."""

    def __init__(
        self, dialect: Dialect, exchange: Exchange, call: C, *, encoder: StreamEncoder, keep_alive: float
    ) -> None:
        """Reply to `call`, whose prompt is not needed, with what `encoder` makes.

        After `keep_alive` seconds of silence a comment is sent.
        """
        self._dialect: Final = dialect
        self._record: Final = exchange.record
        self._response: Final = exchange.response
        self._cleanup: Final = exchange.cleanup
        self._call = call
        self._encoder: Final = encoder
        self._keep_alive: Final = keep_alive
        self._path: TokenPath | None = None
        self._reported: dict[str, str] = {}
        """The headers about what the response leaves out, as they were sent."""
        self._unsent: Final[list[bytes]] = []
        """Events that were encoded and not sent yet."""
        self._last_sent = 0.0
        self._watch: asyncio.TimerHandle | None = None
        self._comment: asyncio.Task[None] | None = None
        """The task that sends a comment, if there has been one."""

    async def queued(self, position: int, limits: RateLimits) -> None:
        """Tell the client its position in the queue. The status is sent at once."""
        await self._begin(limits, None)
        await self._send(self._encoder.queued(position))

    async def write(self, result: MeteredGeneration, limits: RateLimits) -> None:
        """Send the generation, and close it in any case. Raises ApiError and ClientGoneError if it breaks off."""
        try:
            await self._begin(limits, result.generation.started)
            if self._response.direct is not None:
                self._path = TokenPath(self._encoder, result, self._response.direct, self._unsent)
                result.generation.offer_tokens_to(self._path)
            async for events in result.events():
                if result.ended_by is not None:
                    self._encoder.note(result.ended_by)
                if events[0].HasField("started"):
                    self._report_late(events[0].started)
                self._unsent.append(self._encoder.encode(events))
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

    async def _drain(self) -> None:
        data = self._unsent_bytes()
        if data:
            await self._send(data)

    def _unsent_bytes(self) -> bytes:
        data = b"".join(self._unsent)
        self._unsent.clear()
        return data

    async def _begin(self, limits: RateLimits, started: pb.Started | None) -> None:
        if self._response.started:
            return
        self._reported = self._call.reports(started)
        headers = self._dialect.response_headers(limits, request_id=self._record.request_id)
        await self._response.start(200, {**sse.HEADERS, **headers, **self._reported})
        # Some proxies and clients hold the headers back until the first byte of the body.
        self._last_sent = time.monotonic()
        self._cleanup.callback(self._stop_watching)
        self._watch_silence()

    async def _send(self, data: bytes) -> None:
        self._last_sent = time.monotonic()
        # What the token path has taken and not written yet comes before.
        await self._response.send(self._unsent_bytes() + data)

    def _report_late(self, started: pb.Started) -> None:
        """Report in comments what was not known when the headers were sent."""
        reports = self._call.reports(started)
        late = {name: value for name, value in reports.items() if self._reported.get(name) != value}
        self._unsent.append(header_comments(late))

    def _watch_silence(self) -> None:
        """Look for silence once it could be long enough. A timer costs less than a task, which few streams need."""
        # uvloop counts whole milliseconds: a shorter time would be none, and the loop would spin.
        seconds = max(self._last_sent + self._keep_alive - time.monotonic(), 0.001)
        self._watch = asyncio.get_running_loop().call_later(seconds, self._look_for_silence)

    def _look_for_silence(self) -> None:
        if self._path is not None and self._path.has_written:
            # Not noted exactly, because that would cost something for every token.
            self._path.has_written, self._last_sent = False, time.monotonic()
        if time.monotonic() - self._last_sent >= self._keep_alive:
            self._comment = asyncio.create_task(self._break_silence())
        else:
            self._watch_silence()

    async def _break_silence(self) -> None:
        await self._send(self._encoder.keep_alive())
        self._watch_silence()

    def _stop_watching(self) -> None:
        for each in (self._watch, self._comment):
            if each is not None:
                each.cancel()
