"""The embeddings API. `Embed` is a request's whole path through the worker."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from numpy import float32
from numpy.typing import NDArray
from vilix.embeddings.v1 import embeddings_service_pb2 as pb
from vilix.embeddings.v1 import embeddings_service_pb2_grpc

from services.embeddings.call_record import EmbedRecord
from services.embeddings.embedding import Embedder
from services.embeddings.preparation import prepare
from services.embeddings.request_checks import RequestLimits
from services.embeddings.served_model import ServedModel
from services.embeddings.tokenization import Row
from services.embeddings.vectors import shortened
from services.worker.grpc_server import Context, WorkerServer, note_caller, reject, request_id
from services.worker.servicer import WorkerServicer

SERVICE: Final = pb.DESCRIPTOR.services_by_name["EmbeddingsService"].full_name
IN_THREAD_NUMBERS: Final = 100_000
"""Larger responses are built in a thread, so that the event loop serves other calls meanwhile."""


class EmbeddingsServicer(WorkerServicer[ServedModel], embeddings_service_pb2_grpc.EmbeddingsServiceServicer):
    """Answers the calls of vilix.embeddings.v1.EmbeddingsService."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        embedders: Mapping[str, Embedder],
        limits: RequestLimits,
        server: WorkerServer,
    ) -> None:
        """Serve `models`, by id, with `embedders`, by model id. `server` reports when the worker is about to stop."""
        super().__init__(models, server)
        self._embedders: Final = embedders
        self._limits: Final = limits

    # The proto gives the method its name.
    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:  # noqa: N802
        """Count the tokens of all texts, embed them, and return the vectors in their order."""
        call_id = request_id(context)
        if self._tracer is not None:
            note_caller(context)
        try:
            model = self._find(request.model)
            with EmbedRecord(call_id, model, tracer=self._tracer) as record:
                field = "texts" if request.texts else "token_ids"
                rows = await prepare(request, model, self._limits)
                record.admit(texts=len(rows), tokens=sum(row.tokens for row in rows))
                embedder = self._embedders[model.id]
                vectors = await embedder.embed(model, field, rows, request_id=call_id, priority=request.priority)
                timings = record.timings()
                response = await _response(request, rows, vectors)
                response.timings.CopyFrom(timings)
                response.served_by.CopyFrom(_served_by(model))
                return response
        except Exception as error:  # noqa: BLE001  # every error becomes a status, which is made in one place
            await reject(context, error, request_id=call_id)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """List the models whose engines answer."""
        return pb.ListModelsResponse(models=[model.to_proto() for model in self._available()])

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncGenerator[pb.WatchStatusResponse, None]:
        """Report the load until the caller cancels the call or the worker stops."""
        interval = await self._interval(request, context)
        async for draining in self._reports(interval):
            yield pb.WatchStatusResponse(models=[model.status() for model in self._served], draining=draining)


def _served_by(model: ServedModel) -> pb.ServedBy:
    # An engine that has just failed is not described any more, although it has embedded everything.
    engine = model.description
    return pb.ServedBy(
        worker=socket.gethostname(),
        engine=engine.engine if engine is not None else "",
        engine_version=engine.version if engine is not None else "",
    )


async def _response(request: pb.EmbedRequest, rows: Sequence[Row], vectors: NDArray[float32]) -> pb.EmbedResponse:
    dimensions = request.dimensions or vectors.shape[1]
    if vectors.size > IN_THREAD_NUMBERS:
        packed = await asyncio.to_thread(_packed, vectors, dimensions)
    else:
        packed = _packed(vectors, dimensions)
    return pb.EmbedResponse(
        embeddings=packed,
        dimensions=dimensions,
        count=len(rows),
        token_counts=[row.tokens for row in rows],
        truncated=[row.truncated for row in rows] if any(row.truncated for row in rows) else (),
    )


def _packed(vectors: NDArray[float32], dimensions: int) -> bytes:
    return shortened(vectors, dimensions).astype("<f4", copy=False).tobytes()
