"""The operation that turns texts into vectors."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Generic

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.dialect import E, EmbeddingDialect
from services.gateway.dialects.ignored_fields import ignored_header
from services.gateway.dialects.worker_fields import callers_names
from services.gateway.edge.exchange import Exchange
from services.gateway.limit_status import RateLimits
from services.gateway.operations.json_reply import JsonReply
from services.gateway.operations.operation import Reply, SelfContained
from services.gateway.record import Outcome
from services.gateway.routing.embedding import Embedding
from services.gateway.routing.embeddings_client import EmbeddingsPool
from services.gateway.routing.message_size import check_number_of_elements
from services.gateway.tenancy.reservation import Reservation
from services.gateway.tenancy.token_estimate import TokenEstimate, estimate_of_embedding


class EmbedEndpoint(Generic[E]):
    """An endpoint that returns embeddings."""

    def __init__(self, dialect: EmbeddingDialect[E], pool: EmbeddingsPool) -> None:
        """Serve the API `dialect` with the workers of `pool`."""
        self.dialect: Final = dialect
        self._pool: Final = pool

    def read(self, body: Any, *, strict: bool, tenant: str) -> EmbedTexts[E]:
        """Return the operation that a parsed body asks for. Raises ApiError (400)."""
        call = self.dialect.read(body, strict=strict)
        with callers_names(call.field_name):
            check_number_of_elements(call.embed)
        return EmbedTexts(self.dialect, self._pool, call, estimate_of_embedding(call.embed))


class EmbedTexts(SelfContained, Generic[E]):
    """The operation of one request for embeddings."""

    stream: Final = None

    def __init__(self, dialect: EmbeddingDialect[E], pool: EmbeddingsPool, call: E, estimate: TokenEstimate) -> None:
        """Embed the texts of a call."""
        self.model: Final = call.embed.model
        self.pool: Final = pool
        self.estimate: Final = estimate
        self.field_name: Final = call.field_name
        self._dialect: Final = dialect
        self._call: Final = call

    def reply(self, exchange: Exchange) -> Reply[pb.EmbedResponse]:
        """Return the writer of the response."""
        return VectorsReply(self._dialect, exchange, self._call)

    async def run(self, exchange: Exchange, reservation: Reservation) -> pb.EmbedResponse:
        """Return the vectors that a worker computes. Raises ApiError and ClientGoneError."""
        embedding = Embedding(self.pool, exchange.record)
        exchange.disconnect.on_disconnect(embedding.cancel)
        response = await embedding.run(self._call.embed)
        reservation.produced.prompt = sum(response.token_counts)
        # Settle before the response is sent, so that the client's next request finds the slot free.
        await reservation.settle(Outcome.COMPLETE)
        return response


class VectorsReply(JsonReply[EmbeddingDialect[E], pb.EmbedResponse], Generic[E]):
    """Sends vectors in segments, between which the event loop serves other requests."""

    def __init__(self, dialect: EmbeddingDialect[E], exchange: Exchange, call: E) -> None:
        """Reply to `call`."""
        super().__init__(dialect, exchange)
        self._call: Final = call

    async def write(self, result: pb.EmbedResponse, limits: RateLimits) -> None:
        """Send the vectors: a small response at once with its length, a large one in segments without it."""
        segments = self._dialect.segments(self._call, result)
        if self._dialect.is_small(result):
            await self._send(b"".join(segments), limits, ignored_header(self._call.ignored))
            return
        response = self._exchange.response
        await response.start(200, {**self._headers(limits), **ignored_header(self._call.ignored)})
        for segment in segments:
            await response.send(segment)
            # `send` does not wait for a client that reads fast, so other tasks would not run.
            await asyncio.sleep(0)
        await response.finish()
