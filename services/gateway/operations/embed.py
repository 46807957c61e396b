"""Turns texts into vectors."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Generic

from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway.dialects.dialect import E, EmbeddingDialect
from services.gateway.dialects.worker_fields import use_callers_names
from services.gateway.edge.exchange import Exchange
from services.gateway.errors import ApiError
from services.gateway.limit_status import RateLimits
from services.gateway.operations.json_reply import JsonReply
from services.gateway.operations.operation import Reply
from services.gateway.record import Outcome
from services.gateway.routing.embedding import Embedding
from services.gateway.routing.embeddings_client import EmbeddingsPool
from services.gateway.routing.message_size import check_number_of_elements
from services.gateway.tenancy.reservation import Reservation
from services.gateway.tenancy.token_estimate import TokenEstimate, estimate_of_embedding
from services.gateway.wiring import Gateway


class EmbedEndpoint(Generic[E]):
    """An endpoint for embeddings."""

    def __init__(self, dialect: EmbeddingDialect[E]) -> None:
        """Serve the API `dialect`."""
        self.dialect: Final = dialect

    def read(self, body: Any, gateway: Gateway, *, strict: bool) -> EmbedTexts[E]:
        """Return what a parsed body asks for. Raises ApiError (400). Unknown fields are rejected, strict or not."""
        call = self.dialect.read(body)
        try:
            check_number_of_elements(call.embed)
        except ApiError as error:
            use_callers_names(error, call.field_name)
            raise
        return EmbedTexts(self.dialect, gateway, call, estimate_of_embedding(call.embed))


class EmbedTexts(Generic[E]):
    """The operation."""

    stream: Final = None

    def __init__(self, dialect: EmbeddingDialect[E], gateway: Gateway, call: E, estimate: TokenEstimate) -> None:
        """Embed the texts of a call."""
        self.model: Final = call.embed.model
        self.pool: Final[EmbeddingsPool] = gateway.fleet.embeddings
        self.estimate: Final = estimate
        self._dialect: Final = dialect
        self._call: Final = call

    def reply(self, exchange: Exchange) -> Reply[pb.EmbedResponse]:
        """Return what writes the response."""
        return VectorsReply(self._dialect, exchange, self._call)

    async def run(self, exchange: Exchange, reservation: Reservation) -> pb.EmbedResponse:
        """Have a worker make the vectors. Raises ApiError, ClientGoneError."""
        embedding = Embedding(self.pool, exchange.record)
        exchange.disconnect.stops(embedding.cancel)
        response = await embedding.run(self._call.embed)
        reservation.produced.prompt = sum(response.token_counts)
        # Before the client can know that it is over, and come back for the same slot.
        await reservation.settle(Outcome.COMPLETE)
        return response

    def use_callers_names(self, error: ApiError) -> None:
        """Name fields in an error as the caller does."""
        use_callers_names(error, self._call.field_name)


class VectorsReply(JsonReply[pb.EmbedResponse], Generic[E]):
    """Sends vectors, encoded piece by piece; between two pieces, the event loop serves others."""

    def __init__(self, dialect: EmbeddingDialect[E], exchange: Exchange, call: E) -> None:
        """Reply to `call`."""
        super().__init__(dialect, exchange)
        self._embedding_dialect: Final = dialect
        self._call: Final = call

    async def write(self, result: pb.EmbedResponse, limits: RateLimits) -> None:
        """Send the vectors: few at once, with the length; of many, the length is not known before the end."""
        pieces = self._embedding_dialect.pieces(self._call, result)
        if self._embedding_dialect.is_small(result):
            await self._send(b"".join(pieces), limits)
            return
        response = self._exchange.response
        await response.start(200, self._headers(limits))
        for piece in pieces:
            await response.send(piece)
            # A client that reads fast would leave no time for anybody else.
            await asyncio.sleep(0)
        await response.finish()
