"""The replies of the Responses API. Each has the events of a response that is kept stored, before it sends the last."""

from __future__ import annotations

import contextlib
from typing import Final, Protocol

from services.gateway.dialects.ignored_fields import ignored_header
from services.gateway.dialects.openai_responses.call import ResponsesCall
from services.gateway.dialects.openai_responses.dialect import OpenAIResponses
from services.gateway.dialects.openai_responses.stream import ResponseEncoder
from services.gateway.disconnect import ClientGoneError
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError, restarting_if_cancelled
from services.gateway.limit_status import RateLimits
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.operations.json_reply import JsonReply
from services.gateway.operations.stream_reply import StreamReply
from services.gateway.stored_responses.event_log import EventLog

CLIENT_WAITS_SECONDS: Final = 2.0
"""The longest time for which a client waits for the end of its response because the store is away."""


class KeptReply(Protocol):
    """A reply whose events may be kept."""

    def keep(self, log: EventLog) -> None:
        """Have the events stored by `log`."""
        ...

    def do_not_keep(self, call: ResponsesCall) -> None:
        """Reply to `call`, which reports that nothing is stored."""
        ...

    async def queued(self, position: int, limits: RateLimits) -> None:
        """See Reply."""
        ...

    async def write(self, result: MeteredGeneration, limits: RateLimits) -> None:
        """See Reply."""
        ...

    async def fail(self, error: ApiError) -> None:
        """See Reply."""
        ...


class KeptStreamReply(StreamReply[ResponsesCall]):
    """A stream. It is stored as cancelled if its client leaves."""

    def __init__(
        self,
        dialect: OpenAIResponses,
        exchange: Exchange,
        call: ResponsesCall,
        encoder: ResponseEncoder,
        *,
        keep_alive: float,
    ) -> None:
        """Reply to `call` with what `encoder` makes."""
        super().__init__(dialect, exchange, call, encoder=encoder, keep_alive=keep_alive)
        self._response_encoder: Final = encoder
        self._log: EventLog | None = None

    def keep(self, log: EventLog) -> None:
        """Have the events stored by `log`."""
        self._log = log

    def do_not_keep(self, call: ResponsesCall) -> None:
        """Reply to `call`, which reports that nothing is stored."""
        self._call = call

    async def write(self, result: MeteredGeneration, limits: RateLimits) -> None:
        """Send the response. Raises ApiError and ClientGoneError if it breaks off."""
        try:
            await super().write(result, limits)
        except ClientGoneError:
            await self._cancel()
            raise

    async def fail(self, error: ApiError) -> None:
        """Store and send the error as the last event. Raise it if nothing was sent yet."""
        if self._log is not None:
            self._unsent.append(self._response_encoder.error(error))
            await _store_failure(self._log, self._response_encoder)
            if not self._response.started:
                raise error
            self._record.error = error.message.id
            await super()._drain()
            await self._response.finish()
            return
        await super().fail(error)

    async def _drain(self) -> None:
        # What a client may continue is stored before the client knows that it is complete.
        if self._log is not None and self._response_encoder.has_ended:
            await self._log.end(self._response_encoder.response, patience=CLIENT_WAITS_SECONDS)
        await super()._drain()

    async def _cancel(self) -> None:
        if self._log is not None:
            self._response_encoder.cancel()
            await self._log.end(self._response_encoder.response)


class KeptWholeReply(JsonReply[OpenAIResponses, MeteredGeneration]):
    """A response that is sent when it is complete. It is stored as cancelled if its client leaves."""

    _patience: float | None = CLIENT_WAITS_SECONDS

    def __init__(
        self, dialect: OpenAIResponses, exchange: Exchange, call: ResponsesCall, encoder: ResponseEncoder
    ) -> None:
        """Reply to `call` with what `encoder` makes."""
        super().__init__(dialect, exchange)
        self._call = call
        self._encoder: Final = encoder
        self._log: EventLog | None = None

    def keep(self, log: EventLog) -> None:
        """Have the events stored by `log`."""
        self._log = log

    def do_not_keep(self, call: ResponsesCall) -> None:
        """Reply to `call`, which reports that nothing is stored."""
        self._call = call

    async def write(self, result: MeteredGeneration, limits: RateLimits) -> None:
        """Collect and send the response. Raises ApiError and ClientGoneError if it breaks off."""
        try:
            async for events in result.events():
                if result.ended_by is not None:
                    self._encoder.note(result.ended_by)
                self._encoder.encode(events)
        except ClientGoneError:
            self._encoder.cancel()
            await self._end()
            raise
        finally:
            result.close()
        await self._end()
        ignored = self._call.all_ignored(result.generation.ignored_parameters)
        await self._answer(limits, ignored)

    async def fail(self, error: ApiError) -> None:
        """Store that the response has failed, and raise the error, because no response has begun."""
        if self._log is not None:
            self._encoder.error(error)
            await _store_failure(self._log, self._encoder)
        raise error

    async def _answer(self, limits: RateLimits, ignored: list[str]) -> None:
        await self._send(self._encoder.document, limits, ignored_header(ignored))

    async def _end(self) -> None:
        if self._log is not None:
            await self._log.end(self._encoder.response, patience=self._patience)


class SilentReply(KeptWholeReply):
    """The reply to a background request, whose client was answered before."""

    _patience = None

    async def _answer(self, limits: RateLimits, ignored: list[str]) -> None:
        pass


async def _store_failure(log: EventLog, encoder: ResponseEncoder) -> None:
    """Store the end of a response that has failed.

    A server that stops at once leaves that to the others, which find that its lease has expired: the client must learn
    of the failure.
    """
    with contextlib.suppress(ApiError), restarting_if_cancelled():
        await log.end(encoder.response, patience=CLIENT_WAITS_SECONDS)
