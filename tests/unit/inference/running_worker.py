"""A worker that serves one model over real gRPC, with a stand-in for Triton, and requests to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.inference.generation.generation import Timeouts
from services.inference.model.engine_status import EngineStatus
from services.inference.model.served_model import ServedModel
from services.inference.request.request_checks import RequestLimits
from services.inference.servicer import SERVICE, InferenceServicer
from services.runtime.failure import Failure, failure_of
from services.worker.grpc_server import WorkerServer
from tests.unit.inference.scripted import MODEL, ScriptedTriton

IDLE_SECONDS = 0.5
FIRST_TOKEN_SECONDS = 2
CHANNEL = [("grpc.use_local_subchannel_pool", 1)]


@dataclass
class Worker:
    """A worker that serves one model."""

    triton: ScriptedTriton
    model: ServedModel
    target: str
    stub: Any
    server: WorkerServer


@asynccontextmanager
async def running_worker(model: ServedModel) -> AsyncIterator[Worker]:
    """Run a worker until the context ends."""
    triton = ScriptedTriton()
    models = {MODEL: model}
    tritons = dict.fromkeys(models, triton)
    # The client is a stand-in.
    status = EngineStatus(tritons, models, interval=0.05, stall_seconds=20)  # type: ignore[arg-type]
    server = WorkerServer(SERVICE, models=models)
    servicer = InferenceServicer(
        models,
        {MODEL: triton},  # type: ignore[dict-item]  # as above
        status,
        limits=RequestLimits(),
        timeouts=Timeouts(idle_seconds=IDLE_SECONDS, first_token_seconds=FIRST_TOKEN_SECONDS),
        server=server,
    )
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(servicer, server.grpc)
    port = server.grpc.add_insecure_port("127.0.0.1:0")
    await server.grpc.start()
    polling = asyncio.create_task(status.run(server.set_serving, server.set_model_serving))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", CHANNEL) as channel:
        stub: Any = inference_service_pb2_grpc.InferenceServiceStub(channel)
        yield Worker(triton, model, f"127.0.0.1:{port}", stub, server)
    polling.cancel()
    await asyncio.gather(polling, return_exceptions=True)
    await server.grpc.stop(None)


def ask(**fields: Any) -> pb.GenerateRequest:
    """Return a request for a response to "Hello"."""
    messages = [pb.Message(role=pb.ROLE_USER, content=[pb.ContentPart(text="Hello")])]
    return pb.GenerateRequest(**({"model": MODEL, "messages": messages} | fields))


async def events_of(call: Any) -> list[pb.Event]:
    """Return all events of a call."""
    return [event async for response in call for event in response.events]


async def failure(call: Any) -> Failure:
    """Return the failure that ends a call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await events_of(call)
    error = failure_of(caught.value)
    assert error is not None, caught.value
    return error


def kinds(events: list[pb.Event]) -> list[str | None]:
    """Return the name of each event's kind."""
    return [event.WhichOneof("event") for event in events]
