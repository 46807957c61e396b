"""The call of an embeddings worker for one request, with failover."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import Final

import grpc
from vilix.embeddings.v1 import embeddings_service_pb2 as pb

from services.gateway import metrics
from services.gateway.disconnect import ClientGoneError
from services.gateway.errors import restarting_if_cancelled
from services.gateway.record import Outcome, RequestRecord
from services.gateway.routing.embeddings_client import METHOD, EmbedCall, EmbeddingsPool, EmbeddingsWorker
from services.gateway.routing.failover import with_failover
from services.gateway.routing.failures import api_error, call_status, failure_of_rpc, outcome_of_failure, silent
from services.gateway.routing.phases import milliseconds
from services.runtime.failure import Failure
from services.runtime.heartbeat import IdleTimeoutError


class Embedding:
    """One request for vectors."""

    def __init__(self, pool: EmbeddingsPool, record: RequestRecord) -> None:
        """Call a worker of `pool`, and note the outcome in `record`."""
        self._pool: Final = pool
        self._record: Final = record
        self._call: EmbedCall | None = None
        self._is_cancelled = False

    async def run(self, request: pb.EmbedRequest) -> pb.EmbedResponse:
        """Return a worker's response. Raises ApiError, and ClientGoneError after `cancel`."""
        try:
            with restarting_if_cancelled():
                return await with_failover(self._pool, request, partial(self._run_on, request=request))
        except Failure as failure:
            raise api_error(failure, request_id=self._record.request_id) from failure

    def cancel(self) -> None:
        """Cancel the call because its client has disconnected. It may be called before `run`."""
        self._is_cancelled = True
        if self._call is not None:
            self._call.cancel()

    async def _run_on(self, worker: EmbeddingsWorker, *, request: pb.EmbedRequest) -> pb.EmbedResponse:
        trace = self._record.trace
        traced = None if trace is None else trace.call(worker.address, METHOD)
        context = None if traced is None else traced.context
        self._call = call = worker.client.embed(request, request_id=self._record.request_id, traced=context)
        if self._is_cancelled:
            call.cancel()
        outcome = Outcome.STOPPED
        worker_status: str | None = None
        worker.in_flight += 1
        began = time.perf_counter()
        self._record.receipt.note_call(worker.address, began)
        try:
            async with worker.client.heartbeat.required():
                response = await call
            outcome = Outcome.COMPLETE
        except IdleTimeoutError:
            outcome = Outcome.SILENT
            raise silent() from None
        except grpc.aio.AioRpcError as error:
            failure = failure_of_rpc(error)
            outcome, worker_status = outcome_of_failure(failure), error.code().name
            raise failure from error
        except asyncio.CancelledError:
            if self._is_cancelled:
                outcome = Outcome.CLIENT_GONE
                raise ClientGoneError from None
            outcome = Outcome.DRAINED
            raise
        finally:
            worker.in_flight -= 1
            call.cancel()
            self._record.outcome, self._record.worker_status = outcome, worker_status
            if traced is not None:
                traced.end(call_status(outcome, worker_status))
            metrics.EMBEDDINGS.of(request.model, outcome, worker_status or "").value += 1
            metrics.WORKER_CALL_SECONDS.of(request.model).observe(time.perf_counter() - began)
        self._note(request.model, response)
        return response

    def _note(self, model: str, response: pb.EmbedResponse) -> None:
        tokens = sum(response.token_counts)
        notes, timings = self._record.receipt, response.timings
        notes.last_token_at = time.perf_counter()
        served_by = response.served_by
        notes.worker, notes.engine, notes.engine_version = served_by.worker, served_by.engine, served_by.engine_version
        phases = {"render": timings.tokenize, "embed": timings.embed}
        notes.worker_ms = milliseconds(phases) if response.HasField("timings") else {}
        self._record.texts = response.count
        self._record.prompt_tokens = tokens
        metrics.TOKENS.of(model, "prompt").value += tokens
