"""The operation behind POST /responses: a generation that may continue, store and outlive what one request does."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, cast

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import ResponseHead, without_prompt
from services.gateway.dialects.openai_responses.call import ResponsesCall
from services.gateway.dialects.openai_responses.dialect import InputTokens, OpenAIResponses
from services.gateway.dialects.openai_responses.response import error_object, response_id
from services.gateway.dialects.openai_responses.stream import ResponseEncoder
from services.gateway.edge.body import Gate, RequestBody
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.operations.detached import detached
from services.gateway.operations.follow_response import follow
from services.gateway.operations.generate import GenerateText
from services.gateway.operations.inference_parts import InferenceParts
from services.gateway.operations.json_reply import JSON
from services.gateway.operations.operation import Operation, Reply
from services.gateway.operations.prepared_call import PreparedCall, prepare
from services.gateway.operations.recall import reasoning_seal, recalled_for
from services.gateway.operations.response_replies import KeptReply, KeptStreamReply, KeptWholeReply, SilentReply
from services.gateway.operations.response_state import ResponseState
from services.gateway.operations.show_prompt import ShowPrompt
from services.gateway.routing.fingerprint import fingerprint_of
from services.gateway.stored_responses.event_log import EventLog
from services.gateway.stored_responses.lost_response import event_frame, shorter_end
from services.gateway.stored_responses.store import StoreAwayError, StoreFullError
from services.gateway.tenancy.key import Key
from services.gateway.tenancy.key_cache import Caller
from services.gateway.tenancy.reservation import Reservation
from services.gateway.tenancy.token_estimate import TokenEstimate, estimate_of

_CONTEXT_EXCEEDED: Final = "context_length_exceeded"


class RespondEndpoint:
    """The endpoint that generates responses."""

    def __init__(self, parts: InferenceParts, state: ResponseState) -> None:
        """Serve the API, and keep its state in `state`."""
        self.dialect: Final = OpenAIResponses()
        self._parts: Final = parts
        self._state: Final = state

    def read(self, body: Any, *, strict: bool, tenant: str) -> Operation[Any]:
        """Return the operation that a parsed body asks for. Raises ApiError (400)."""
        prepared = prepare(self.dialect, body, self._parts.image_limits, strict=strict, tenant=tenant)
        again = None if not prepared.call.needs_recall else (body, strict)
        if prepared.call.dry_run:
            return RecallingPrompt(self.dialect, self._parts, prepared, self._state, again)
        return Respond(self.dialect, self._parts, prepared, self._state, again)


class InputTokensEndpoint:
    """The endpoint that counts the tokens of an input."""

    def __init__(self, parts: InferenceParts, state: ResponseState) -> None:
        """Serve the API, and read its state from `state`."""
        self.dialect: Final = InputTokens()
        self._parts: Final = parts
        self._state: Final = state

    def read(self, body: Any, *, strict: bool, tenant: str) -> Operation[Any]:
        """Return the operation that a parsed body asks for. Raises ApiError (400)."""
        prepared = prepare(self.dialect, body, self._parts.image_limits, strict=strict, tenant=tenant)
        again = None if not prepared.call.needs_recall else (body, strict)
        return RecallingPrompt(self.dialect, self._parts, prepared, self._state, again)


class RecallingPrompt(ShowPrompt[ResponsesCall]):
    """Renders the prompt of a request, with what it refers to."""

    def __init__(
        self,
        dialect: OpenAIResponses,
        parts: InferenceParts,
        prepared: PreparedCall[ResponsesCall],
        state: ResponseState,
        again: tuple[Any, bool] | None,
    ) -> None:
        """Read the body in `again` once more, if there is one, when what it refers to is known."""
        super().__init__(dialect, parts, prepared, estimate_of(prepared.call.generate, reserve_output=0))
        self._parts: Final = parts
        self._state: Final = state
        self._again: tuple[Any, bool] | None = again

    async def recall(self, caller: Caller, body: RequestBody) -> None:
        """Find what the request refers to. Raises ApiError."""
        if self._again is not None:
            self._prepared = await _recalled(
                self._prepared.call, self._again, caller, body, parts=self._parts, state=self._state
            )
            estimate = estimate_of(self._prepared.call.generate, reserve_output=0)
            self.estimate = replace(estimate, output=0, max_output=0)
            self._again = None


class Respond(GenerateText[ResponsesCall]):
    """The operation of one request for a response."""

    def __init__(
        self,
        dialect: OpenAIResponses,
        parts: InferenceParts,
        prepared: PreparedCall[ResponsesCall],
        state: ResponseState,
        again: tuple[Any, bool] | None,
    ) -> None:
        """Read the body in `again` once more, if there is one, when what it refers to is known."""
        super().__init__(dialect, parts, prepared, self._estimate(prepared, parts))
        self._state: Final = state
        self._again: tuple[Any, bool] | None = again
        self._items: Sequence[Mapping[str, Any]] = ()
        """The items of the whole input until they are stored. Nothing keeps them while the response is generated."""
        self._id: Final = response_id(secrets.token_hex(16))
        self._holder: Final = secrets.token_hex(8)
        self._encoder: ResponseEncoder | None = None
        self._log: EventLog | None = None
        self._reply: KeptReply | None = None
        self._on_lost: Callable[[], None] = lambda: None
        self._waits_for_start = prepared.call.truncates

    @staticmethod
    def _estimate(prepared: PreparedCall[ResponsesCall], parts: InferenceParts) -> TokenEstimate:
        return estimate_of(prepared.call.generate, reserve_output=parts.reserve_output)

    async def recall(self, caller: Caller, body: RequestBody) -> None:
        """Find what the request refers to, and decide whether its response is to be stored. Raises ApiError."""
        assert self._prepared is not None  # noqa: S101  # it did not run yet
        if self._again is not None:
            self._prepared = await _recalled(
                self._prepared.call, self._again, caller, body, parts=self._parts, state=self._state
            )
            self._again = None
            self.estimate = self._estimate(self._prepared, self._parts)
        call = self._state.decide(self._prepared.call, caller.key)
        self._prepared = PreparedCall(call, self._prepared.images)
        self._call = replace(without_prompt(call), items=(), references=(), sealed=())
        self._items = call.items if call.store else ()

    async def detach(
        self, exchange: Exchange, caller: Caller, gate: Gate, perform: Callable[[Exchange], Awaitable[None]]
    ) -> bool:
        """Store a background response, begin its work, and answer with what is known of it."""
        if not self._call.background:
            return False
        # A key without requests left, or one that was revoked, stores nothing.
        await gate.check()
        encoder = self._new_encoder(exchange)
        encoder.seal = reasoning_seal(self._state, caller.key.tenant, self.model)
        events: list[bytes] = []
        encoder.on_event = events.append
        encoder.queue()
        document = dict(encoder.response)
        await self._create(caller.key, encoder, events)
        inner = detached(exchange)
        # The body counts until a worker has the request, or the work has ended.
        exchange.body.hand_over(inner.body)
        self._parts.background.start(self._run_detached(inner, perform))
        if self.stream:
            await follow(exchange, self._state, self._id, caller.key.id, first=0, keep_alive=self._parts.keep_alive)
        else:
            headers = {**JSON, **self._dialect.response_headers(self._state.no_limits, request_id="")}
            await exchange.response.respond(200, headers, self._state.dump(document))
        return True

    async def _run_detached(self, exchange: Exchange, perform: Callable[[Exchange], Awaitable[None]]) -> None:
        """Do the work of a background response, whose events are only stored."""
        log = self._log
        assert log is not None  # noqa: S101  # it was created
        self._on_lost = exchange.disconnect.happen
        log.on_lost = lambda _: exchange.disconnect.happen()
        await self._state.run_recorded(exchange, perform, self._fail)

    async def _fail(self, error: ApiError | None) -> None:
        """Store the end of a background response that ended before its reply could do it."""
        encoder, log = self._encoder, self._log
        if encoder is None or log is None:
            return
        if not encoder.has_ended:
            if error is None:
                encoder.cancel()
            else:
                encoder.error(error)
        await log.end(encoder.response)

    def reply(self, exchange: Exchange) -> Reply[MeteredGeneration]:
        """Return the writer of the response."""
        encoder = self._encoder or self._new_encoder(exchange)
        dialect = cast(OpenAIResponses, self._dialect)
        if self._call.background:
            self._reply = SilentReply(dialect, exchange, self._call, encoder)
        elif self.stream:
            self._reply = KeptStreamReply(dialect, exchange, self._call, encoder, keep_alive=self._parts.keep_alive)
        else:
            self._reply = KeptWholeReply(dialect, exchange, self._call, encoder)
        if self._log is not None:
            self._reply.keep(self._log)
        return self._reply

    def _new_encoder(self, exchange: Exchange) -> ResponseEncoder:
        fingerprint = fingerprint_of(self.pool.model(self.model))
        head = ResponseHead(self._id, int(time.time()), exchange.record.request_id, fingerprint)
        self._encoder = cast(OpenAIResponses, self._dialect).encoder(self._call, head)
        return self._encoder

    async def run(self, exchange: Exchange, reservation: Reservation) -> MeteredGeneration:
        """Start the generation, and have its events stored. Raises ApiError and ClientGoneError."""
        encoder, reply = self._encoder, self._reply
        assert encoder is not None  # noqa: S101  # `reply` was called
        assert reply is not None  # noqa: S101  # as above
        key = reservation.subject.key
        encoder.seal = reasoning_seal(self._state, key.tenant, self.model)
        if self._call.store and self._log is None:
            await self._keep(key, encoder, reply)
            exchange.cleanup.callback(self._abandon)
        return await self._start(exchange, reservation)

    def _abandon(self) -> None:
        """End a response as cancelled whose request has ended in any way in which its reply could not end it."""
        if self._log is not None and self._log.is_running:
            self._parts.background.start(self._fail(None))

    async def _keep(self, key: Key, encoder: ResponseEncoder, reply: KeptReply) -> None:
        """Store the response. One that may be stored, but need not, is not where that is not possible."""
        assert self._prepared is not None  # noqa: S101  # it did not run yet
        is_asked_for = self._prepared.call.store_is_explicit
        try:
            await self._create(key, encoder, [])
        except ApiError:
            if is_asked_for:
                raise
            self._items = ()
            self._call = replace(self._call, store=False, ignored=[*self._call.ignored, "store"])
            encoder.response["store"] = False
            reply.do_not_keep(self._call)
            return
        assert self._log is not None  # noqa: S101  # it was created
        reply.keep(self._log)

    async def _create(self, key: Key, encoder: ResponseEncoder, events: list[bytes]) -> None:
        """Create the stored response. Raises ApiError (503)."""
        store = self._state.store
        if store is None:
            raise self._state.unavailable()
        budgets = self._state.budgets(key)
        try:
            await store.create(
                self._id,
                key.id,
                self._holder,
                budgets,
                document=dict(encoder.response),
                items=self._items,
                events=events,
            )
        except StoreAwayError:
            raise self._state.unavailable() from None
        except StoreFullError:
            raise self._state.full() from None
        self._log = EventLog(store, self._id, self._holder, budgets, length=len(events))
        self._log.on_full = lambda: self._parts.background.start(self._drop(key.id))
        encoder.on_event = self._log.add
        self._items = ()

    async def _drop(self, owner: str) -> None:
        """Delete a response that has no space any more. A background response has failed then."""
        store, encoder = self._state.store, self._encoder
        if store is None or encoder is None:
            return
        if not self._call.background:
            await store.delete(self._id, owner)
            return
        response = await store.read(self._id, owner)
        if response is not None:
            error = error_object(self._state.full())
            document = {**response.document, "status": "failed", "error": error}
            frame = event_frame("response.failed", response.length, {"response": document})
            await store.end(
                self._id,
                self._state.defaults,
                length=response.length,
                only_lost=False,
                document=document,
                events=[frame],
                shorter=shorter_end("response.failed", response.length, document),
            )
            self._on_lost()

    async def _start(self, exchange: Exchange, reservation: Reservation) -> MeteredGeneration:
        """Start the generation. With `truncation: auto`, the oldest messages are left out until the rest fits."""
        while True:
            prepared = self._prepared
            assert prepared is not None  # noqa: S101  # it did not run yet
            try:
                return await super().run(exchange, reservation)
            except ApiError as error:
                shorter = None
                if prepared.call.truncates and error.code == _CONTEXT_EXCEEDED:
                    shorter = _without_oldest(prepared.call.generate)
                if shorter is None:
                    raise
                self._prepared = PreparedCall(replace(prepared.call, generate=shorter), prepared.images)


async def _recalled(
    call: ResponsesCall,
    again: tuple[Any, bool],
    caller: Caller,
    body: RequestBody,
    *,
    parts: InferenceParts,
    state: ResponseState,
) -> PreparedCall[ResponsesCall]:
    """Read a body once more, with what it refers to."""
    recalled = await recalled_for(call, caller.key, state, body)
    parsed, strict = again
    tenant = caller.key.tenant
    return await asyncio.to_thread(
        prepare, OpenAIResponses(recalled), parsed, parts.image_limits, strict=strict, tenant=tenant
    )


def _without_oldest(generate: pb.GenerateRequest) -> pb.GenerateRequest | None:
    """Return a request without the oldest turns of the user, about half of them; None if there is only one."""
    first = next((i for i, message in enumerate(generate.messages) if message.role != pb.ROLE_SYSTEM), 0)
    turns = [i for i, message in enumerate(generate.messages) if i > first and message.role == pb.ROLE_USER]
    if not turns:
        return None
    shorter = pb.GenerateRequest()
    shorter.CopyFrom(generate)
    del shorter.messages[first : turns[len(turns) // 2]]
    return shorter
