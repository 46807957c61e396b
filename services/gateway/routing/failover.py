"""Calls another worker if the first one is unavailable before its response has begun."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc

from services.gateway import metrics
from services.gateway.routing.policy import RoutedRequest
from services.gateway.routing.pool import WorkerPool
from services.gateway.routing.worker import Client, Worker
from services.runtime.failure import Failure, Reason

C = TypeVar("C", bound=Client)
R = TypeVar("R", bound=RoutedRequest)
T = TypeVar("T")


async def with_failover(
    pool: WorkerPool[C, Any, R], request: R, attempt: Callable[[Worker[C, Any]], Awaitable[T]]
) -> T:
    """Return the result of `attempt` with the worker that the policy chooses, or with another if that is unavailable.

    Args:
        pool: The workers.
        request: The request, by which the policy chooses.
        attempt: Calls one worker. It must not have sent anything to a client when it raises.

    Raises:
        Failure: A worker failed the call. Other exceptions of `attempt` are raised too.
        ApiError: No worker serves the model (503).
    """
    failed: Worker[C, Any] | None = None
    while True:
        worker = pool.choose(request, excluded=failed)
        try:
            return await attempt(worker)
        except Failure as failure:
            if failure.reason is Reason.MODEL_UNAVAILABLE:
                worker.lose_model(request.model)
            may_move = failed is None and failure.code is grpc.StatusCode.UNAVAILABLE
            if not may_move or not pool.has_another(request.model, excluded=worker):
                raise
            failed = worker
            metrics.RETRIES.labels(request.model).inc()
