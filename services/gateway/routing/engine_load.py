"""Reads the load of the models' engines from the inference workers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

import grpc

from services.gateway.routing.inference_client import InferencePool, InferenceWorker

READ_SECONDS: Final = 1.0
"""The timeout of a worker's report."""


@dataclass(frozen=True)
class EngineLoad:
    """The load of one model on one worker."""

    worker: str
    """The address of the worker."""
    model: str
    slots: int
    running: int
    queued: int
    kv_cache_use: float
    tokens_per_second: float


async def read_engine_loads(pool: InferencePool) -> list[EngineLoad]:
    """Return the load of each model on each worker, by address and id. A worker that does not answer is left out."""
    reports = await asyncio.gather(*(_read(worker) for worker in pool.workers()))
    return [load for report in reports for load in report]


async def _read(worker: InferenceWorker) -> list[EngineLoad]:
    try:
        status = await worker.client.status(seconds=READ_SECONDS)
    except grpc.aio.AioRpcError:
        return []
    return [
        EngineLoad(
            worker.address,
            model.model,
            model.slots,
            model.in_flight,
            model.queued,
            model.kv_cache_use,
            model.tokens_per_second,
        )
        for model in status.models
        if model.ready
    ]
