"""A stand-in for an inference worker that keeps books: it says what it produced for which request, to the token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from vilix.inference.v1 import inference_service_pb2 as pb
from vilix.inference.v1 import inference_service_pb2_grpc

from services.failure import Failure, Reason

SERVICE = "vilix.inference.v1.InferenceService"
MODELS = ("small", "large")


@dataclass
class Entry:
    """What was produced for one request."""

    prompt: int
    completion: int = 0
    ended: str = "cancelled"


class CountingWorker(inference_service_pb2_grpc.InferenceServiceServicer):
    """Answers with `max_tokens` tokens, one every `pace` seconds, while `going`; `seed` n breaks it after n - 1 of them."""

    def __init__(self) -> None:
        self.books: dict[str, Entry] = {}
        self.pace = 0.0
        self.running = 0
        self.most_running = 0
        self.going = asyncio.Event()
        self.going.set()
        self.address = ""
        self.server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> AsyncGenerator[pb.GenerateResponse, None]:  # noqa: N802
        request_id = dict(context.invocation_metadata())["x-request-id"]
        entry = self.books[request_id] = Entry(prompt=len(request.messages[-1].content[0].text))
        fails_at = request.sampling.seed if request.sampling.HasField("seed") else None
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            yield _response(pb.Event(started=pb.Started(prompt_tokens=entry.prompt)))
            for number in range(1, request.sampling.max_tokens + 1):
                await self.going.wait()
                await asyncio.sleep(self.pace)
                if number == fails_at:
                    entry.ended = "broken"
                    await context.abort_with_status(Failure(Reason.INTERNAL, "the engine broke").status())
                entry.completion += 1
                yield _response(pb.Event(delta=pb.Delta(content="x", token_count=1)))
            usage = pb.Usage(prompt_tokens=entry.prompt, completion_tokens=entry.completion, cached_tokens=1)
            entry.ended = "complete"
            yield _response(pb.Event(finish=pb.Finish(reason=pb.FINISH_REASON_STOP)), pb.Event(usage=usage))
        finally:
            self.running -= 1

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:  # noqa: N802
        return pb.ListModelsResponse(models=[pb.Model(id=model, owned_by="tests") for model in MODELS])


def _response(*events: pb.Event) -> pb.GenerateResponse:
    return pb.GenerateResponse(events=events)


@asynccontextmanager
async def counting_worker(port: int) -> AsyncIterator[CountingWorker]:
    """Serve one on 127.0.0.1:`port`."""
    worker = CountingWorker()
    worker.address = f"127.0.0.1:{port}"
    healthy = health.aio.HealthServicer()
    await healthy.set(SERVICE, health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, worker.server)
    inference_service_pb2_grpc.add_InferenceServiceServicer_to_server(worker, worker.server)
    worker.server.add_insecure_port(worker.address)
    await worker.server.start()
    try:
        yield worker
    finally:
        await worker.server.stop(None)
