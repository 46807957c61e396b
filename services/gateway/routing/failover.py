"""Calls another worker where the first one turns out to be unavailable before it has begun to answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from services.gateway import metrics
from services.gateway.routing.policy import Call
from services.gateway.routing.pool import WorkerPool
from services.gateway.routing.worker import Client, Worker
from services.runtime.failure import Failure, Reason

C = TypeVar("C", bound=Client)
T = TypeVar("T")


async def with_failover(pool: WorkerPool[C, Any], call: Call, attempt: Callable[[Worker[C, Any]], Awaitable[T]]) -> T:
    """Return what `attempt` returns for the best worker, or for another one if the first is unavailable.

    `attempt` must not have sent anything to a client when it raises. Raises what it raises, which is Failure where the
    worker has failed, and ApiError (503) when no worker serves the model.
    """
    failed: Worker[C, Any] | None = None
    while True:
        worker = pool.choose(call, but=failed)
        try:
            return await attempt(worker)
        except Failure as failure:
            if failure.reason is Reason.MODEL_UNAVAILABLE:
                worker.lose_model(call.model)
            may_move = failed is None and failure.code is grpc.StatusCode.UNAVAILABLE
            if not may_move or not pool.has_another(call.model, but=worker):
                raise
            failed = worker
            metrics.RETRIES.labels(call.model).inc()
