"""The operation that generates text, sent as a stream or when it is complete."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import Any, Final, Generic

from services.gateway.dialects.dialect import C, GenerationDialect, ResponseHead, without_prompt
from services.gateway.edge.exchange import Exchange
from services.gateway.metered_generation import MeteredGeneration
from services.gateway.operations.inference_parts import InferenceParts
from services.gateway.operations.operation import Operation, Reply, SelfContained
from services.gateway.operations.parameters_digest import parameters_digest
from services.gateway.operations.prepared_call import PreparedCall, prepare
from services.gateway.operations.session import session_of
from services.gateway.operations.show_prompt import ShowPrompt
from services.gateway.operations.stream_reply import StreamReply
from services.gateway.operations.whole_reply import WholeReply
from services.gateway.record import Outcome
from services.gateway.routing.fingerprint import fingerprint_of
from services.gateway.routing.generation import Generation
from services.gateway.tenancy.reservation import Reservation
from services.gateway.tenancy.token_estimate import TokenEstimate, estimate_of
from services.gateway.transcript import Transcript


class GenerateEndpoint(Generic[C]):
    """An endpoint that generates text."""

    def __init__(self, dialect: GenerationDialect[C], parts: InferenceParts) -> None:
        """Serve the API `dialect`."""
        self.dialect: Final = dialect
        self._parts: Final = parts

    def read(self, body: Any, *, strict: bool, tenant: str) -> Operation[Any]:
        """Return the operation that a parsed body asks for: a generation, or for a dry run its prompt.

        Raises ApiError (400).
        """
        prepared = prepare(self.dialect, body, self._parts.image_limits, strict=strict, tenant=tenant)
        call = prepared.call
        estimate = estimate_of(call.generate, reserve_output=self._parts.reserve_output)
        if call.dry_run:
            return ShowPrompt(self.dialect, self._parts, prepared, estimate, stream=call.stream)
        return GenerateText(self.dialect, self._parts, prepared, estimate)


class GenerateText(SelfContained, Generic[C]):
    """The operation of one request for a generation."""

    def __init__(
        self, dialect: GenerationDialect[C], parts: InferenceParts, prepared: PreparedCall[C], estimate: TokenEstimate
    ) -> None:
        """Generate for the call in `prepared`."""
        self.model: Final = prepared.call.generate.model
        self.stream: Final = prepared.call.stream
        self.pool: Final = parts.pool
        self.estimate = estimate
        self._dialect: Final = dialect
        self._parts: Final = parts
        self._call = without_prompt(prepared.call)
        self._prepared: PreparedCall[C] | None = prepared
        self._waits_for_start = False
        """Whether the status is never sent before the generation has begun."""

    def field_name(self, field: str) -> str:
        """Return the caller's name for the path of a worker's field."""
        return self._call.field_name(field)

    def reply(self, exchange: Exchange) -> Reply[MeteredGeneration]:
        """Return the writer of the response."""
        response_id = f"{self._dialect.id_prefix}{os.urandom(12).hex()}"
        fingerprint = fingerprint_of(self.pool.model(self.model))
        head = ResponseHead(response_id, int(time.time()), exchange.record.request_id, fingerprint)
        if not self.stream:
            return WholeReply(self._dialect, exchange, self._call, head)
        encoder = self._dialect.encoder(self._call, head)
        return StreamReply(self._dialect, exchange, self._call, encoder=encoder, keep_alive=self._parts.keep_alive)

    async def run(self, exchange: Exchange, reservation: Reservation) -> MeteredGeneration:
        """Start the generation on a worker, and return it. `MeteredGeneration.events` yields the rest.

        It returns when the generation has begun, or for a stream after `early_commit` seconds.

        Raises ApiError and ClientGoneError.
        """
        prepared, self._prepared = self._prepared, None
        assert prepared is not None  # noqa: S101  # it runs once
        parts, record = self._parts, exchange.record
        request = prepared.call.generate
        traces_content = parts.trace_content and record.trace is not None
        transcript = Transcript(request) if parts.log_content or traces_content else None
        record.content, record.completion_tokens = transcript if parts.log_content else None, 0
        record.traced_content = transcript if traces_content else None
        record.receipt.parameters = parameters_digest(request)
        generation = Generation(self.pool, self.model, record)
        exchange.disconnect.on_disconnect(partial(generation.cut_short, Outcome.CLIENT_GONE))
        await prepared.complete(
            parts.image_fetcher, tenant=reservation.subject.key.tenant, session=session_of(exchange.headers)
        )
        commits_early = self.stream and not exchange.response.started and not self._waits_for_start
        await generation.open(request, size=prepared.size, seconds=parts.early_commit if commits_early else None)
        # The worker has the request now, and nothing of the body is kept.
        exchange.body.release()
        return MeteredGeneration(generation, reservation, record, choices=self._call.choices, transcript=transcript)
