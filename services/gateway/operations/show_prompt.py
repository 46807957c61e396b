"""The operation that returns a request's rendered prompt instead of a generation: tokenization and dry runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Generic

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.dialects.dialect import C, PromptDialect, RenderedPrompt
from services.gateway.edge.exchange import Exchange
from services.gateway.limit_status import RateLimits
from services.gateway.operations.inference_parts import InferenceParts
from services.gateway.operations.json_reply import JsonReply
from services.gateway.operations.operation import Reply, SelfContained
from services.gateway.operations.prepared_call import PreparedCall, prepare
from services.gateway.record import Outcome
from services.gateway.routing.rendering import render_prompt
from services.gateway.tenancy.reservation import Reservation
from services.gateway.tenancy.token_estimate import TokenEstimate, estimate_of


class PromptEndpoint(Generic[C]):
    """An endpoint that returns rendered prompts."""

    def __init__(self, dialect: PromptDialect[C], parts: InferenceParts) -> None:
        """Serve the API `dialect`."""
        self.dialect: Final = dialect
        self._parts: Final = parts

    def read(self, body: Any, *, strict: bool, tenant: str) -> ShowPrompt[C]:
        """Return the operation that a parsed body asks for. Raises ApiError (400)."""
        prepared = prepare(self.dialect, body, self._parts.image_limits, strict=strict, tenant=tenant)
        return ShowPrompt(self.dialect, self._parts, prepared, estimate_of(prepared.call.generate, reserve_output=0))


class ShowPrompt(SelfContained, Generic[C]):
    """The operation of one request for its rendered prompt."""

    def __init__(
        self,
        dialect: PromptDialect[C],
        parts: InferenceParts,
        prepared: PreparedCall[C],
        estimate: TokenEstimate,
        *,
        stream: bool | None = None,
    ) -> None:
        """Render the prompt of the call in `prepared`. `stream` is the request's field, for its record."""
        self.model: Final = prepared.call.generate.model
        self.stream: Final = stream
        self.pool: Final = parts.pool
        # It counts as one request. Its prompt is reserved and must fit what the key has left, but no tokens are billed.
        self.estimate = replace(estimate, output=0, max_output=0)
        self._dialect: Final = dialect
        self._image_fetcher: Final = parts.image_fetcher
        self._prepared = prepared

    def field_name(self, field: str) -> str:
        """Return the caller's name for the path of a worker's field."""
        return self._prepared.call.field_name(field)

    def reply(self, exchange: Exchange) -> Reply[RenderedPrompt]:
        """Return the writer of the response."""
        return PromptReply(self._dialect, exchange, self._prepared.call)

    async def run(self, exchange: Exchange, reservation: Reservation) -> RenderedPrompt:
        """Return the prompt that a worker renders. Raises ApiError."""
        call = self._prepared.call
        await self._prepared.complete(self._image_fetcher, tenant=reservation.subject.key.tenant)
        response, worker = await render_prompt(
            self.pool, call.generate, size=self._prepared.size, record=exchange.record
        )
        # Settle before the response is sent, so that the client's next request finds the slot free.
        await reservation.settle(Outcome.COMPLETE)
        return RenderedPrompt(response, worker, call.all_ignored(response.ignored_parameters))


class PromptReply(JsonReply[PromptDialect[C], RenderedPrompt], Generic[C]):
    """The reply with a rendered prompt."""

    def __init__(self, dialect: PromptDialect[C], exchange: Exchange, call: C) -> None:
        """Reply to `call`."""
        super().__init__(dialect, exchange)
        self._call: Final = call

    async def write(self, result: RenderedPrompt, limits: RateLimits) -> None:
        """Send the prompt."""
        started = pb.Started(ignored_parameters=result.response.ignored_parameters)
        await self._send(self._dialect.prompt(self._call, result), limits, self._call.reports(started))
