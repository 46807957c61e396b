"""The call of a worker that renders a prompt, with failover."""

from __future__ import annotations

import time
from functools import partial

import grpc
from vilix.inference.v1 import inference_service_pb2 as pb

from services.gateway.errors import restarting_if_cancelled
from services.gateway.record import RequestRecord
from services.gateway.routing.failover import with_failover
from services.gateway.routing.failures import api_error, failure_of_rpc
from services.gateway.routing.inference_client import InferencePool, InferenceWorker, note_call
from services.runtime.failure import Failure


async def render_prompt(
    pool: InferencePool, request: pb.GenerateRequest, *, size: int, record: RequestRecord
) -> tuple[pb.RenderPromptResponse, str]:
    """Return the rendered prompt of a request, and the address of the worker that rendered it.

    `size` is the request's in bytes; `record` is that of the client's request. Raises ApiError.
    """
    render_on = partial(_render_on, request=request, size=size, record=record)
    try:
        with restarting_if_cancelled():
            return await with_failover(pool, request, render_on)
    except Failure as failure:
        raise api_error(failure, request_id=record.request_id) from failure


async def _render_on(
    worker: InferenceWorker, *, request: pb.GenerateRequest, size: int, record: RequestRecord
) -> tuple[pb.RenderPromptResponse, str]:
    note_call(record, worker, request.model, time.perf_counter())
    try:
        return await worker.client.render(request, request_id=record.request_id, size=size), worker.address
    except grpc.aio.AioRpcError as error:
        raise failure_of_rpc(error) from error
