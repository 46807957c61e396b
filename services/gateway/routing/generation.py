"""A generation on a worker: opened with failover, read as events, ended with one outcome."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Final

from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway import metrics
from services.gateway.disconnect import ClientGoneError
from services.gateway.errors import restarting, server_error
from services.gateway.record import Outcome, RequestRecord
from services.gateway.routing.call_multiplexer import CallCancelledError, MultiplexedCall, SilentWorkerError
from services.gateway.routing.event_sink import EventSink
from services.gateway.routing.failover import with_failover
from services.gateway.routing.failures import api_error, call_status, outcome_of_failure, silent
from services.gateway.routing.inference_client import METHOD, InferencePool, InferenceWorker, note_call
from services.runtime.failure import Failure
from services.runtime.tracing.local_trace import OutgoingCall


class Generation:
    """One generation. `open` it, read `events` once, and `close` it in any case."""

    def __init__(self, pool: InferencePool, model: str, record: RequestRecord) -> None:
        """Generate on a worker of `pool`, and note the outcome in `record`."""
        self.model: Final = model
        self.outcome = Outcome.STOPPED
        """The outcome of the call of the worker, once it has ended."""
        self.began_at = 0.0
        """The time at which the worker was called, by `time.perf_counter`."""
        self.has_begun = False
        """Whether the generation had begun when `open` returned."""
        self.cut_short_for: Outcome | None = None
        self._pool: Final = pool
        self._record: Final = record
        self._worker: InferenceWorker | None = None
        self._call: MultiplexedCall | None = None
        self._worker_status: str | None = None
        self._traced: OutgoingCall | None = None

    @property
    def started(self) -> pb.Started | None:
        """The worker's first event; None before it has arrived."""
        return self._call.started if self._call is not None else None

    @property
    def ignored_parameters(self) -> Sequence[str]:
        """The request's fields that the worker ignores; empty before its first event has arrived."""
        return self.started.ignored_parameters if self.started is not None else ()

    async def open(self, request: pb.GenerateRequest, *, size: int, seconds: float | None) -> None:
        """Call a worker, and wait up to `seconds` (None: without limit) for its first event.

        If the worker is unavailable before its first event, another one is called, once. `size` is the request's in
        bytes. Raises ApiError and ClientGoneError.
        """
        try:
            await with_failover(
                self._pool, request, partial(self._open_on, request=request, size=size, seconds=seconds)
            )
        except Failure as failure:
            raise api_error(failure, request_id=self._record.request_id) from failure

    async def events(self) -> AsyncIterator[list[pb.Event]]:
        """Yield the events in groups of those that are ready. The last group ends with the usage.

        A generation that was cut short by a budget ends without usage.

        Raises:
            ApiError: The generation broke off.
            ClientGoneError: The client has disconnected.
        """
        try:
            async for events in self._opened():
                if events[-1].HasField("usage"):
                    self.outcome = Outcome.COMPLETE
                yield events
        except Failure as failure:
            self._note_failure(failure)
            raise api_error(failure, request_id=self._record.request_id) from failure
        except (CallCancelledError, SilentWorkerError, asyncio.CancelledError) as error:
            ended = self._end_with(error)
            if self.outcome is Outcome.BUDGET:
                return
            raise ended from error
        if self.outcome is not Outcome.COMPLETE:
            # A stream that ends early must not look like a complete generation.
            self.outcome = Outcome.BROKEN_OFF
            raise server_error(self._record.request_id)

    def offer_tokens_to(self, sink: EventSink) -> None:
        """Offer events to `sink` when they arrive. Those that it takes are not yielded by `events`."""
        self._opened().offer_to(sink)

    def cut_short(self, outcome: Outcome) -> None:
        """End the generation because its client is gone (CLIENT_GONE) or its budget is spent (BUDGET).

        It may be called before `open`.
        """
        if self.cut_short_for is not Outcome.CLIENT_GONE:
            self.cut_short_for = outcome
        if self._call is not None:
            self._call.cancel()

    def close(self) -> None:
        """Cancel the call if it still runs, and note the outcome. A second call does nothing."""
        worker, call = self._worker, self._call
        if worker is None or call is None:
            return
        self._worker = None
        call.cancel()
        # The sink refers back to this object: break the cycle, so that no garbage collection is needed.
        call.offer_to(None)
        worker.in_flight -= 1
        self._record.outcome, self._record.worker_status = self.outcome, self._worker_status
        if self._traced is not None:
            self._traced.end(call_status(self.outcome, self._worker_status))
        metrics.WORKER_CALL_SECONDS.of(self.model).observe(time.perf_counter() - self.began_at)
        metrics.GENERATIONS_IN_FLIGHT.of(self.model).value -= 1
        metrics.GENERATIONS.of(self.model, self.outcome, self._worker_status or "").value += 1

    async def _open_on(
        self, worker: InferenceWorker, *, request: pb.GenerateRequest, size: int, seconds: float | None
    ) -> None:
        trace = self._record.trace
        self._traced = traced = None if trace is None else trace.call(worker.address, METHOD)
        context = None if traced is None else traced.context
        call = worker.client.generate(request, request_id=self._record.request_id, size=size, traced=context)
        self._begin(worker, call)
        try:
            self.has_begun = await self._start(call, seconds)
        except BaseException:
            self.close()
            raise

    async def _start(self, call: MultiplexedCall, seconds: float | None) -> bool:
        try:
            return await call.start(seconds=seconds)
        except Failure as failure:
            self._note_failure(failure)
            raise
        except (CallCancelledError, SilentWorkerError, asyncio.CancelledError) as error:
            raise self._end_with(error) from error

    def _begin(self, worker: InferenceWorker, call: MultiplexedCall) -> None:
        self._worker, self._call = worker, call
        self.outcome, self._worker_status = Outcome.STOPPED, None
        self.began_at = time.perf_counter()
        note_call(self._record, worker, self.model, self.began_at)
        worker.in_flight += 1
        metrics.GENERATIONS_IN_FLIGHT.of(self.model).value += 1
        if self.cut_short_for is not None:
            call.cancel()

    def _opened(self) -> MultiplexedCall:
        assert self._call is not None  # noqa: S101  # it was opened
        return self._call

    def _note_failure(self, failure: Failure) -> None:
        self.outcome, self._worker_status = outcome_of_failure(failure), failure.code.name

    def _end_with(self, error: BaseException) -> Exception:
        """Note how the call has ended, and return the exception to raise."""
        if isinstance(error, CallCancelledError):
            self.outcome = self.cut_short_for or Outcome.STOPPED
            return ClientGoneError()
        if isinstance(error, SilentWorkerError):
            self.outcome = Outcome.SILENT
            return silent()
        self.outcome = Outcome.DRAINED  # See `restarting_if_cancelled`.
        return restarting()
