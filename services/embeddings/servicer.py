"""The embeddings API. `Embed` is a request's whole way through the worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Final

from numpy import float32
from numpy.typing import NDArray
from vilix.embeddings.v1 import embeddings_service_pb2 as pb
from vilix.embeddings.v1 import embeddings_service_pb2_grpc

from services.embeddings.call_record import CallRecord
from services.embeddings.embedding import Embedder
from services.embeddings.preparation import prepare
from services.embeddings.request_checks import RequestLimits
from services.embeddings.served_model import ServedModel
from services.embeddings.tokenization import Row
from services.embeddings.vectors import shortened
from services.runtime.failure import Failure, Reason, Violation, invalid
from services.worker.grpc_server import Context, WorkerServer, refuse, request_id

SERVICE: Final = pb.DESCRIPTOR.services_by_name["EmbeddingsService"].full_name
DEFAULT_STATUS_SECONDS: Final = 1.0
STATUS_SECONDS: Final = (0.1, 3600.0)
IN_THREAD_NUMBERS: Final = 100_000
"""Larger answers are put together in a thread, so that the loop serves others meanwhile."""


class EmbeddingsServicer(embeddings_service_pb2_grpc.EmbeddingsServiceServicer):
    """Answers the calls of vilix.embeddings.v1.EmbeddingsService."""

    def __init__(
        self,
        models: Mapping[str, ServedModel],
        embedders: Mapping[str, Embedder],
        limits: RequestLimits,
        server: WorkerServer,
    ) -> None:
        """Serves `models`, by id, with `embedders` by model. `server` says when the worker is about to stop."""
        self._models: Final = models
        self._embedders: Final = embedders
        self._limits: Final = limits
        self._server: Final = server

    async def Embed(self, request: pb.EmbedRequest, context: Context) -> pb.EmbedResponse:  # noqa: N802  # the method's name in the proto
        """Count the tokens of all texts, embed them, and answer with vectors in their order."""
        call_id = request_id(context)
        try:
            model = self._find(request.model)
            with CallRecord(call_id, model) as record:
                field = "texts" if request.texts else "token_ids"
                rows = await prepare(request, model, self._limits)
                record.texts, record.tokens = len(rows), sum(row.tokens for row in rows)
                embedder = self._embedders[model.id]
                vectors = await embedder.embed(model, field, rows, request_id=call_id, priority=request.priority)
                return await _response(request, rows, vectors)
        except Exception as error:  # noqa: BLE001  # every end of a call has a status, and it is made in one place
            await refuse(context, error, request_id=call_id)

    async def ListModels(self, request: pb.ListModelsRequest, context: Context) -> pb.ListModelsResponse:  # noqa: N802
        """List the models whose engines answer."""
        served = [self._models[model_id] for model_id in sorted(self._models)]
        return pb.ListModelsResponse(models=[model.to_proto() for model in served if model.description is not None])

    async def WatchStatus(  # noqa: N802
        self, request: pb.WatchStatusRequest, context: Context
    ) -> AsyncGenerator[pb.WatchStatusResponse, None]:
        """Report the load until the caller hangs up or the worker stops."""
        try:
            interval = _interval(request)
        except Failure as failure:
            await refuse(context, failure)
        while not self._server.draining:
            yield pb.WatchStatusResponse(models=self._states())
            await self._server.wait_for_drain(seconds=interval)
        yield pb.WatchStatusResponse(models=self._states(), draining=True)

    def _states(self) -> list[pb.ModelStatus]:
        return [self._models[model_id].status() for model_id in sorted(self._models)]

    def _find(self, model_id: str) -> ServedModel:
        """The model of a request, ready to answer. Raises Failure."""
        model = self._models.get(model_id)
        if model is None:
            known = ", ".join(sorted(self._models))
            message = f"this worker does not serve the model {model_id[:128]!r}; it serves {known}"
            raise Failure(Reason.MODEL_NOT_FOUND, message, violations=(Violation("model", message, model_id[:128]),))
        model.engine()
        return model


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


def _interval(request: pb.WatchStatusRequest) -> float:
    if not request.HasField("interval"):
        return DEFAULT_STATUS_SECONDS
    seconds = request.interval.seconds + request.interval.nanos / 1e9
    least, most = STATUS_SECONDS
    if not least <= seconds <= most:
        message = f"interval is {seconds:g} s; it must be {least:g} s to {most:g} s"
        raise invalid("interval", message, value=f"{seconds:g}", limit=f"{least:g} to {most:g}")
    return seconds
